"""What the files of an annotation tool say, in one form for all tools."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import regex
from pydantic import BaseModel, ConfigDict, ValidationError

from nas_core.base.errors import DataError, shown, some_of
from nas_core.base.files import distinct, open_limited, resolved
from nas_core.base.problems import in_words
from nas_core.data.description import seen_name
from nas_core.data.fitting import Size
from nas_core.data.importing.shapes import Region

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# What dataset.yaml takes in the name of a class.
_NOT_IN_NAMES = regex.compile(r"[^\w .\-]")
_MAX_NAME = 60
_NAMED = 3
BOM = b"\xef\xbb\xbf"
"""Some editors put it before UTF-8."""


class Findings:
    """What was found, and where; many of one kind are one line."""

    def __init__(self) -> None:
        self._places: defaultdict[str, list[str]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self._places)

    def add(self, what: str, *places: str) -> None:
        self._places[what] += places

    def update(self, other: Findings) -> None:
        for what, places in other._places.items():
            self._places[what] += places

    def lines(self) -> list[str]:
        """`what: place, place and 7 more`."""
        return [
            f"{what}: {some_of(places, _NAMED)}" if places else what
            for what, places in self._places.items()
        ]

    def counts(self) -> list[str]:
        """`12 what (place, place, place and 9 more)`."""
        return [
            f"{len(places)} {what} ({some_of(places, _NAMED)})"
            for what, places in self._places.items()
        ]


@dataclass(frozen=True)
class Shape:
    """A labelled part of an image.

    Attributes:
        name: what messages call it.
        category: the name of its class; None if its pixels count for nothing.
        draw: its pixels in an image of (height, width); raises ShapeError.
        below: whether it lies below all others, else above those that come before it.
    """

    name: str
    category: str | None
    draw: Callable[[Size], Region]
    below: bool = False


Source = Path | Callable[[], bytes]
"""The file of an image, or what gets its content from elsewhere and raises DataError."""


@dataclass(frozen=True)
class Picture:
    """An image and what is drawn on it.

    Attributes:
        name: its path in the folder of the source; what messages call it.
        size: height and width that the annotations say, if they do.
        split: train, val or test if the source says so.
    """

    name: str
    source: Source
    size: Size | None
    split: str | None
    shapes: tuple[Shape, ...]


@dataclass
class Plan:
    """All that is to be drawn.

    Attributes:
        root: the folder of the source.
        categories: names of the classes, in their order, as dataset.yaml takes them.
        problems: what keeps it from being imported.
        left_out: what is not imported.
        notes: what people should know of the result.
    """

    root: Path
    categories: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    problems: Findings = field(default_factory=Findings)
    left_out: Findings = field(default_factory=Findings)
    notes: list[str] = field(default_factory=list)


def split_of(name: str) -> str | None:
    """The split that a word in the name of a file or folder says, as instances_val2017.json."""
    words = regex.split(r"[\W\d_]+", name.lower())
    found = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def class_name(name: str) -> str:
    """A name as dataset.yaml takes it: other characters become `_`."""
    plain = _NOT_IN_NAMES.sub("_", unicodedata.normalize("NFC", name.strip()))
    return str(regex.sub(r"^[ .\-]", "_", plain))[:_MAX_NAME].strip()


def class_names(names: Iterable[str], plan: Plan) -> dict[str, str]:
    """Each name as dataset.yaml takes it; two that would look the same are a problem."""
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in names:
        found[name] = class_name(name)
        other = first.setdefault(seen_name(found[name]), name)
        if other == name:
            continue
        if seen_name(other) == seen_name(name):
            plan.problems.add(f"categories {other!a} and {name!a} look the same: rename one")
        else:
            plan.problems.add(
                f"categories whose names would be one class {shown(found[name])}, since others "
                "than letters, digits, '_', '-', '.' and spaces become '_': rename them",
                other,
                name,
            )
    changed = [f"{shown(old)[1:-1]} is {new}" for old, new in found.items() if old != new]
    if changed:
        plan.notes.append(f"names of classes: {some_of(changed, 12)}")
    return found


Content = TypeVar("Content", bound=BaseModel)


class ForeignPart(BaseModel):
    """A part of a file of another program, which may hold more than is read here."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def read_annotations(
    path: Path, model: type[Content], name: str, otherwise: str, problems: Findings
) -> Content | None:
    """The content of a JSON file of any size; None if it has problems, which are added.

    Args:
        name: what messages call the file.
        otherwise: the problem of a file that is of another kind.
    """
    try:
        with open_limited(path) as file:
            content = file.read()
        content = content.removeprefix(BOM)
        found = model.model_validate_json(content)
        json.loads(content, object_pairs_hook=distinct)  # of two values pydantic takes the last
        return found
    except OSError as error:
        problems.add(f"files that cannot be read ({error.strerror})", name)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            place = [str(part) for part in problem["loc"]]
            if problem["type"] == "json_invalid":
                problems.add(f"{name}: {in_words(problem)}")
            elif len(place) < 2 and problem["type"] in ("missing", "model_type"):
                problems.add(otherwise, name)
                break
            else:
                key = ".".join([place[0], *place[2:]])
                problems.add(
                    f"{name}: {shown(key)[1:-1]}: {in_words(problem)}",
                    *[f"entry {number}" for number in place[1:2]],
                )
    except ValueError as error:
        problems.add(f"{name}: {error}")
    return None


def is_file(path: Path) -> bool:
    """Whether a path that a file names leads to a regular file; it need not be a possible path."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, a character that no path has
        return False


def keep_splits(plan: Plan) -> None:
    """Folders train/, valid/ and test/ divide the images, if they hold all of them."""
    paths = [picture.name.removeprefix("images/") for picture in plan.pictures]
    splits = [split_of(path.partition("/")[0]) if "/" in path else None for path in paths]
    found = set(splits)
    if None not in found and "train" in found and len(found) > 1:
        plan.pictures = [
            replace(picture, split=split)
            for picture, split in zip(plan.pictures, splits, strict=True)
        ]
    elif found - {None, "train"}:
        plan.notes.append(
            "folders of splits do not divide the images: they must hold all, and one be train"
        )


def path_in(root: Path, folder: Path, name: str) -> str | None:
    """The path below `root` of a file that is named from `folder`; None if it leads out of it.

    It may have the slashes of Windows. Links are not followed: whoever made them means them.
    """
    joined = os.path.normpath(
        folder.relative_to(root).joinpath(*name.replace("\\", "/").split("/"))
    )
    return None if joined.split("/")[0] == ".." else joined


def found_source(source: Path) -> Path:
    """Its full path; raises a DataError if it is no file and no folder."""
    with suppress(OSError):  # a name that is too long
        if source.is_file() or source.is_dir():
            return resolved(source)
    raise DataError(f"{source} does not exist, or is no file or folder: give what the tool wrote")
