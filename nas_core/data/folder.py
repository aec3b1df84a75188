"""Your own data: images and masks that lie in one of many ways, described by dataset.yaml.

`arrange` finds the images and masks, `dividing` puts them into splits and `masks` reads their
labels or colours. docs/your_data.md shows each layout.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from os.path import lexists
from pathlib import Path

from nas_core.base.errors import DataError, printable
from nas_core.data.arrangement import Arrangement
from nas_core.data.description import (
    DESCRIPTION,
    VOC_MASKS,
    Places,
    description_file,
    read_description,
)
from nas_core.data.dividing import divide, find_lists, groups_of
from nas_core.data.folders import by_kind, by_split, in_two, side_by_side
from nas_core.data.labels import IGNORED
from nas_core.data.listing import SPLITS, Listing, Sample, hash_files, sample_name
from nas_core.data.masks import MaskReader
from nas_core.data.patterned import by_patterns
from nas_core.data.voc import pascal_voc

CAMVID_MASKS = "trainannot"


def list_dataset(root: Path) -> Listing:
    """List and hash a dataset; nothing is decoded.

    Raises:
        DataError: `root` is no folder, or its description is not valid (all its problems in one
            message). All other problems are in the result.
    """
    if not root.is_dir():
        raise DataError(f"dataset folder {root} does not exist: set dataset.path to yours")
    description = read_description(root)
    source = description_file(root) or root / DESCRIPTION
    found = arrange(root, description)
    samples, problems = _divided(found, description)
    files = {path for sample in samples for path in (sample.image, sample.mask)}
    own = {source, root / DESCRIPTION} if lexists(root / DESCRIPTION) else {source}
    data_hash, unreadable = hash_files(root, [*files, *found.lists, *own])
    taken = f", {' and '.join(description.shares)} by shares" if description.shares else ""
    return Listing(
        root=root,
        layout=found.layout + taken,
        classes=tuple(entry.name for entry in description.classes),
        palette=description.palette(),
        ignore_index=IGNORED,
        read_mask=MaskReader(root, description, source.name),
        mixed_sizes=True,
        samples=tuple(samples),
        problems=tuple(dict.fromkeys([*found.problems, *problems, *unreadable])),
        data_hash=data_hash,
        unused=found.unused,
        unmasked=found.unmasked,
    )


def arrange(root: Path, places: Places) -> Arrangement:
    """The images and masks in a folder, by the first layout that it has."""
    found = _arrange(root, places)
    if not {*find_lists(root).values()}.issubset(found.lists):
        others = "list files in two folders" if found.lists else "folders of splits, list files"
        problem = f"divided in 2 ways ({others}): leave one"
        return Arrangement(found.layout, "", (), (problem,))
    return found if found.problems else replace(found, problems=_others(root, places, found))


def _others(root: Path, places: Places, found: Arrangement) -> tuple[str, ...]:
    """What other layouts would find in the folder, and this one leaves out."""
    if places.images is not None or places.mask_suffix is not None:
        return ()  # dataset.yaml says which it is
    used = {pair.image for pair in found.pairs}
    layouts = [by_kind(root, places), side_by_side(root, places)]
    if (root / "images").is_dir() and not find_lists(root):
        layouts.append(in_two(root, places))
    problems = [
        f"{left_out[0]}: lies there as of {other.layout}, and others as of {found.layout}: "
        "leave one"
        for other in layouts
        if other and other.layout != found.layout and (left_out := _left_out(root, other, used))
    ]
    if (root / CAMVID_MASKS).is_dir():
        problems.append(
            f"{CAMVID_MASKS}/: lies there as of CamVid, and others as of {found.layout}: leave one"
        )
    return tuple(problems[:1])


def _left_out(root: Path, other: Arrangement, used: Collection[Path]) -> list[str]:
    """The images of another layout that are not used, listed or not."""
    images = [pair.image for pair in other.pairs if pair.image not in used]
    return [*(printable(path.relative_to(root).as_posix()) for path in images), *other.unused]


def _arrange(root: Path, places: Places) -> Arrangement:
    if found := by_patterns(root, places):
        return found
    if places.mask_suffix is None:
        found, voc = by_split(root, places), pascal_voc(root, places)
        if found and voc:
            problem = f"divided in 2 ways (folders of splits, {VOC_MASKS}/): leave one"
            return Arrangement(voc.layout, "", (), (problem,))
        if found := voc or found or by_kind(root, places):
            return found
        if (root / "images").is_dir():
            return in_two(root, places)
    return side_by_side(root, places) or in_two(root, places)


def has_layout(root: Path) -> bool:
    """Whether images and masks lie in `root` in a way that needs no patterns."""
    return bool(arrange(root, Places()).pairs)


def _divided(found: Arrangement, places: Places) -> tuple[list[Sample], list[str]]:
    """The samples of each split, and what is wrong with how they are divided."""
    shares = places.shares
    given = {pair.split for pair in found.pairs}
    problems = [
        f"{split} is given twice: it lies there, and is a share of split in {DESCRIPTION}"
        for split in shares
        if split in given
    ]
    if None in given and not shares:
        problems.append(
            "no splits: expected train/images/ ..., or images/ with train.txt ... or with "
            f"split in {DESCRIPTION}"
        )
    pool = [pair for pair in found.pairs if pair.split in (None, "train")]
    groups, more = groups_of(pool, places.split, found.where)
    problems += more
    splits = {pair: pair.split for pair in found.pairs}
    if shares and not given & shares.keys():
        seed = places.split.seed if places.split is not None else 0
        assigned, more = divide(groups, shares, seed)
        splits |= assigned
        problems += more
    samples = [
        Sample(
            split,
            sample_name(pair.name),
            sample_name(groups.get(pair, pair.group or pair.name)),
            pair.image,
            pair.mask,
        )
        for split in SPLITS
        for pair, its in splits.items()
        if its == split
    ]
    if samples and not problems and not found.problems:
        problems += [
            f"{split}: no image: name some, or take them from train by split: {{val: 0.15}} in "
            f"{DESCRIPTION}"
            for split in ("train", "val")
            if split not in {sample.split for sample in samples}
        ]
    return samples, problems
