"""Your own data: images and masks of the same names in folders, described by dataset.yaml.

    dataset.yaml                        classes, ignored labels
    train/images/   train/masks/        the splits; test/ may be left out
    val/images/     val/masks/
    test/images/    test/masks/

or `images/` and `masks/` alone, divided by list files (train.txt, val.txt, test.txt: a file name of
`images/` a line) or by `split` in dataset.yaml. Both may hold folders: a mask lies at the path of
its image. Images are PNG or JPEG, masks PNG: 8-bit grey or palette, whose values are labels, or
8-bit RGB, whose colours stand for classes. So do those of a palette where each class has a colour
and the mask has no other.
"""

from __future__ import annotations

import colorsys
import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import regex
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nas_core.data.images import JPEG_SUFFIXES, listed, read_labels
from nas_core.data.listing import (
    SPLITS,
    Colour,
    Listing,
    Sample,
    hash_files,
    pair_files,
    report,
    sample_name,
)
from nas_core.errors import DataError, first_line, printable, shown
from nas_core.files import read_text
from nas_core.labels import IGNORED, MAX_CLASSES
from nas_core.yaml_files import read_yaml

DESCRIPTION = "dataset.yaml"
MAX_LIST_BYTES = 2**24
_IMAGES = (".png", *JPEG_SUFFIXES)
_CLASS_NAME = regex.compile(r"\w[\w .\-]{0,59}")
_ENTRY = "{name: road, label: 7}"
_UNKNOWN = -1
# Some expressions take longer than a lifetime for one name.
_SECONDS_A_NAME = 1.0

Label = Annotated[int, Field(ge=0, le=255)]
Channel = Annotated[int, Field(ge=0, le=255)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ClassEntry(_Section):
    """A class: its name, its label in grey and palette masks, its colour in RGB masks."""

    name: str
    label: Label | None = None
    colour: tuple[Channel, Channel, Channel] | None = Field(None, strict=False)

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
    """How to divide one folder of images: shares, and what belongs together."""

    val: float = Field(gt=0, lt=1)
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


class Description(_Section):
    """What dataset.yaml holds."""

    classes: list[ClassEntry] = Field(min_length=2, max_length=MAX_CLASSES)
    ignore_labels: list[Label] = []
    ignore_colours: list[Annotated[tuple[Channel, Channel, Channel], Field(strict=False)]] = []
    split: SplitEntry | None = None

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
            f"{DESCRIPTION}: {kind} {value} is given {count} times"
            for kind, entries in values.items()
            for value, count in Counter(entries).items()
            if count > 1
        ]
        alike: dict[str, str] = {}
        for name in dict.fromkeys(values["class"]):
            other = alike.setdefault(_seen(name), name)
            if other != name:
                twice.append(
                    f"{DESCRIPTION}: classes {other!a} and {name!a} look the same: rename one"
                )
        return twice


