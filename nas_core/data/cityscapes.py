"""Cityscapes in its official layout, with the 19 classes that its benchmark scores.

    leftImg8bit/SPLIT/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    gtFine/SPLIT/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png

The masks of `test` are not public: that split is not read, and final scores are those of `val`.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas_core.base.errors import DataError
from nas_core.data.images import listed, read_grey
from nas_core.data.labels import IGNORED
from nas_core.data.listing import Listing, Sample, hash_files, list_files, sample_name

SPLITS = ("train", "val")
# Label id, name and colour of each training class, in the order of the train ids.
_TRAINED = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
LABEL_IDS = tuple(label for label, _, _ in _TRAINED)
CLASSES = tuple(name for _, name, _ in _TRAINED)
PALETTE = tuple(colour for _, _, colour in _TRAINED)
NUM_LABEL_IDS = 34
_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"
_FRAME = re.compile(r"(.+_\d+)_\d+")
# IGNORED is the train id of all other labels.
_TRAIN_IDS = np.full(NUM_LABEL_IDS, IGNORED, np.uint8)
_TRAIN_IDS[list(LABEL_IDS)] = range(len(LABEL_IDS))


def list_dataset(root: Path) -> Listing:
    """List and hash the splits train and val; nothing is decoded.

    Raises:
        DataError: `root` is no folder. All other problems are in the result.
    """
    if not root.is_dir():
        raise DataError(
            f"dataset folder {root} does not exist: set dataset.path to the folder that holds "
            "leftImg8bit/ and gtFine/ of Cityscapes"
        )

    def read_mask(path: Path) -> npt.NDArray[np.uint8]:
        labels = read_grey(path, root)
        if labels.max() >= NUM_LABEL_IDS:
            strays = np.unique(labels[labels >= NUM_LABEL_IDS])
            name = path.relative_to(root).as_posix()
            raise DataError(f"{name}: {listed(strays)} outside 0..{NUM_LABEL_IDS - 1}")
        return _TRAIN_IDS[labels]

    samples: list[Sample] = []
    problems: list[str] = []
    for split in SPLITS:
        found, missing = _list_split(root, split)
        samples += found
        problems += missing
    files = [path for sample in samples for path in (sample.image, sample.mask)]
    data_hash, unreadable = hash_files(root, files)
    return Listing(
        root=root,
        layout="Cityscapes: leftImg8bit/ beside gtFine/",
        classes=CLASSES,
        palette=PALETTE,
        ignore_index=IGNORED,
        read_mask=read_mask,
        mixed_sizes=False,
        samples=tuple(samples),
        problems=(*problems, *unreadable),
        data_hash=data_hash,
    )


def _list_split(root: Path, split: str) -> tuple[list[Sample], list[str]]:
    """Samples and problems of a split."""
    folders = {kind: root / kind / split for kind in ("leftImg8bit", "gtFine")}
    missing = [
        f"{kind}/{split}/: folder is missing" for kind, path in folders.items() if not path.is_dir()
    ]
    if missing:
        return [], missing
    images = _by_name(folders["leftImg8bit"], _IMAGE)
    masks = _by_name(folders["gtFine"], _MASK)
    if not images and not masks:
        return [], [f"leftImg8bit/{split}/: no *{_IMAGE} in its folders of cities"]
    names = [name for name in images if name in masks]
    samples = [
        Sample(split, frame, _sequence(frame), images[name], masks[name])
        for name in names
        for frame in [sample_name(name.rpartition("/")[2])]
    ]
    problems = [
        f"leftImg8bit/{split}/{name}{_IMAGE}: no mask gtFine/{split}/{name}{_MASK}"
        for name in images
        if name not in masks
    ]
    problems += [
        f"gtFine/{split}/{name}{_MASK}: no image leftImg8bit/{split}/{name}{_IMAGE}"
        for name in masks
        if name not in images
    ]
    return samples, problems


def _sequence(name: str) -> str:
    """City and sequence of CITY_SEQUENCE_FRAME; any other sample is its own group."""
    frame = _FRAME.fullmatch(name)
    return frame[1] if frame else name


def _by_name(folder: Path, suffix: str) -> dict[str, Path]:
    """Files in the folders of cities, by `CITY/CITY_SEQUENCE_FRAME`."""
    return {
        name.removesuffix(suffix): path
        for name, path in list_files(folder)
        if name.endswith(suffix)
    }
