"""What a person says of a dataset: dataset.yaml, or the labelmap.txt of Pascal VOC."""

from __future__ import annotations

import colorsys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from os.path import lexists
from pathlib import Path
from typing import Annotated, Any, Self

import regex
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from nas_core.base.errors import DataError, first_line, shown
from nas_core.base.letters import as_seen
from nas_core.base.problems import in_words, key_of
from nas_core.base.yaml_files import read_yaml
from nas_core.data.labelmap import LABELMAP, read_labelmap
from nas_core.data.labels import MAX_CLASSES
from nas_core.data.listing import Colour, report
from nas_core.data.patterns import Patterns

DESCRIPTION = "dataset.yaml"
VOC_MASKS = "SegmentationClass"
VOC_VOID_LABEL, VOC_VOID_COLOUR = 255, (224, 224, 192)
"""Outlines of objects in Pascal VOC, which belong to no class: 255 in its palette, nearly white
(http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html)."""

_CLASS_NAME = regex.compile(r"\w[\w .\-]{0,59}")
_ENTRY = "{name: road, label: 7}"

Label = Annotated[int, Field(ge=0, le=255)]
Channel = Annotated[int, Field(ge=0, le=255)]


def _is_colour(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f"expected red, green and blue, as [255, 128, 0], found {shown(value)}")
    return value


