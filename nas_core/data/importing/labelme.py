"""labelme's files: x.json for each x.jpg, in one folder or several.

https://github.com/wkentaro/labelme has the format. The image is the file that `imagePath` names or
the one beside with that name, else what `imageData` holds.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

from nas_core.base.errors import DataError, shown
from nas_core.data.images import IMAGE_SUFFIXES
from nas_core.data.importing.plan import (
    BOM,
    ForeignPart,
    Picture,
    Plan,
    Shape,
    Source,
    class_names,
    found_source,
    is_file,
    keep_splits,
    path_in,
    read_annotations,
)
from nas_core.data.importing.shapes import (
    labelme_circle,
    labelme_mask,
    labelme_polygon,
    labelme_rectangle,
)
from nas_core.data.listing import list_files

# labelme's own converters leave the pixels of this label out of the count.
_IGNORED = "__ignore__"
_DRAWINGS: dict[str, Callable[..., Any]] = {
    "polygon": labelme_polygon,
    "oriented_rectangle": labelme_polygon,
    "rectangle": labelme_rectangle,
    "circle": labelme_circle,
}
_NOT_LABELME = "no labelme files, which hold shapes (COCO has another format)"


class _Shape(ForeignPart):
    label: str
    points: Any
    shape_type: str | None = None
    mask: Any = None


class _Content(ForeignPart):
    model_config = ConfigDict(alias_generator=to_camel)

    shapes: list[_Shape]
    image_path: str | None = None
    image_data: Annotated[bool, BeforeValidator(bool)] = False  # all of them would fill the memory
    image_height: int | None = None
    image_width: int | None = None


class _Embedded(ForeignPart):
    model_config = ConfigDict(alias_generator=to_camel)

    image_data: str


def read_labelme(source: Path) -> Plan:
    """What the files of a folder, and of those in it, say; images are looked for, not read.

    Raises:
        DataError: it is no folder with JSON files. All other problems are in the result.
    """
    root = found_source(source)
    if not root.is_dir():
        raise DataError(f"{source}: labelme has a file for each image: give their folder")
    plan = Plan(root)
    contents: dict[Path, _Content] = {}
    files = [path for _, path in list_files(root)]
    for path in (path for path in files if path.suffix.lower() == ".json"):
        name = path.relative_to(root).as_posix()
        content = read_annotations(path, _Content, name, _NOT_LABELME, plan.problems)
        if content is not None:
            contents[path] = content
    if plan.problems:
        return plan
    if not contents:
        raise DataError(f"{source}: no .json file in it: labelme writes one for each image")
    labels = sorted({one.label.strip() for content in contents.values() for one in content.shapes})
    names = class_names([name for name in labels if name not in ("", _IGNORED)], plan)
    plan.categories = list(dict.fromkeys(names.values()))
    taken: set[str] = set()
    for path, content in contents.items():
        _add_picture(path, content, names, taken, plan)
    used = {picture.source for picture in plan.pictures}
    unnamed = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path not in used]
    if unnamed:
        places = [path.relative_to(root).as_posix() for path in unnamed]
        plan.left_out.add("images without a .json file", *places)
    keep_splits(plan)
    return plan


def _add_picture(
    path: Path, content: _Content, names: dict[str, str], taken: set[str], plan: Plan
) -> None:
    file = path.relative_to(plan.root).as_posix()
    if (found := _find_image(path, content, plan)) is None:
        return
    name, source = found
    if name in taken:
        plan.problems.add("files whose image another file has too", f"{file} ({name})")
        return
    taken.add(name)
    shapes = []
    for number, one in enumerate(content.shapes):
        kind, label = one.shape_type or "polygon", one.label.strip()
        place = f"{file}, shape {number}"
        if kind not in _DRAWINGS and kind != "mask":
            plan.left_out.add(f"shapes of the kind {shown(kind)[1:-1]}", place)
        elif not label:
            plan.problems.add("shapes without a label", place)
        else:
            draw = (
                partial(labelme_mask, one.points, one.mask)
                if kind == "mask"
                else partial(_DRAWINGS[kind], one.points)
            )
            shapes.append(Shape(place, None if label == _IGNORED else names[label], draw))
    known = content.image_height is not None and content.image_width is not None
    size = (content.image_height or 0, content.image_width or 0) if known else None
    plan.pictures.append(Picture(name, source, size, None, tuple(shapes)))


def _find_image(path: Path, content: _Content, plan: Plan) -> tuple[str, Source] | None:
    """The path of an image below the root, and where its content is; or None and a problem."""
    root, file = plan.root, path.relative_to(plan.root).as_posix()
    said = content.image_path or path.with_suffix(".jpg").name
    below = path_in(root, path.parent, said)
    candidates = [root / below] if below is not None else []
    candidates.append(path.parent / said.replace("\\", "/").rpartition("/")[2])
    for candidate in candidates:
        if is_file(candidate):
            return candidate.relative_to(root).as_posix(), candidate
    if content.image_data:
        return path.with_suffix("").relative_to(root).as_posix(), partial(_embedded, path, file)
    what = f"imagePath leads out of {root}" if below is None else "images that are not there"
    plan.problems.add(what, f"{said} of {file}")
    return None


def _embedded(path: Path, file: str) -> bytes:
    try:
        content = _Embedded.model_validate_json(path.read_bytes().removeprefix(BOM))
        return base64.b64decode(content.image_data, validate=True)
    except (OSError, ValueError):  # ValidationError and binascii.Error are of the second kind
        raise DataError(f"{file}: imageData is no picture in base64") from None
