"""What a dataset is made of, whatever its layout: classes, files, and what is wrong with them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas_core.data.containers import MAX_BYTES
from nas_core.errors import DataError
from nas_core.files import file_digest

SPLITS = ("train", "val", "test")
"""All splits there can be. Without `test`, final scores are those of `val`."""

Colour = tuple[int, int, int]

_SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Sample:
    """An image and its mask.

    Attributes:
        name: unique in its split; files that are made of the sample are called by it.
    """

    split: str
    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Listing:
    """What lies in a dataset's folder.

    Attributes:
        classes, palette: the names and RGB colours of the classes.
        ignore_index: label of the pixels that belong to no class.
        read_mask: file of a mask to uint8 (H, W) of class numbers and `ignore_index`. It raises
            DataError if the file is damaged or has a label that is not known.
        mixed_sizes: whether images may differ in size.
        samples: every image that has a mask, by split, then by file name.
        problems: what is missing or wrong, one line each.
        data_hash: SHA-256 over relative path and SHA-256 of every file of the dataset.
    """

    root: Path
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    ignore_index: int
    read_mask: Callable[[Path], npt.NDArray[np.uint8]]
    mixed_sizes: bool
    samples: tuple[Sample, ...]
    problems: tuple[str, ...]
    data_hash: str

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have samples, in the order of SPLITS."""
        return tuple(split for split in SPLITS if self.of_split(split))

    def of_split(self, split: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.split == split]

    def relative(self, path: Path) -> str:
        """A file's path as messages show it."""
        return path.relative_to(self.root).as_posix()


def report(root: Path, problems: Iterable[str]) -> DataError:
    """One error for all problems of a dataset, with the first 20 of them."""
    lines = list(problems)
    shown = lines[:_SHOWN_PROBLEMS]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    count = f"{len(lines)} problem{'s' * (len(lines) > 1)}"
    return DataError("\n  ".join([f"dataset {root} has {count}:", *shown]))


def list_files(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """The visible files of a folder with one of these suffixes (in lower case), by name."""
    accepted = set(suffixes)
    paths = sorted(folder.iterdir(), key=lambda path: path.name)
    return {
        path.name: path
        for path in paths
        if path.suffix.lower() in accepted and not path.name.startswith(".") and path.is_file()
    }


def hash_files(root: Path, files: Iterable[Path]) -> tuple[str, list[str]]:
    """Digest over all files, and the problems of those that cannot be read."""

    def digest(path: Path) -> tuple[str, str, str]:
        name = path.relative_to(root).as_posix()
        try:
            return name, file_digest(path, MAX_BYTES), ""
        except OSError as error:
            return name, "", f"{name}: cannot be read: {error.strerror}"

    with ThreadPoolExecutor() as threads:
        digests = sorted(threads.map(digest, files))
    lines = "".join(f"{name}\0{value}\n" for name, value, _ in digests)
    return hashlib.sha256(lines.encode()).hexdigest(), [line for *_, line in digests if line]
