"""The looks at test: each time that a network was run on a test split.

A score that is chosen among several is too good, and the more so the more there were. So each look
is a line of one file, which only grows; a rerun that reads stored scores adds none.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from nas_core.base.documents import Document
from nas_core.base.errors import RunError
from nas_core.base.files import MAX_JSON, append_line, read_limited
from nas_core.base.locks import exclusive
from nas_core.base.paths import looks_file


class Look(Document):
    """A line of test_looks.jsonl.

    Attributes:
        time: seconds since the epoch.
        architecture: the id of the network's architecture.
        data_hash: that of the data set, see `PreparedData`.
        data: its name.
        model: the training's folder, or the model that a command named.
        mean_iou: what was seen, from 0 to 1.
    """

    time: float
    architecture: str
    data_hash: str
    data: str
    model: str
    mean_iou: float


def note_look(root: Path, look: Look) -> None:
    """Append a look; it is on the disk when this returns.

    Raises:
        RunError: the file cannot be read, or the disk does not take it.
    """
    path = looks_file(root)
    line = json.dumps(look.model_dump()).encode() + b"\n"
    with exclusive(path):
        # A line that a crash cut short goes.
        size = _content(path).rfind(b"\n") + 1
        append_line(path, size, line)


def count_looks(root: Path, architecture: str, data_hash: str) -> int:
    """How often networks of an architecture were run on the test split of a data set.

    Raises:
        RunError: the file cannot be read, or a line of it is no look.
    """
    looks = _read(looks_file(root))
    return sum((look.architecture, look.data_hash) == (architecture, data_hash) for look in looks)


def _read(path: Path) -> list[Look]:
    lines = _content(path).split(b"\n")[:-1]  # the last is empty, or cut short
    looks = []
    for number, line in enumerate(lines, start=1):
        try:
            looks.append(Look.model_validate_json(line))
        except ValidationError:
            raise RunError(
                f"{path}: line {number} is no look at test: restore the file from a copy, or "
                "remove that line"
            ) from None
    return looks


def _content(path: Path) -> bytes:
    """Nothing where there is no file: then nobody has looked yet."""
    try:
        return read_limited(path, MAX_JSON)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror}): restore the file from a copy"
        ) from None
