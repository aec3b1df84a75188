"""COCO's JSON as CVAT, Label Studio, Roboflow and others write it.

    result.json             images/             Label Studio
    annotations/instances_default.json  images/ CVAT; without images/ too
    train/_annotations.coco.json  valid/  test/ Roboflow: images beside the files

https://cocodataset.org/#format-data has the format.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from nas_core.base.errors import DataError, shown, some_of
from nas_core.data.importing.plan import (
    ForeignPart,
    Picture,
    Plan,
    Shape,
    class_names,
    found_source,
    is_file,
    keep_splits,
    path_in,
    read_annotations,
    split_of,
)
from nas_core.data.importing.shapes import coco_masks, coco_polygon, run_lengths
from nas_core.data.listing import SPLITS

_FOLDER = "annotations"
_LONGEST_PATH = 4096
_NOT_COCO = (
    "no COCO files, which hold images, annotations and categories (labelme has another format)"
)


def _is_id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("expected a whole number or a text")
    return str(value)


Id = Annotated[str, BeforeValidator(_is_id)]


class _Image(ForeignPart):
    id: Id
    file_name: str
    width: int | None = None
    height: int | None = None


class _Annotation(ForeignPart):
    id: Any = None
    image_id: Id
    category_id: Id
    segmentation: Any = None
    iscrowd: bool | None = None
    attributes: Any = None

    @property
    def is_crowd(self) -> bool:
        """Whether it is several things at once.

        CVAT, which gives each annotation attributes, says so of whatever was painted: of all masks.
        """
        return bool(self.iscrowd) and not isinstance(self.attributes, dict)


class _Category(ForeignPart):
    id: Id
    name: str | None = None
    supercategory: Any = None


class _Content(ForeignPart):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True)
class _File:
    path: Path
    name: str
    split: str | None
    content: _Content


def read_coco(source: Path) -> Plan:
    """What a file of COCO, or a folder with several, says; images are looked for, not read.

    Raises:
        DataError: there is no such file, or none of COCO. All other problems are in the result.
        SettingsError: pycocotools is not installed.
    """
    coco_masks()
    source = found_source(source)
    root, paths = _find_files(source)
    plan = Plan(root)
    files = []
    for path, split in paths:
        name = path.relative_to(root).as_posix()
        content = read_annotations(path, _Content, name, _NOT_COCO, plan.problems)
        if content is not None:
            files.append(_File(path, name, split, content))
    if plan.problems:
        return plan
    names = _categories(files, plan)
    taken: dict[str, str] = {}
    for file in files:
        _add_pictures(file, names, taken, plan)
    if not any(file.split for file in files):
        keep_splits(plan)
    return plan


def _find_files(source: Path) -> tuple[Path, list[tuple[Path, str | None]]]:
    """The folder that holds all, and its files with their splits, train first."""
    if source.is_file():
        in_folder = source.parent.name.lower() == _FOLDER
        return source.parent.parent if in_folder else source.parent, [(source, None)]
    splits = {path: split_of(path.name) for path in sorted(source.iterdir()) if path.is_dir()}
    places = [source, source / _FOLDER, *(path for path, split in splits.items() if split)]
    paths = [
        path
        for place in places
        for path in sorted(place.glob("[!.]*.json"))  # some systems hide files beside each
        if path.is_file()
    ]
    # COCO's own folder has captions and key points beside them.
    paths = [path for path in paths if path.name.startswith("instances_")] or paths
    if not paths:
        raise DataError(
            f"{source}: no .json file in it, in its {_FOLDER}/ or in train/, valid/ or test/"
        )
    found = {path: splits.get(path.parent) or split_of(path.stem) for path in paths}
    if len(paths) == 1 or not any(found.values()):
        return source, [(path, None) for path in paths]
    unknown = [path.relative_to(source).as_posix() for path, split in found.items() if not split]
    if unknown or "train" not in found.values():
        what = f"no split in the name of {some_of(unknown, 3)}" if unknown else "no file of train"
        raise DataError(
            f"{source}: {what}: expected train, val or test in the names of the files or their "
            "folders, or give the one file to import"
        )
    return source, sorted(found.items(), key=lambda item: SPLITS.index(str(item[1])))


def _categories(files: list[_File], plan: Plan) -> dict[tuple[str, str], str]:
    """The class of each file and id of a category; classes are put in the order of the ids."""
    used = {(file.name, one.category_id) for file in files for one in file.content.annotations}
    ids: dict[tuple[str, str], str] = {}
    for file in files:
        categories = file.content.categories
        for one in sorted(categories, key=lambda one: _in_order(one.id)):
            key, name = (file.name, one.id), (one.name or "").strip()
            if not name:
                plan.problems.add(f"{file.name}: categories without a name", f"id {one.id}")
            elif key in ids:
                plan.problems.add(f"{file.name}: ids of two categories", one.id)
            elif key not in used and _is_group(name, one, categories):
                plan.left_out.add("categories that only group others", f"{file.name} {name}")
            else:
                ids[key] = name
        counts = Counter(name for (of, _), name in ids.items() if of == file.name)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            plan.problems.add(f"{file.name}: two categories of one name: rename one", *twice)
    classes = class_names(dict.fromkeys(ids.values()), plan)
    plan.categories = list(dict.fromkeys(classes.values()))
    return {key: classes[name] for key, name in ids.items()}


def _is_group(name: str, category: _Category, categories: list[_Category]) -> bool:
    """Whether others are below this one: Roboflow lists the name of the data set so."""
    return any(one.supercategory == name for one in categories if one is not category)


def _in_order(identity: str) -> tuple[int, str]:
    return (int(identity) if re.fullmatch(r"-?\d{1,18}", identity) else 2**63, identity)


def _add_pictures(
    file: _File, names: dict[tuple[str, str], str], taken: dict[str, str], plan: Plan
) -> None:
    """Pictures of a file, with what is drawn on them.

    Args:
        taken: which image of which file names a picture, by its path below the root.
    """
    shapes: dict[str, list[Shape]] = {one.id: [] for one in file.content.images}
    if len(shapes) < len(file.content.images):
        ids = Counter(one.id for one in file.content.images)
        twice = [one for one, count in ids.items() if count > 1]
        plan.problems.add(f"{file.name}: ids of two images", *twice)
    for number, one in enumerate(file.content.annotations):
        name = f"{file.name}, annotation {number if one.id is None else shown(one.id)}"
        category = names.get((file.name, one.category_id))
        if one.image_id not in shapes:
            plan.problems.add(f"{file.name}: annotations of an image that it does not list", name)
        elif category is None:
            plan.problems.add(f"{file.name}: annotations of a category that it does not list", name)
        else:
            drawings = list(_drawings(one.segmentation))
            if not drawings:
                plan.left_out.add("annotations without a shape", name)
            elif one.is_crowd:
                plan.left_out.add("crowd regions, whose pixels count for nothing", name)
            shapes[one.image_id] += [
                Shape(name, None if one.is_crowd else category, draw, one.is_crowd)
                for draw in drawings
            ]
    for image in file.content.images:
        path = _find_image(file, image.file_name, plan)
        if path is None:
            continue
        place = f"{file.name}, image {image.id}"
        if taken.setdefault(path, place) != place:
            plan.problems.add(f"images that are listed twice ({path})", taken[path], place)
            continue
        known = image.height is not None and image.width is not None
        size = (image.height or 0, image.width or 0) if known else None
        source = plan.root / path
        plan.pictures.append(Picture(path, source, size, file.split, tuple(shapes[image.id])))


def _drawings(segmentation: Any) -> Iterator[Any]:
    """How to draw each part of an annotation."""
    if isinstance(segmentation, dict):
        yield partial(run_lengths, segmentation)
    elif isinstance(segmentation, list):
        # Some tools write the one polygon without the list of polygons around it.
        flat = segmentation and not isinstance(segmentation[0], list)
        for part in [segmentation] if flat else segmentation:
            if part:
                yield partial(coco_polygon, part)
    elif segmentation is not None:
        yield partial(coco_polygon, segmentation)


def _find_image(file: _File, name: str, plan: Plan) -> str | None:
    """The path of an image below the root, or None and a problem.

    Files name it from several places, with slashes of Windows, or by its place on another machine.
    What a name leads to outside of the root is not looked for.
    """
    root, folder = plan.root, file.path.parent
    # No system has a longer path, and each of its folders is tried as the beginning.
    if len(name) > _LONGEST_PATH:
        plan.problems.add(f"{file.name}: images that are not there", name)
        return None
    direct = path_in(root, folder, name)
    parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")]
    subset = re.sub(r"^instances_", "", file.path.stem)
    places = [folder, root]
    places += [place / "images" for place in places]
    places += [place / subset for place in places]
    candidates = [root / direct] if direct is not None else []
    candidates += [
        place.joinpath(*parts[start:]) for start in range(len(parts)) for place in places
    ]
    for path in candidates:
        if is_file(path):
            return path.relative_to(root).as_posix()
    what = "images that are not there" if direct is not None else f"file_name leads out of {root}"
    plan.problems.add(f"{file.name}: {what}", name)
    return None
