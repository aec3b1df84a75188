"""labelmap.txt of CVAT's export in the form of Pascal VOC: classes and their colours.

# label:color_rgb:parts:actions
background:0,0,0::
leaf:0,160,0::
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nas_core.base.errors import DataError, shown
from nas_core.base.files import read_text
from nas_core.data.listing import report

LABELMAP = "labelmap.txt"
_MAX_BYTES = 2**20
_NUMBER = re.compile(r"[0-9]{1,9}")


def read_labelmap(path: Path) -> dict[str, Any]:
    """What a labelmap says, in the form of dataset.yaml.

    Raises:
        DataError: it is no text, a line is of another form, or none names a class.
        OSError: the file cannot be read, or is too large.
    """
    classes = []
    problems = []
    try:
        lines = read_text(path, _MAX_BYTES).splitlines()
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, *more = (part.strip() for part in line.split(":"))
        colour = more[0].split(",") if more else []
        if len(colour) != 3 or not all(_NUMBER.fullmatch(part.strip()) for part in colour):
            problems.append(
                f"{path.name}, line {number}: expected NAME:RED,GREEN,BLUE::, as leaf:0,160,0::, "
                f"found {shown(line.strip())}"
            )
            continue
        classes.append({"name": name, "colour": [int(part) for part in colour]})
    if problems:
        raise report(path.parent, problems)
    if not classes:
        raise DataError(f"{path}: names no class: expected lines as leaf:0,160,0::")
    return {"classes": classes}