RGB = Annotated[tuple[Channel, Channel, Channel], Field(strict=False), BeforeValidator(_is_colour)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ClassEntry(_Section):
    """A class: its name, its label in grey and palette masks, its colour in RGB masks."""

    name: str
    label: Label | None = None
    colour: RGB | None = None

    @model_validator(mode="before")
    @classmethod
    def is_name_or_entry(cls, entry: Any) -> Any:
        if not isinstance(entry, dict):
            return {"name": entry}
        if "name" not in entry:
            raise ValueError(f"expected road or {_ENTRY}, found {shown(entry)}")
        return entry

    @field_validator("name", mode="before")
    @classmethod
    def is_name(cls, name: Any) -> str:
        if isinstance(name, bool):
            raise ValueError(
                "yes, no, on and off are true or false in YAML: put the name in quotes, as 'no'"
            )
        if name is None:
            raise ValueError("is empty: give the class a name")
        if not isinstance(name, str):
            raise ValueError(f"expected text, found {shown(name)}: put the name in quotes, as '7'")
        # What MLflow takes in the name of a metric, but for the slash, which would divide it.
        if not _CLASS_NAME.fullmatch(name):
            raise ValueError(
                "expected 1 to 60 letters, digits, '_', '-', '.' and spaces, the first of them a "
                f"letter, digit or '_', found {shown(name)}"
            )
        return unicodedata.normalize("NFC", name)


class SplitEntry(_Section):
    """Shares that are taken from train, or from all that no split names; what belongs together."""

    val: float = Field(0.0, ge=0, lt=1)
    test: float = Field(0.0, ge=0, lt=1)
    group: str | None = Field(None, max_length=500)
    seed: int = Field(0, ge=-(2**63), lt=2**63)

    @field_validator("group")
    @classmethod
    def is_expression(cls, group: str | None) -> str | None:
        try:
            regex.compile(group or "")
        except (regex.error, OverflowError, RecursionError) as error:
            raise ValueError(f"not a regular expression: {first_line(error)}") from None
        return group

    @model_validator(mode="after")
    def says_something(self) -> Self:
        if not self.val and not self.test and self.group is None:
            raise ValueError("give the share of val or of test, as {val: 0.15}")
        return self


class Places(_Section):
    """Where images and masks lie, as far as folders do not say it."""

    images: str | None = None
    masks: str | None = None
    group: str | None = None
    mask_suffix: str | None = Field(None, min_length=1, max_length=60)
    split: SplitEntry | None = None

    @field_validator("group", mode="before")
    @classmethod
    def is_quoted(cls, group: Any) -> Any:
        if isinstance(group, dict):
            raise ValueError('braces are a mapping in YAML: put it in quotes, as "{1}"')
        return group

    @property
    def shares(self) -> dict[str, float]:
        """The splits that are taken from train, and their shares."""
        if self.split is None:
            return {}
        shares = {"test": self.split.test, "val": self.split.val}
        return {split: share for split, share in shares.items() if share}

    @model_validator(mode="after")
    def is_one_way(self) -> Self:
        if (self.images is None) != (self.masks is None):
            raise ValueError("the patterns images and masks go together: give both")
        if self.group is not None and self.images is None:
            raise ValueError("group goes with the patterns images and masks: use split.group")
        if self.images is not None and self.masks is not None:
            if self.mask_suffix is not None:
                raise ValueError("mask_suffix and the patterns images and masks are two ways")
            if self.group is not None and self.split is not None and self.split.group is not None:
                raise ValueError("group and split.group are given both")
            Patterns(self.images, self.masks, self.group)  # refuses what is not valid
        return self


class Description(Places):
    """What dataset.yaml holds."""

    classes: list[ClassEntry] = Field(min_length=2, max_length=MAX_CLASSES)
    ignore_labels: list[Label] = []
    ignore_colours: list[RGB] = []

    @field_validator("classes", mode="before")
    @classmethod
    def is_list(cls, classes: Any) -> Any:
        if not isinstance(classes, list):
            raise ValueError(
                f"expected a list, as [road, sky] for the labels 0 and 1, or [{_ENTRY}, ...], "
                f"found {shown(classes)}"
            )
        return classes

    @property
    def labels(self) -> list[int]:
        """The label of each class: its own, or else its place in the list."""
        return [
            number if entry.label is None else entry.label
            for number, entry in enumerate(self.classes)
        ]

    def conflicts(self) -> list[str]:
        """What is given twice, or looks as if it were."""
        colours = [entry.colour for entry in self.classes if entry.colour is not None]
        values: dict[str, Sequence[Any]] = {
            "class": [entry.name for entry in self.classes],
            "label": [*self.labels, *set(self.ignore_labels)],
            "colour": [*colours, *set(self.ignore_colours)],
        }
        twice = [
            f"{kind} {value} is given {count} times"
            for kind, entries in values.items()
            for value, count in Counter(entries).items()
            if count > 1
        ]
        alike: dict[str, str] = {}
        for name in dict.fromkeys(values["class"]):
            other = alike.setdefault(seen_name(name), name)
            if other != name:
                twice.append(f"classes {other!a} and {name!a} look the same: rename one")
        return twice

    def palette(self) -> tuple[Colour, ...]:
        """The colours of the classes; of those without one, colours of evenly spaced hues."""
        count = len(self.classes)
        hues = (colorsys.hsv_to_rgb(number / count, 0.75, 0.9) for number in range(count))
        return tuple(
            entry.colour or (round(255 * red), round(255 * green), round(255 * blue))
            for entry, (red, green, blue) in zip(self.classes, hues, strict=True)
        )

    def with_void(self, label: int, colour: Colour) -> Description:
        """With a label and a colour that are ignored, where no class has them."""
        labels = {*self.ignore_labels} | ({label} - {*self.labels})
        colours = {*self.ignore_colours} | ({colour} - {entry.colour for entry in self.classes})
        return self.model_copy(
            update={"ignore_labels": sorted(labels), "ignore_colours": sorted(colours)}
        )


def description_file(root: Path) -> Path | None:
    """The file that names the classes: dataset.yaml, or the labelmap.txt of Pascal VOC.

    That counts where dataset.yaml names none, and says only where things lie.
    """
    own, labelmap = root / DESCRIPTION, root / LABELMAP
    has_labelmap = (root / VOC_MASKS).is_dir() and lexists(labelmap)
    if lexists(own):
        return labelmap if has_labelmap and not _names_classes(own) else own
    return labelmap if has_labelmap else None


def _names_classes(path: Path) -> bool:
    try:
        values = read_yaml(path)
    except (OSError, ValueError):
        return True  # what is wrong with it is said where it is read
    return not isinstance(values, dict) or "classes" in values


def check_name(root: Path) -> None:
    """Raises DataError: a file without effect has nearly the name that is read."""
    is_there = lexists(root / DESCRIPTION)
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.name != DESCRIPTION and path.name.lower() in (DESCRIPTION, "dataset.yml"):
            raise DataError(
                f"{path}: only {DESCRIPTION} is read: leave one of the two"
                if is_there
                else f"{path}: rename it to {DESCRIPTION}, which is what is read"
            )


def read_description(root: Path) -> Description:
    """What dataset.yaml says; the classes from Pascal VOC's labelmap.txt where it names none.

    Raises:
        DataError: it is missing, unreadable or not valid.
    """
    path = description_file(root)
    check_name(root)
    if path is None:
        raise DataError(
            f"{root / DESCRIPTION} does not exist: it names the classes (docs/your_data.md); "
            "`nas data check` writes a draft"
        )
    places = root / DESCRIPTION
    if not lexists(places):
        places = path
    try:
        values: Any = read_labelmap(path) if path.name == LABELMAP else read_yaml(path)
        if path != places:
            values = {**values, **read_yaml(places)}
        description = Description.model_validate(values)
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise report(
            root,
            [
                _explain((path if problem["loc"][:1] == ("classes",) else places).name, problem)
                for problem in error.errors()
            ],
        ) from None
    except ValueError as error:
        raise DataError(str(error)) from None
    if conflicts := description.conflicts():
        raise report(root, [f"{path.name}: {conflict}" for conflict in conflicts])
    if (root / VOC_MASKS).is_dir():
        return description.with_void(VOC_VOID_LABEL, VOC_VOID_COLOUR)
    return description


def undescribed(root: Path) -> Places | None:
    """What is said of where things lie, as long as no file names classes; None if one does.

    A dataset.yaml that is not valid counts as one that does: `read_description` says what is wrong.

    Raises:
        DataError: see `check_name`.
    """
    path = description_file(root)
    check_name(root)
    if path is None:
        return Places()
    if path.name == LABELMAP:
        return None
    try:
        values = read_yaml(path)
        return None if "classes" in values else Places.model_validate(values)
    except (OSError, ValueError, TypeError):
        return None


def _explain(source: str, problem: Any) -> str:
    if problem["type"] == "value_error" and not problem["loc"]:
        return f"{source}: {in_words(problem)}"  # of several keys, which it names
    words = in_words(problem)
    if problem["type"] == "extra_forbidden":
        sections: dict[Any, type[_Section]] = {"classes": ClassEntry, "split": SplitEntry}
        of = sections.get(problem["loc"][0], Description) if problem["loc"][1:] else Description
        words += f"; the keys are {', '.join(of.model_fields)}"
    return f"{source}: {key_of(problem) or 'content'}: {words}"


def seen_name(name: str) -> str:
    """A name without what a reader does not see: alphabets and forms of letters that look alike,
    blanks, invisible characters."""
    visible = regex.sub(r"\p{DI}", "", as_seen(name))
    return " ".join(visible.split())
