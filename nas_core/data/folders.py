"""Layouts in which folders say what is an image, what a mask and which split they are in.

train/images/ train/masks/ ...          a folder for each split, with two in it (or labels/ ...)
images/train/ masks/train/ ...          a folder for each kind, divided by split
images/ masks/                          two folders, divided by list files or by shares
train/a.jpg train/a_mask.png ...        side by side, in folders of splits or in one
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from os.path import lexists
from pathlib import Path

from nas_core.base.errors import printable
from nas_core.data.arrangement import Arrangement, Pair, pairs_of
from nas_core.data.description import DESCRIPTION, Places
from nas_core.data.dividing import find_lists, other_lists, read_lists
from nas_core.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from nas_core.data.listing import SPLIT_NAMES, SPLITS, list_files, pair_files

MASK_SUFFIX = "_mask"
"""Of the masks that lie beside their images, where dataset.yaml names no other."""

_MASKS = ("masks", "labels", "annotations")
# Folders of images and of masks: ADE20K's, and that of mmsegmentation's own example.
_KINDS = (*(("images", masks) for masks in _MASKS), ("img_dir", "ann_dir"))


def split_folders(folder: Path) -> dict[str, list[str]]:
    """The folders (and links) of each split, by whatever name of it."""
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            split = SPLIT_NAMES.get(path.name.lower())
            if split is not None and (path.is_dir() or path.is_symlink()):
                found[split].append(path.name)
    return {split: names for split, names in found.items() if names}


def by_split(root: Path, places: Places) -> Arrangement | None:
    """train/images/ beside train/masks/ ..."""
    splits = split_folders(root)
    if not any((root / name / "images").is_dir() for names in splits.values() for name in names):
        return None
    folders = {
        split: [(f"{name}/images", f"{name}/{_masks_in(root / name)}") for name in names]
        for split, names in splits.items()
    }
    masks = next(iter(folders.values()))[0][1].rpartition("/")[2]
    layout = f"train/images/ beside train/{masks}/, folders of splits"
    found = _of_splits(root, layout, folders, ("{}/images", "{}/masks"), places)
    homes = [root / names[0] for names in splits.values()]
    strays = [problem for home in homes if home.is_dir() for problem in _strays(home)]
    beside = [*_other_splits(root), *_beside_splits(root, "", MASK_SUFFIX)]
    for images, taken in (both[0] for both in folders.values()):
        others = [Path(taken).with_name(name).as_posix() for name in _MASKS]
        there = [(images, name) for name in others if name != taken and (root / name).is_dir()]
        beside += _other_masks(root, taken, there)
    return replace(found, problems=(*beside, *strays, *found.problems))


def _masks_in(folder: Path) -> str:
    """The folder of masks that is there, by the first of its usual names."""
    return next((name for name in _MASKS if lexists(folder / name)), _MASKS[0])


def _strays(folder: Path) -> list[str]:
    """Images in the folder of a split that lie beside its images/, where nobody would use them."""
    return [
        f"{folder.name}/{path.name}: lies beside {folder.name}/images/: move it there, or away"
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and path.name[0] != "."
    ]


def _other_splits(root: Path) -> list[str]:
    """Folders beside the splits that hold images, which nobody would use."""
    return [
        f"{path.name}/: lies beside the splits and is none of {', '.join(SPLITS)}: rename it, or "
        "move it away"
        for path in sorted(root.iterdir())
        if path.name.lower() not in SPLIT_NAMES
        and not path.name.startswith(".")
        and ((path / "images").is_dir() or (path.name == "images" and path.is_dir()))
    ]


def _beside_splits(root: Path, folder: str, ending: str = "") -> list[str]:
    """What lies beside the folders of splits in `folder`: images, or masks of this ending."""

    def counts(path: Path) -> bool:
        known = MASK_SUFFIXES if ending else IMAGE_SUFFIXES
        return path.suffix.lower() in known and path.stem.endswith(ending) and path.is_file()

    problems = []
    for path in sorted((root / folder).iterdir()):
        name = path.relative_to(root).as_posix()
        if path.name.lower() in SPLIT_NAMES or path.name.startswith("."):
            continue
        if path.is_dir() and any(counts(one) for _, one in list_files(path)):
            problems.append(
                f"{name}/: lies beside the splits and is none of {', '.join(SPLITS)}: rename it, "
                "or move it away"
            )
        elif counts(path):
            problems.append(f"{name}: lies beside the folders of splits: move it into one, or away")
    return problems


def by_kind(root: Path, places: Places) -> Arrangement | None:
    """images/training/ beside annotations/training/ ..., where no list file says otherwise."""
    if find_lists(root):
        return None
    there = [
        (images, masks)
        for images, masks in _KINDS
        if split_folders(root / images) and split_folders(root / masks)
    ]
    for images, masks in there[:1]:
        splits, others = split_folders(root / images), split_folders(root / masks)
        folders = {
            split: [
                (f"{images}/{name}", f"{masks}/{_same(name, others.get(split, []))}")
                for name in names
            ]
            for split, names in splits.items()
        }
        first = next(iter(folders.values()))[0]
        layout = f"{first[0]}/ beside {first[1]}/, as of ADE20K and mmsegmentation"
        missing = (f"{images}/{{}}", f"{masks}/{{}}")
        found = _of_splits(root, layout, folders, missing, places)
        beside = [*_other_masks(root, masks, there[1:]), *_beside_splits(root, images)]
        return replace(found, problems=(*beside, *found.problems))
    return None


def _other_masks(root: Path, taken: str, others: Iterable[tuple[str, str]]) -> list[str]:
    """Folders of images and masks that nobody would use, since those of another name are taken."""
    return [
        f"{images}/ beside {masks}/: there are masks in {taken}/ too: move away those that are not "
        "meant"
        for images, masks in others
        if any(path.suffix.lower() in MASK_SUFFIXES for _, path in list_files(root / masks))
    ]


def in_two(root: Path, places: Places) -> Arrangement:
    """images/ beside masks/, with list files or with shares; or no layout at all."""
    masks = _masks_in(root)
    if not lexists(root / "images") and not lexists(root / masks):
        problem = (
            "no known layout: expected images/ beside masks/, folders of splits, or the patterns "
            f"images and masks in {DESCRIPTION} (docs/your_data.md)"
        )
        return Arrangement("none that is known", "", (), (problem,))
    found, problems = _paired(root, "images", masks)
    others = [("images", name) for name in _MASKS if name != masks and (root / name).is_dir()]
    problems = [*_other_masks(root, masks, others), *problems]
    pairs = pairs_of(found, names=sorted(found))
    return with_lists(root, f"images/ beside {masks}/", "images/", pairs, problems, places)


def side_by_side(root: Path, places: Places) -> Arrangement | None:
    """a.jpg beside a_mask.png: in folders of splits, or all in one with lists or shares."""
    splits = split_folders(root)
    suffix = places.mask_suffix or MASK_SUFFIX
    homes = [root, *(root / name for names in splits.values() for name in names)]
    if places.mask_suffix is None and not any(
        path.stem.endswith(suffix) and path.suffix.lower() in MASK_SUFFIXES
        for home in homes
        if home.is_dir()
        for path in home.iterdir()
    ):
        return None
    layout = f"image and mask side by side, as NAME.jpg and NAME{suffix}.png"
    if not splits:
        pairs, problems = _beside(root, "", suffix)
        return with_lists(root, layout, "", pairs, problems, places)
    pairs, problems = [], _twice(splits) + _missing(splits, ("{}",), places)
    problems += _beside_splits(root, "", suffix)
    for split, names in splits.items():
        more, found = _beside(root, f"{names[0]}/", suffix, split)
        pairs += more
        problems += found
    return Arrangement(layout, "", tuple(pairs), tuple(problems))


def with_lists(
    root: Path,
    layout: str,
    where: str,
    pairs: list[Pair],
    problems: Iterable[str],
    places: Places,
    lists: Mapping[str, Path] | None = None,
    unmasked: Collection[str] = (),
) -> Arrangement:
    """Pairs in the splits that list files name, if there are any.

    Args:
        unmasked: images without a mask that a list may name.
    """
    own = lists is None
    lists = find_lists(root) if lists is None else lists
    if not lists:
        others = other_lists(root, pairs, {}) if own else []
        return Arrangement(layout, where, tuple(pairs), (*problems, *others))
    assigned, left_out, found = read_lists(
        lists, pairs, where or "the dataset", places.shares, unmasked
    )
    if own:
        found += other_lists(root, pairs, assigned)
    names = ", ".join(path.relative_to(root).as_posix() for path in lists.values())
    by_name = {pair.name: pair for pair in pairs}
    return Arrangement(
        f"{layout}, divided by {names}",
        where,
        tuple(
            Pair(pair.name, pair.file, pair.image, pair.mask, assigned[pair.name], pair.group)
            for pair in by_name.values()
            if pair.name in assigned
        ),
        (*problems, *found),
        tuple(lists.values()),
        tuple(printable(name) for name in sorted(by_name.keys() - assigned.keys())),
        tuple(map(printable, left_out)),
    )


def _of_splits(
    root: Path,
    layout: str,
    folders: Mapping[str, list[tuple[str, str]]],
    missing: tuple[str, ...],
    places: Places,
) -> Arrangement:
    """The pairs of two folders for each split."""
    problems = _twice({split: [one for one, _ in both] for split, both in folders.items()})
    problems += _missing(folders, missing, places)
    pairs: list[Pair] = []
    for split in SPLITS:
        for images, masks in folders.get(split, [])[:1]:
            found, more = _paired(root, images, masks)
            if split == "test" and more == [f"{masks}/: folder is missing"]:
                more = [f"{more[0]}: without masks nothing can be scored; move {images}/ away"]
            pairs += pairs_of(found, split)
            problems += more
    return Arrangement(layout, "", tuple(pairs), tuple(problems))


def _paired(root: Path, images: str, masks: str) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """See `pair_files`; and what to do where masks have names of another form."""
    found, problems = pair_files(root, images, masks, IMAGE_SUFFIXES, MASK_SUFFIXES)
    if not found and any(": no image " in problem for problem in problems):
        problems.append(
            f"{masks}/: no mask has the name of its image: patterns in {DESCRIPTION} say how they "
            "are named, as masks: masks/{stem}_mask.png (docs/your_data.md)"
        )
    return found, problems


def _missing(splits: Iterable[str], folders: tuple[str, ...], places: Places) -> list[str]:
    """The folders of train and val that are not there and not made up for by a share."""
    missing = [
        f"{folder.format(split)}/: folder is missing"
        for split in ("train", "val")
        if split not in splits and split not in places.shares
        for folder in folders
    ]
    if missing and "val" not in splits:
        missing[-1] += f"; split: {{val: 0.15}} in {DESCRIPTION} takes val from train"
    return missing


def _twice(splits: Mapping[str, list[str]]) -> list[str]:
    return [
        f"{names[0]}/ and {names[1]}/ are both folders of {split}: leave one"
        for split, names in splits.items()
        if len(names) > 1
    ]


def _same(name: str, others: list[str]) -> str:
    """The folder of a split among those of masks: of the same name, else of another name of it."""
    return name if name in others or not others else others[0]


def _beside(
    root: Path, folder: str, suffix: str, split: str | None = None
) -> tuple[list[Pair], list[str]]:
    """Images and masks in one folder, and what has no counterpart."""
    images: dict[str, tuple[str, Path]] = {}
    masks: dict[str, tuple[str, Path]] = {}
    problems = []
    for name, path in list_files(root / folder):
        stem = name.removesuffix(path.suffix)
        is_mask = stem.endswith(suffix) and path.suffix.lower() in MASK_SUFFIXES
        if not is_mask and path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        known, key = (masks, stem.removesuffix(suffix)) if is_mask else (images, stem)
        first = known.setdefault(key, (name, path))[1]
        if first != path:
            problems.append(f"{folder}{name}: {first.name} has the same name")
    problems += [
        f"{folder}{name}: no mask {folder}{stem}{suffix}.png"
        for stem, (name, _) in images.items()
        if stem not in masks
    ]
    problems += [
        f"{folder}{name}: no image {folder}{stem} beside it"
        for stem, (name, _) in masks.items()
        if stem not in images
    ]
    pairs = [
        Pair(stem, name, path, masks[stem][1], split)
        for stem, (name, path) in images.items()
        if stem in masks
    ]
    if not images:
        problems.append(f"{folder or root.name + '/'}: no image in it")
    return pairs, problems