@dataclass(frozen=True)
class MaskReader:
    """Reads masks as `description` says; see `Listing.read_mask`."""

    root: Path
    description: Description

    def __call__(self, path: Path) -> npt.NDArray[np.uint8]:
        values, palette = read_labels(path, self.root)
        if values.ndim == 3:
            return self._of_colours(path, values)
        if palette is not None:
            used = np.unique(values)
            if self._are_declared(used, palette):
                numbers = np.zeros(256, np.uint8)
                numbers[used] = self._of_colours(path, palette[used])
                return numbers[values]
            self._check_palette(path, values, palette)
        return self._of_labels(path, values)

    def _are_declared(self, used: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]) -> bool:
        """Whether the colours of these indices say it all: then their order is of no account."""
        colours = self._colours()
        declared = {*colours, *self.description.ignore_colours}
        if None in declared or used[-1] >= len(palette):
            return False
        return all(tuple(colour) in declared for colour in palette[used].tolist())

    def _of_labels(self, path: Path, values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        table = np.full(256, _UNKNOWN, np.int16)
        table[list(self.description.ignore_labels)] = IGNORED
        table[self.description.labels] = range(len(self.description.classes))
        mask = table[values]
        strays = np.unique(values[mask == _UNKNOWN])
        if strays.size:
            raise DataError(f"{self._name(path)}: {listed(strays)} not in {DESCRIPTION}")
        return mask.astype(np.uint8)

    def _of_colours(self, path: Path, values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        known = {c: number for number, c in enumerate(self._colours()) if c is not None}
        known |= dict.fromkeys(self.description.ignore_colours, IGNORED)
        if not known:
            raise DataError(
                f"{self._name(path)}: an RGB mask, but the classes of {DESCRIPTION} have no colours"
            )
        codes = np.array(sorted((_code(colour), number) for colour, number in known.items()))
        pixels = values.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        places = np.searchsorted(codes[:, 0], pixels).clip(max=len(codes) - 1)
        strays = np.unique(pixels[codes[places, 0] != pixels])
        if strays.size:
            first = int(strays[0])
            colour = [first >> 16, first >> 8 & 255, first & 255]
            more = f" and {strays.size - 1} more" if strays.size > 1 else ""
            raise DataError(f"{self._name(path)}: colour {colour}{more} not in {DESCRIPTION}")
        labels: npt.NDArray[np.uint8] = codes[places, 1].astype(np.uint8)
        return labels

    def _check_palette(
        self, path: Path, values: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]
    ) -> None:
        """A program that saved colours as a palette may have numbered them as it liked."""
        for label, colour in zip(self.description.labels, self._colours(), strict=True):
            if colour is None or label >= len(palette) or not (values == label).any():
                continue
            found = tuple(palette[label].tolist())
            if found != colour:
                raise DataError(
                    f"{self._name(path)}: palette colour {list(found)} of label {label}, which has "
                    f"{list(colour)} in {DESCRIPTION}: leave the colours out there if the label is "
                    "right, or save the mask as RGB"
                )

    def _colours(self) -> list[Colour | None]:
        return [entry.colour for entry in self.description.classes]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def list_dataset(root: Path) -> Listing:
    """List and hash a dataset; nothing is decoded.

    Raises:
        DataError: `root` is no folder, or dataset.yaml is not valid (all its problems in one
            message). All other problems are in the result.
    """
    if not root.is_dir():
        raise DataError(f"dataset folder {root} does not exist: set dataset.path to yours")
    description = read_description(root)
    samples: list[Sample] = []
    problems: list[str] = []
    unused: tuple[str, ...] = ()
    lists = [root / f"{split}.txt" for split in SPLITS if lexists(root / f"{split}.txt")]
    in_splits = any((root / split / "images").is_dir() for split in SPLITS)
    ways = {
        "folders of splits": in_splits,
        "list files": bool(lists),
        f"split in {DESCRIPTION}": description.split is not None,
    }
    chosen = [way for way, used in ways.items() if used]
    if len(chosen) != 1:
        problem = f"divided in {len(chosen)} ways ({', '.join(chosen)})" if chosen else "no splits"
        problems.append(
            f"{problem}: expected train/images/ ..., or images/ with train.txt ... or with "
            f"split in {DESCRIPTION}"
        )
    elif in_splits:
        problems += _other_splits(root)
        for split in SPLITS:
            if lexists(root / split) or split != "test":
                pairs, found = pair_files(root, f"{split}/images", f"{split}/masks", _IMAGES)
                samples += [Sample(split, sample_name(name), *pair) for name, pair in pairs.items()]
                problems += found
    else:
        pairs, problems = pair_files(root, "images", "masks", _IMAGES)
        assigned, found = (
            _divide(pairs, description.split)
            if description.split is not None
            else _read_lists(root, lists, pairs)
        )
        problems += found
        samples = [
            Sample(split, sample_name(name), *pairs[name])
            for split in SPLITS
            for name in sorted(name for name, its in assigned.items() if its == split)
        ]
        unused = tuple(map(printable, sorted(pairs.keys() - assigned.keys())))
        problems += _other_lists(root, pairs, assigned)
    files = {path for sample in samples for path in (sample.image, sample.mask)}
    data_hash, unreadable = hash_files(root, [*files, *lists, root / DESCRIPTION])
    return Listing(
        root=root,
        classes=tuple(entry.name for entry in description.classes),
        palette=_palette(description),
        ignore_index=IGNORED,
        read_mask=MaskReader(root, description),
        mixed_sizes=True,
        samples=tuple(samples),
        problems=tuple(dict.fromkeys([*problems, *unreadable])),
        data_hash=data_hash,
        unused=unused,
    )


def read_description(root: Path) -> Description:
    """What dataset.yaml says.

    Raises:
        DataError: it is missing, unreadable or not valid.
    """
    path = root / DESCRIPTION
    try:
        description = Description.model_validate(read_yaml(path))
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist: it names the classes (docs/your_data.md)"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise report(root, [_explain(problem) for problem in error.errors()]) from None
    except ValueError as error:
        raise DataError(str(error)) from None
    if conflicts := description.conflicts():
        raise report(root, conflicts)
    return description


def _explain(problem: Any) -> str:
    key = shown(".".join(str(part) for part in problem["loc"]) or "content")[1:-1]
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unknown key"
    return f"{DESCRIPTION}: {key}: {message[:1].lower()}{message[1:]}"


def _palette(description: Description) -> tuple[Colour, ...]:
    """The colours of the classes; of those without one, colours of evenly spaced hues."""
    count = len(description.classes)
    hues = (colorsys.hsv_to_rgb(number / count, 0.75, 0.9) for number in range(count))
    return tuple(
        entry.colour or (round(255 * red), round(255 * green), round(255 * blue))
        for entry, (red, green, blue) in zip(description.classes, hues, strict=True)
    )


def _seen(name: str) -> str:
    """A name without what a reader does not see: forms of a letter, blanks, invisible ones."""
    visible = regex.sub(r"\p{DI}", "", unicodedata.normalize("NFKC", name))
    return " ".join(visible.split())


def _code(colour: Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _read_lists(
    root: Path, lists: Iterable[Path], pairs: dict[str, tuple[Path, Path]]
) -> tuple[dict[str, str], list[str]]:
    """The split of each listed image, by name, and what is wrong with the lists."""
    assigned: dict[str, str] = {}
    problems = [f"{split}.txt: is missing" for split in ("train", "val")]
    names = _names(pairs)
    for path in lists:
        split = path.stem
        problems = [line for line in problems if line != f"{path.name}: is missing"]
        try:
            lines = read_text(path, MAX_LIST_BYTES).splitlines()
        except OSError as error:
            problems.append(f"{path.name}: cannot be read: {error.strerror}")
            continue
        except ValueError as error:
            problems.append(f"{path.name}: cannot be read: {error}")
            continue
        for number, line in enumerate(lines, 1):
            entry = unicodedata.normalize("NFC", line.strip())
            where = f"{path.name}, line {number}: {entry[:80]}"
            if not entry:
                continue
            if entry not in names:
                problems.append(f"{where}: no such image with a mask in images/")
            elif assigned.setdefault(names[entry], split) != split:
                problems.append(f"{where}: is in {assigned[names[entry]]}.txt too")
        if split not in assigned.values():
            problems.append(f"{path.name}: names no image")
    return assigned, problems


def _names(pairs: dict[str, tuple[Path, Path]]) -> dict[str, str]:
    """How a list may name each image: by its file, or without the suffix where that is no file."""
    return {name: name for name in pairs} | {
        name + path.suffix: name for name, (path, _) in pairs.items()
    }


def _other_lists(
    root: Path, pairs: dict[str, tuple[Path, Path]], assigned: dict[str, str]
) -> list[str]:
    """Text files beside the lists that name images which no list has, as valid.txt may."""
    names = _names(pairs)
    problems = []
    for path in sorted(root.iterdir()):
        if path.suffix.lower() != ".txt" or path.name in (f"{split}.txt" for split in SPLITS):
            continue
        try:
            lines = read_text(path, MAX_LIST_BYTES).splitlines()
        except (OSError, ValueError):
            continue  # no list
        entries = (unicodedata.normalize("NFC", line.strip()) for line in lines)
        left_out = [entry for entry in entries if entry in names and names[entry] not in assigned]
        if left_out:
            problems.append(
                f"{path.name}: names {left_out[0]}, which no list has; the lists are train.txt, "
                "val.txt and test.txt: rename it, or move it away"
            )
    return problems


def _other_splits(root: Path) -> list[str]:
    """Folders beside the splits that hold images, which nobody would use."""
    return [
        f"{path.name}/: lies beside the splits and is none of {', '.join(SPLITS)}: rename it, or "
        "move it away"
        for path in sorted(root.iterdir())
        if path.name not in SPLITS
        and not path.name.startswith(".")
        and ((path / "images").is_dir() or (path.name == "images" and path.is_dir()))
    ]


def _divide(
    pairs: dict[str, tuple[Path, Path]], split: SplitEntry
) -> tuple[dict[str, str], list[str]]:
    """The split of each image, by name; images of one group stay together.

    The groups, in the order of a hash of seed and group, fill test, then val, up to their shares;
    the rest is train. So the result depends on the names alone.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    problems = []
    expression = regex.compile(split.group) if split.group is not None else None
    for name, (path, _) in pairs.items():
        file = name + path.suffix
        try:
            found = expression and expression.search(file, timeout=_SECONDS_A_NAME)
        except TimeoutError:
            problem = f"split.group takes more than {_SECONDS_A_NAME:.0f} s for {file}"
            return {}, [f"{DESCRIPTION}: {problem}: use a simpler expression"]
        group = found and found.group(1 if found.re.groups else 0)
        if expression and group is None:
            problems.append(f"images/{file}: split.group does not match it")
        groups[name if group is None else group].append(name)

    def order(group: str) -> str:
        content = f"{split.seed}\0{group}".encode(errors="surrogateescape")
        return hashlib.sha256(content).hexdigest()

    left = sorted(groups, key=order)
    assigned: dict[str, str] = {}
    for target, share in (("test", split.test), ("val", split.val)):
        count = 0
        while share and left and count < max(1, round(share * len(pairs))):
            names = groups[left.pop(0)]
            assigned |= dict.fromkeys(names, target)
            count += len(names)
    assigned |= {name: "train" for group in left for name in groups[group]}
    if pairs and not left:
        problems.append(
            f"split in {DESCRIPTION} leaves nothing to train on: {len(groups)} groups of "
            f"{len(pairs)} images; lower val and test, or use another group"
        )
    return assigned, problems
