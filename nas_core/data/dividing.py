"""Which split an image is in: as list files say, or by shares of what no split names."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from os.path import lexists
from pathlib import Path

import regex

from nas_core.base.files import read_text
from nas_core.data.arrangement import Pair
from nas_core.data.description import DESCRIPTION, SplitEntry
from nas_core.data.listing import SPLIT_NAMES, SPLITS
from nas_core.data.patterns import SECONDS_A_NAME

_MAX_LIST_BYTES = 2**24
_SHOWN = 3


def find_lists(folder: Path) -> dict[str, Path]:
    """The list files in a folder, by split."""
    paths = {split: folder / f"{split}.txt" for split in SPLITS}
    return {split: path for split, path in paths.items() if lexists(path)}


def read_lists(
    lists: Mapping[str, Path],
    pairs: Collection[Pair],
    where: str,
    shares: Collection[str],
    unmasked: Collection[str] = (),
) -> tuple[dict[str, str], list[str], list[str]]:
    """The split of each listed image, by name, those of `unmasked`, and what is wrong.

    Args:
        where: the folder of the images, as messages name it.
        shares: the splits that are taken from train, and need no list.
        unmasked: images without a mask that a list may name, as `_names` has them.
    """
    assigned: dict[str, str] = {}
    problems = [
        f"{split}.txt: is missing"
        for split in ("train", "val")
        if split not in lists and split not in shares
    ]
    if "val" not in lists and "val" not in shares:
        problems[-1] += f"; split: {{val: 0.15}} in {DESCRIPTION} takes val from train"
    names = _names(pairs)
    left_out: dict[str, None] = {}
    for split, path in lists.items():
        try:
            lines = read_text(path, _MAX_LIST_BYTES).splitlines()
        except OSError as error:
            problems.append(f"{path.name}: cannot be read: {error.strerror}")
            continue
        except ValueError as error:
            problems.append(f"{path.name}: cannot be read: {error}")
            continue
        unknown = []
        for number, line in enumerate(lines, 1):
            entry = unicodedata.normalize("NFC", line.strip())
            if len(entry) > 1 and entry[0] == entry[-1] == '"':  # CVAT's, of names with blanks
                entry = entry[1:-1]
            if not entry:
                continue
            shown = f"line {number}: {entry[:80]}"
            if entry in unmasked and entry not in names:
                left_out[entry] = None
            elif entry not in names:
                unknown.append(shown)
            elif assigned.setdefault(names[entry], split) != split:
                other = lists[assigned[names[entry]]].name
                problems.append(f"{path.name}, {shown}: is in {other} too")
        if len(unknown) <= _SHOWN:
            problems += [
                f"{path.name}, {shown}: no such image with a mask in {where}" for shown in unknown
            ]
        else:
            problems.append(
                f"{path.name}: {len(unknown)} images that are not in {where} with a mask, as "
                + ", ".join(unknown[:_SHOWN])
            )
        if split not in assigned.values():
            problems.append(f"{path.name}: names no image")
    return assigned, [*left_out], problems


def _names(pairs: Collection[Pair]) -> dict[str, str]:
    """How a list may name each image: by its file, or without the suffix where that is no file."""
    return {pair.name: pair.name for pair in pairs} | {pair.file: pair.name for pair in pairs}


def other_lists(root: Path, pairs: Collection[Pair], assigned: Mapping[str, str]) -> list[str]:
    """What is wrong with text files beside the lists: they name images that no list has."""
    names, lists = _names(pairs), find_lists(root).values()
    problems = []
    for path in sorted(root.iterdir()):
        if path.suffix.lower() != ".txt" or path in lists:
            continue
        if not lists and path.stem.lower() not in SPLIT_NAMES:
            continue  # of images that are divided by shares
        try:
            lines = read_text(path, _MAX_LIST_BYTES).splitlines()
        except (OSError, ValueError):
            continue  # no list
        entries = [unicodedata.normalize("NFC", line.strip()) for line in lines]
        left_out = [entry for entry in entries if entry in names and names[entry] not in assigned]
        split = SPLIT_NAMES.get(path.stem.lower(), "")
        if split in find_lists(root) and any(entry in names for entry in entries):
            problems.append(f"{split}.txt and {path.name} are both lists of {split}: leave one")
        elif left_out:
            problems.append(
                f"{path.name}: names {left_out[0]}, which no list has; the lists are train.txt, "
                "val.txt and test.txt: rename it, or move it away"
            )
    return problems


def groups_of(
    pairs: Sequence[Pair], split: SplitEntry | None, where: str
) -> tuple[dict[Pair, str], list[str]]:
    """The group of each image, and whose name `split.group` does not match.

    Without an expression or a pattern, each image is a group of its own. No image is left if the
    expression takes too long.
    """
    groups = {pair: pair.name if pair.group is None else pair.group for pair in pairs}
    if split is None or split.group is None:
        return groups, []
    problems = []
    expression = regex.compile(split.group)
    for pair in pairs:
        try:
            found = expression.search(pair.file, timeout=SECONDS_A_NAME)
        except TimeoutError:
            problem = f"split.group takes more than {SECONDS_A_NAME:.0f} s for {pair.file}"
            return {}, [f"{DESCRIPTION}: {problem}: use a simpler expression"]
        group = found and found.group(1 if expression.groups else 0)
        if group is None:
            problems.append(f"{where}{pair.file}: split.group does not match it")
        else:
            groups[pair] = group
    return groups, problems


def divide(
    groups: Mapping[Pair, str], shares: Mapping[str, float], seed: int
) -> tuple[dict[Pair, str], list[str]]:
    """The split of each image; images of one group stay together.

    For test, then val, those groups are taken whose images come nearest to its share; of several
    such choices the one that is first in the order of a hash of seed and group. The rest is train.
    So the result depends on the names alone.
    """
    members: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair, group in groups.items():
        members[group].append(pair)

    def order(group: str) -> str:
        content = f"{seed}\0{group}".encode(errors="surrogateescape")
        return hashlib.sha256(content).hexdigest()

    left = sorted(members, key=order)
    assigned: dict[Pair, str] = {}
    for number, (target, share) in enumerate(shares.items(), 1):
        wanted = max(1, round(share * len(groups)))
        needed = len(shares) - number + 1  # a group for each split that comes after, and for train
        taken = set(_nearest([len(members[group]) for group in left], wanted, needed))
        for place in taken:
            assigned |= dict.fromkeys(members[left[place]], target)
        left = [group for place, group in enumerate(left) if place not in taken]
    assigned |= {pair: "train" for group in left for pair in members[group]}
    empty = [target for target in shares if target not in assigned.values()]
    if groups and (not left or empty):
        nothing = "nothing to train on" if not left else f"{empty[0]} without an image"
        return assigned, [
            f"split in {DESCRIPTION} leaves {nothing}: {len(members)} groups of "
            f"{len(groups)} images; lower val and test, or use another group"
        ]
    return assigned, []


def _nearest(sizes: Sequence[int], wanted: int, needed: int) -> list[int]:
    """The places of the sizes whose sum is nearest to `wanted`; of two as near, the smaller sum.

    For each sum the places are those that are the first to make it, in order. Where there are
    so many, `needed` sizes are left over.
    """
    within = (1 << wanted + max(sizes, default=0) + 1) - 1
    last: dict[int, int] = {}  # by sum: the place that was the first to make it
    made = 1  # bit s: there is a choice with the sum s
    for place, size in enumerate(sizes):
        new = (made << size) & ~made & within
        made |= new
        while new:
            total = new.bit_length() - 1
            last[total] = place
            new ^= 1 << total

    def places(total: int) -> list[int]:
        chosen = []
        while total:
            chosen.append(last[total])
            total -= sizes[last[total]]
        return chosen

    choices = map(places, sorted(last, key=lambda total: (abs(total - wanted), total)))
    first: list[int] = []
    for choice in choices:
        if len(sizes) - len(choice) >= needed:
            return choice
        first = first or choice
    return first
