"""Pascal VOC, and the form "Segmentation mask" of CVAT, which follows it.

JPEGImages/ (or images/)        the images, with or without a mask
SegmentationClass/              the masks
ImageSets/Segmentation/*.txt    names of images a line: train, val, test, or all in one list
labelmap.txt                    CVAT's: classes and colours
"""

from __future__ import annotations

from pathlib import Path

from nas_core.data.arrangement import Arrangement, pairs_of
from nas_core.data.description import VOC_MASKS, Places
from nas_core.data.dividing import find_lists
from nas_core.data.folders import with_lists
from nas_core.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from nas_core.data.listing import SPLIT_NAMES, SPLITS, list_files, pair_files

_IMAGES = ("JPEGImages", "images")
_LISTS = Path("ImageSets") / "Segmentation"
# Lists of what others list too, or of all where nothing is divided yet.
_ALL = ("trainval", "default")


def pascal_voc(root: Path, places: Places) -> Arrangement | None:
    """JPEGImages/ beside SegmentationClass/, divided by ImageSets/Segmentation/."""
    if not (root / VOC_MASKS).is_dir():
        return None
    images = next((name for name in _IMAGES if (root / name).is_dir()), _IMAGES[0])
    lists, twice = _lists(root / _LISTS)
    # Most images of Pascal VOC have no mask: the lists say which do.
    found, problems = pair_files(
        root,
        images,
        VOC_MASKS,
        IMAGE_SUFFIXES,
        MASK_SUFFIXES,
        unpaired=bool(lists or find_lists(root)),
    )
    pairs = pairs_of(found, names=sorted(found))
    layout = f"Pascal VOC: {images}/ beside {VOC_MASKS}/"
    found_lists = lists or None  # else those in the folder of the dataset
    # CVAT lists what nobody has labelled yet, too.
    there = list_files(root / images) if (root / images).is_dir() else []
    files = [name for name, path in there if path.suffix.lower() in IMAGE_SUFFIXES]
    unmasked = {part for name in files for part in (name, name.rpartition(".")[0])} - {*found}
    return with_lists(
        root, layout, f"{images}/", pairs, [*problems, *twice], places, found_lists, unmasked
    )


def _lists(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The list files, by split, and which are of one split.

    That of all counts only where no other is there, as of train.
    """
    found: dict[str, Path] = {}
    problems = []
    paths = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    for path in paths:
        split = SPLIT_NAMES.get(path.stem.lower())
        if split and (other := found.setdefault(split, path)) != path:
            problems.append(f"{other.name} and {path.name} are both lists of {split}: leave one")
    of_all = [path for name in _ALL for path in paths if path.stem.lower() == name]
    if of_all:
        found.setdefault("train", of_all[0])
    return dict(sorted(found.items(), key=lambda item: SPLITS.index(item[0]))), problems
