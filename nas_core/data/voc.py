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
from nas_core.data.folders import with_lists
from nas_core.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from nas_core.data.listing import SPLIT_NAMES, SPLITS, pair_files

_IMAGES = ("JPEGImages", "images")
_LISTS = Path("ImageSets") / "Segmentation"
# Lists of what others list too, or of all where nothing is divided yet.
_ALL = ("trainval", "default")


def pascal_voc(root: Path, places: Places) -> Arrangement | None:
    """JPEGImages/ beside SegmentationClass/, divided by ImageSets/Segmentation/."""
    if not (root / VOC_MASKS).is_dir():
        return None
    images = next((name for name in _IMAGES if (root / name).is_dir()), _IMAGES[0])
    lists = _lists(root / _LISTS)
    # Most images of Pascal VOC have no mask: the lists say which do.
    found, problems = pair_files(
        root, images, VOC_MASKS, IMAGE_SUFFIXES, MASK_SUFFIXES, unpaired=bool(lists)
    )
    pairs = pairs_of(found, names=sorted(found))
    layout = f"Pascal VOC: {images}/ beside {VOC_MASKS}/"
    return with_lists(root, layout, f"{images}/", pairs, problems, places, lists)


def _lists(folder: Path) -> dict[str, Path]:
    """The list files, by split; that of all only where no other is there, as of train."""
    if not folder.is_dir():
        return {}
    paths = {path.stem.lower(): path for path in sorted(folder.glob("*.txt"))}
    found = {SPLIT_NAMES[name]: path for name, path in paths.items() if name in SPLIT_NAMES}
    of_all = [paths[name] for name in _ALL if name in paths]
    if of_all:
        found.setdefault("train", of_all[0])
    return dict(sorted(found.items(), key=lambda item: SPLITS.index(item[0])))
