"""A draft of dataset.yaml from what the masks hold, for a person to name the classes in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nas_core.base.errors import DataError, printable
from nas_core.base.yaml_files import parse_yaml
from nas_core.data.arrangement import Arrangement
from nas_core.data.description import DESCRIPTION, VOC_VOID_COLOUR, VOC_VOID_LABEL, Places
from nas_core.data.images import read_labels
from nas_core.data.labels import MAX_CLASSES
from nas_core.data.listing import SPLITS, Colour
from nas_core.data.masks import code_of, colour_of, near

_RARE = 0.001
_BACKGROUND = 0.02
_BLACK = (0, 0, 0)
_MAX_COLOURS = 2**16


@dataclass
class Values:
    """What the masks hold: pixels of each label or colour, and in how many masks each is."""

    labels: Counter[int] = field(default_factory=Counter)
    colours: Counter[Colour] = field(default_factory=Counter)
    masks_with: Counter[int | Colour] = field(default_factory=Counter)
    colours_of: defaultdict[int, set[Colour]] = field(default_factory=lambda: defaultdict(set))
    num_masks: Counter[str] = field(default_factory=Counter)

    @property
    def is_one(self) -> bool:
        """Whether all pixels of all masks are alike."""
        return len(self.labels) <= 1 and len(self.colours) <= 1

    @property
    def is_noisy(self) -> bool:
        """Whether there are more colours than there can be classes: most are no class then."""
        return len(self.colours) > MAX_CLASSES

    @property
    def is_picture(self) -> bool:
        """Whether there are many colours, and hardly one of them often, as in photos."""
        least = _RARE * self.colours.total()
        return self.is_noisy and sum(count >= least for count in self.colours.values()) < 2

    def add(self, other: Values) -> None:
        """What other masks hold; of very many colours, the most common are kept."""
        self.labels.update(other.labels)
        self.colours.update(other.colours)
        self.masks_with.update(other.masks_with)
        self.num_masks.update(other.num_masks)
        for label, colours in other.colours_of.items():
            self.colours_of[label] |= colours
        if len(self.colours) > 2 * _MAX_COLOURS:
            self.colours = Counter(dict(self.colours.most_common(_MAX_COLOURS)))
            self.masks_with = Counter(
                {key: n for key, n in self.masks_with.items()
                 if isinstance(key, int) or key in self.colours}
            )  # fmt: skip


@dataclass(frozen=True)
class Draft:
    """A dataset.yaml whose classes have no names yet.

    Attributes:
        class_lines: the first and the last line that names a class, from 1.
    """

    text: str
    class_lines: tuple[int, int]


def look(
    root: Path, masks: Iterable[Path], on_done: Callable[[], None]
) -> tuple[Values, list[str]]:
    """What the masks hold, and which cannot be read.

    Args:
        on_done: called for each mask, from several threads.
    """

    def read(path: Path) -> Values | str:
        try:
            return _values_of(path, root)
        except DataError as error:
            return str(error)
        finally:
            on_done()

    total = Values()
    problems = []
    with ThreadPoolExecutor() as threads:
        for one in threads.map(read, masks):
            if isinstance(one, str):
                problems.append(one)
            else:
                total.add(one)
    return total, problems


def _values_of(path: Path, root: Path) -> Values:
    """What one mask holds."""
    one = Values()
    values, palette = read_labels(path, root)
    if values.ndim == 3:
        codes, counts = np.unique(code_of(values), return_counts=True)
        common = np.argsort(counts)[::-1][:_MAX_COLOURS]
        found = zip(codes[common].tolist(), counts[common].tolist(), strict=True)
        one.colours.update({colour_of(code): count for code, count in found})
        one.num_masks["RGB"] += 1
    else:
        labels, counts = np.unique(values, return_counts=True)
        one.labels.update(dict(zip(labels.tolist(), counts.tolist(), strict=True)))
        one.num_masks["grey" if palette is None else "palette"] += 1
        colours = [] if palette is None else palette.tolist()
        for label in one.labels:
            if label < len(colours):
                red, green, blue = colours[label]
                one.colours_of[label].add((red, green, blue))
                one.colours[red, green, blue] += one.labels[label]
    one.masks_with.update([*one.labels, *one.colours])
    return one


def draft(values: Values, found: Arrangement, places: Places, said: str, target: Path) -> Draft:
    """The draft of dataset.yaml.

    Args:
        places: what dataset.yaml says already, of where things lie.
        said: the text that says it.
        target: where the draft belongs once it is edited.
    """
    by_colour = bool(values.num_masks["RGB"]) or any(
        len(colours) > 1 for colours in values.colours_of.values()
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in values.num_masks.items())
    lines = [
        *_to_go_on(said, places).splitlines(),
        f"# A draft by nas data check, of masks: {kinds}.",
        f"# Name the classes, look at what is ignored, and copy it to {printable(str(target))}.",
        "classes:",
    ]
    first = len(lines) + 1
    more = _colour_lines(values) if by_colour else _label_lines(values)
    lines += more
    num_classes = sum(line.startswith("- {") for line in more)
    if by_colour and values.num_masks["grey"]:
        lines.append(
            "# Grey masks hold labels, and others colours: give each class its label too, as "
            "{name: class1, label: 7, colour: ...}."
        )
    splits = {pair.split for pair in found.pairs}
    missing = [split for split in SPLITS[1:] if split not in splits]
    if places.split is None and (None in splits or "val" in missing):
        shares = ", ".join(f"{split}: 0.15" for split in missing)
        lines.append(f"split: {{{shares}}}   # group: an expression for what belongs together")
    return Draft("\n".join(lines) + "\n", (first, first + num_classes - 1))


def _to_go_on(said: str, places: Places) -> str:
    """The same in a form that takes further keys below, which braces do not."""
    try:
        if "classes" in parse_yaml(f"{said}\nclasses:\n", DESCRIPTION):
            return said
    except ValueError:
        pass
    values = places.model_dump(exclude_unset=True)
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True) if values else ""
    return text


def _label_lines(values: Values) -> list[str]:
    labels = sorted(values.labels)
    void = [VOC_VOID_LABEL] if VOC_VOID_LABEL in labels and len(labels) > 2 else []
    lines = []
    uses = Counter(colour for colours in values.colours_of.values() for colour in colours)
    for label in labels:
        if label in void:
            continue
        name = "background" if label == 0 else f"class{label}"
        colours = values.colours_of.get(label)
        unique = colours is not None and all(uses[colour] == 1 for colour in colours)
        colour = f", colour: {list(next(iter(colours)))}" if colours and unique else ""
        lines.append(f"- {{name: {name}, label: {label}{colour}}}   {_note(values, label)}")
    if void:
        lines.append(f"ignore_labels: {void}   {_note(values, VOC_VOID_LABEL)}")
    return lines


def _colour_lines(values: Values) -> list[str]:
    """Classes by colour, the most common first; rare ones near a common one are left out.

    Where they are noisy, all that are rare or near are.
    """
    total = values.colours.total()
    classes: list[Colour] = []
    remains = 0
    for colour, count in values.colours.most_common():
        is_rare, is_near = count < _RARE * total, near(colour, classes) is not None
        if (is_rare or is_near) if values.is_noisy else (is_rare and is_near):
            remains += 1
        elif len(classes) < MAX_CLASSES:
            classes.append(colour)
        else:
            remains += 1
    ignored = [
        colour
        for colour in classes
        if colour == VOC_VOID_COLOUR
        or (colour == _BLACK and values.colours[colour] < _BACKGROUND * total)
    ]
    lines = []
    for number, colour in enumerate(one for one in classes if one not in ignored):
        name = "background" if colour == _BLACK else f"class{number}"
        lines.append(f"- {{name: {name}, colour: {list(colour)}}}   {_note(values, colour)}")
    if ignored:
        shown = [list(colour) for colour in ignored]
        lines.append(f"ignore_colours: {shown}   {_note(values, *ignored)}")
    if remains:
        lines.append(
            f"# Left out: {remains} rare colours, as JPEG and smoothing leave them at edges. Masks "
            "with them are refused: save those anew from their source."
        )
    return lines


def _note(values: Values, *keys: int | Colour) -> str:
    """The share of the pixels and the number of masks, as a comment."""
    counts: Counter[Any] = values.labels if isinstance(keys[0], int) else values.colours
    share = sum(counts[key] for key in keys) / counts.total()
    masks = max(values.masks_with[key] for key in keys)
    return f"# {share:.2%} of the pixels, in {masks} of {values.num_masks.total()} masks"
