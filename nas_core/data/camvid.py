"""CamVid as the SegNet tutorial publishes it: six folders of PNG files and 11 classes.

    train/ val/ test/                   images
    trainannot/ valannot/ testannot/    masks of the same file names, 8-bit grey class numbers

Its list files (train.txt ...) are not read: they hold absolute paths of their author's machine.
Any dataset with the same layout, classes and void label can be used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nas_core.errors import DataError
from nas_core.files import file_digest

SPLITS = ("train", "val", "test")
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

NUM_LABELS = len(CLASSES) + 1
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Sample:
    """An image and its mask."""

    split: str
    image: Path
    mask: Path

    @property
    def name(self) -> str:
        return self.image.stem


@dataclass(frozen=True)
class Listing:
    """What lies in a dataset's folder.

    Attributes:
        samples: every image that has a mask, by split, then by file name.
        problems: what is missing, one line each.
        data_hash: SHA-256 over relative path and SHA-256 of every PNG file.
    """

    root: Path
    samples: tuple[Sample, ...]
    problems: tuple[str, ...]
    data_hash: str

    def of_split(self, split: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.split == split]


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
    files: list[Path] = []
    for split in SPLITS:
        found, missing, pngs = _list_split(root, split)
        samples += found
        problems += missing
        files += pngs
    data_hash, unreadable = _hash_files(root, files)
    return Listing(root, tuple(samples), (*problems, *unreadable), data_hash)


def report(root: Path, problems: Iterable[str]) -> DataError:
    """One error for all problems of a dataset, with the first 20 of them."""
    lines = list(problems)
    shown = lines[:_SHOWN_PROBLEMS]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    count = f"{len(lines)} problem{'s' * (len(lines) > 1)}"
    return DataError("\n  ".join([f"dataset {root} has {count}:", *shown]))


def _list_split(root: Path, split: str) -> tuple[list[Sample], list[str], list[Path]]:
    """Samples, problems and all PNG files of a split."""
    folders = (root / split, root / f"{split}annot")
    missing = [f"{folder.name}/: folder is missing" for folder in folders if not folder.is_dir()]
    if missing:
        return [], missing, []
    images, masks = (_pngs(folder) for folder in folders)
    if not images and not masks:
        return [], [f"{split}/: no PNG image in it"], []
    samples = [Sample(split, path, masks[name]) for name, path in images.items() if name in masks]
    problems = [
        f"{split}/{name}: no mask {split}annot/{name}" for name in images if name not in masks
    ]
    problems += [
        f"{split}annot/{name}: no image {split}/{name}" for name in masks if name not in images
    ]
    return samples, problems, [*images.values(), *masks.values()]


def _pngs(folder: Path) -> dict[str, Path]:
    paths = sorted(folder.iterdir(), key=lambda path: path.name)
    return {
        path.name: path
        for path in paths
        if path.suffix.lower() == ".png" and not path.name.startswith(".") and path.is_file()
    }


def _hash_files(root: Path, files: Iterable[Path]) -> tuple[str, list[str]]:
    """Digest over all files, and the problems of those that cannot be read."""

    def digest(path: Path) -> tuple[str, str, str]:
        name = path.relative_to(root).as_posix()
        try:
            return name, file_digest(path), ""
        except OSError as error:
            return name, "", f"{name}: cannot be read: {error.strerror}"

    with ThreadPoolExecutor() as threads:
        digests = sorted(threads.map(digest, files))
    lines = "".join(f"{name}\0{value}\n" for name, value, _ in digests)
    return hashlib.sha256(lines.encode()).hexdigest(), [line for *_, line in digests if line]
