"""CamVid as the SegNet tutorial publishes it: six folders of PNG files and 11 classes.

    train/ val/ test/                   images
    trainannot/ valannot/ testannot/    masks of the same file names, 8-bit grey class numbers

Its list files (train.txt ...) are not read: they hold absolute paths of their author's machine.
Any dataset with the same layout, classes and void label can be used.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from nas_core.base.errors import DataError
from nas_core.data.images import read_mask
from nas_core.data.listing import (
    SPLITS,
    Listing,
    Sample,
    hash_files,
    pair_files,
    sample_name,
)

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
"""Colours of the classes, RGB: the usual ones of CamVid's 11 classes."""

VOID = 11
"""Label of the pixels that belong to no class; ignored everywhere."""

# 0001TP_006690, 0006R0_f00930, Seq05VD_f00000: CamVid's recordings and their frames.
_FRAME = re.compile(r"(\d{4}[A-Z][A-Z0-9]|Seq\d\d[A-Z]{2})_f?\d+")


def list_dataset(root: Path) -> Listing:
    """List and hash a dataset; nothing is decoded.

    Raises:
        DataError: `root` is no folder. All other problems are in the result, so that they can be
            reported together with those inside the files.
    """
    if not root.is_dir():
        raise DataError(
            f"dataset folder {root} does not exist: get CamVid with `dvc pull`, "
            "or set dataset.path to a folder with its layout"
        )
    samples: list[Sample] = []
    problems: list[str] = []
    for split in SPLITS:
        pairs, found = pair_files(root, split, f"{split}annot", [".png"], [".png"])
        samples += [
            Sample(split, sample_name(name), _recording(sample_name(name)), *pair)
            for name, pair in pairs.items()
        ]
        problems += found
    files = [path for sample in samples for path in (sample.image, sample.mask)]
    data_hash, unreadable = hash_files(root, files)
    return Listing(
        root=root,
        layout="CamVid: train/ beside trainannot/",
        classes=CLASSES,
        palette=PALETTE,
        ignore_index=VOID,
        read_mask=partial(read_mask, num_labels=len(CLASSES) + 1, root=root),
        mixed_sizes=False,
        samples=tuple(samples),
        problems=(*problems, *unreadable),
        data_hash=data_hash,
    )


def _recording(name: str) -> str:
    """The recording that a sample of CamVid is of; any other sample is its own group."""
    frame = _FRAME.fullmatch(name)
    return frame[1] if frame else name
