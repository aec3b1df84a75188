"""Images and masks as a layout finds them, before they are divided into splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        name: one of its own in the split: the path in the folder of images, without suffix.
        file: that path with suffix, which list files and `split.group` mean.
        split: None where the layout does not say it.
        group: None where the layout does not say it.
    """

    name: str
    file: str
    image: Path
    mask: Path
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Arrangement:
    """What a layout finds.

    Attributes:
        layout: what people call it.
        where: the folder of the images, as messages name it: empty or with a slash at its end.
        problems: what is missing or wrong, one line each.
        lists: the list files, which are part of the dataset.
        unused: names of images with a mask that no list names.
        unmasked: images without a mask that a list names.
    """

    layout: str
    where: str
    pairs: tuple[Pair, ...]
    problems: tuple[str, ...] = ()
    lists: tuple[Path, ...] = ()
    unused: tuple[str, ...] = ()
    unmasked: tuple[str, ...] = ()


def pairs_of(
    found: Mapping[str, tuple[Path, Path]], split: str | None = None, names: Iterable[str] = ()
) -> list[Pair]:
    """What `pair_files` found, in the order of `names` if they are given."""
    return [
        Pair(name, name + found[name][0].suffix, *found[name], split) for name in names or found
    ]
