"""Meta-val: the training images that score the candidates of a search, and how they are chosen."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from nas_core.base.errors import some_of
from nas_core.config import MetaValSettings

Rows = npt.NDArray[np.intp]
Way = Literal["frames", "groups", "blocks"]

MIN_GROUPS = 5
"""With fewer, one that is held out whole would leave its kind of scene out of training."""
MAX_FACTOR = 1.5
"""How far the share of whole groups may be from the one asked for, as a factor."""
_NUM_DRAWS = 100
_MIN_TRAIN = 2
"""Images of meta-train: batch norm wants two."""
_SHOWN_GROUPS = 8


@dataclass(frozen=True)
class MetaVal:
    """How the training split is divided for a search.

    Attributes:
        train, val: rows of meta-train and meta-val in the training split, ascending. Rows in
            neither are the gaps around blocks.
        way: images one by one, whole groups, or contiguous blocks of frames within groups.
        reason: why this way.
        groups: images of meta-val by group; empty where each image is its own group.
        num_shared: images of meta-val whose group has images in meta-train.
    """

    train: Rows
    val: Rows
    way: Way
    reason: str
    groups: dict[str, int]
    num_shared: int

    def __str__(self) -> str:
        words = {
            "frames": "drawn one by one",
            "groups": "whole groups",
            "blocks": "a block of frames of each group with a gap around it",
        }
        groups = some_of((f"{group} {n}" for group, n in self.groups.items()), _SHOWN_GROUPS)
        return (
            f"meta-val: {len(self.val)} images, meta-train: {len(self.train)}; "
            f"{words[self.way]} ({self.reason})" + (f": {groups}" if groups else "")
        )


def drawn_rows(rows: Rows, most: int | None, settings: MetaValSettings) -> Rows:
    """`most` of the rows, ascending; all of them where they are no more, or `most` is None."""
    if most is None or len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(settings.seed).choice(rows, most, replace=False))


def choose_meta_val(
    names: Sequence[str], groups: Sequence[str], settings: MetaValSettings
) -> MetaVal:
    """Divide a training split of three images or more.

    With `by: frames`, images are drawn one by one. With `by: groups` it is the first of these that
    the data allows:

    1. whole groups, where there are `MIN_GROUPS`, and drawn ones come to the share asked for
       within `MAX_FACTOR`;
    2. in each group a contiguous block of its frames, in the order of their names, with the share
       asked for; on both sides a gap of half its length, of one frame at least and a quarter of
       the group's rest at most, is in neither part;
    3. images one by one: each is its own group, or blocks and gaps leave no two to train on.

    Meta-val has one image at least, and meta-train two.

    Args:
        names, groups: of the images, in the order of their rows.
    """
    num = len(names)
    num_val = max(1, min(round(num * settings.fraction), num - _MIN_TRAIN))
    members = rows_by_group(names, groups)
    rng = np.random.default_rng(settings.seed)
    way, reason, val, gaps = _draw(list(members.values()), num_val, settings.by, rng)
    train = np.setdiff1d(np.arange(num), [*val, *gaps])
    have_groups = len(members) < num
    counts = Counter(groups[row] for row in val) if have_groups else {}
    trained_on = {groups[row] for row in train}
    return MetaVal(
        train=train,
        val=np.array(sorted(val), np.intp),
        way=way,
        reason=reason,
        groups=dict(sorted(counts.items())),
        num_shared=sum(n for group, n in counts.items() if group in trained_on),
    )


def _draw(
    groups: list[list[int]], num_val: int, by: str, rng: np.random.Generator
) -> tuple[Way, str, list[int], list[int]]:
    """The way and its reason, the rows of meta-val and those of gaps."""
    num = sum(map(len, groups))
    one_by_one: list[int] = rng.permutation(num)[:num_val].tolist()
    if by == "frames":
        return "frames", "search.meta_val.by is frames", one_by_one, []
    if len(groups) == num:
        return "frames", "each image is its own group", one_by_one, []
    if len(groups) < MIN_GROUPS:
        why = f"{len(groups)} groups; whole ones are held out of {MIN_GROUPS} or more"
    elif whole := _whole_groups(groups, num_val, rng):
        rows = [row for group in whole for row in group]
        return "groups", f"{len(whole)} of {len(groups)}", rows, []
    else:
        why = "no whole groups come to about search.meta_val.fraction"
    val, gaps = _blocks(groups, num_val, rng)
    if num - len(val) - len(gaps) >= _MIN_TRAIN:
        return "blocks", why, val, gaps
    return "frames", "the groups are too small for blocks with gaps", one_by_one, []


def _whole_groups(
    groups: list[list[int]], num_val: int, rng: np.random.Generator
) -> list[list[int]]:
    """Groups with about `num_val` rows, drawn; none if no draw comes near."""
    most = min(MAX_FACTOR * num_val, sum(map(len, groups)) - _MIN_TRAIN)
    for _ in range(_NUM_DRAWS):
        drawn: list[list[int]] = []
        total = 0
        for number in rng.permutation(len(groups)):
            if total < num_val and total + len(groups[number]) <= most:
                drawn.append(groups[number])
                total += len(groups[number])
        if total * MAX_FACTOR >= num_val:
            return drawn
    return []


def _blocks(
    groups: list[list[int]], num_val: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """`num_val` rows in a block of each group, in proportion to its size, and their gaps."""
    sizes = np.array([len(group) for group in groups])
    ends = np.round(np.cumsum(sizes) * num_val / sizes.sum()).astype(int)
    val, gaps = [], []
    for group, length in zip(groups, np.diff(ends, prepend=0).tolist(), strict=True):
        if not length:
            continue
        gap = max(1, min(length // 2, (len(group) - length) // 4))
        start = int(rng.integers(len(group) - length + 1))
        end = start + length
        val += group[start:end]
        gaps += group[max(0, start - gap) : start] + group[end : end + gap]
    return val, gaps


def rows_by_group(names: Sequence[str], groups: Sequence[str]) -> dict[str, list[int]]:
    """The rows of the images of each group, in the order of their names."""
    members: dict[str, list[int]] = {}
    for row in sorted(range(len(names)), key=lambda row: _natural(names[row])):
        members.setdefault(groups[row], []).append(row)
    return members


def _natural(name: str) -> list[str | int]:
    """A key that orders numbers in names by their value: frame 9 before frame 10."""
    parts: list[str | int] = list(re.split(r"(\d+)", name))
    parts[1::2] = map(int, parts[1::2])
    return parts
