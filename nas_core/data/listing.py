"""What a dataset is made of, whatever its layout: classes, files, and what is wrong with them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas_core.base.errors import DataError, printable
from nas_core.base.files import file_digest, resolved
from nas_core.data.containers import MAX_BYTES

SPLITS = ("train", "val", "test")
"""All splits there can be. Without `test`, final scores are those of `val`."""

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split that a folder, a list or a part of a path means, by its name in lower case."""

Colour = tuple[int, int, int]

_SHOWN_PROBLEMS = 20
# Of files that share a fault: more are told in one line, with so many names and ways it shows in.
_SHOWN_FILES = 3
# Of pictures that may lie where images or masks are looked for.
_FORMATS = {
    ".png": "PNG",
    **dict.fromkeys((".jpg", ".jpeg", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PNM"),
    **dict.fromkeys((".jp2", ".j2k"), "JPEG 2000"),
    **dict.fromkeys((".heic", ".heif"), "HEIF"),
    **dict.fromkeys((".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"), "raw"),
    **{f".{kind.lower()}": kind for kind in ("BMP", "WebP", "GIF", "AVIF", "TGA", "EXR")},
}


@dataclass(frozen=True)
class Sample:
    """An image and its mask.

    Attributes:
        name: what people and files call it: its path in the folder of images, without suffix.
        group: what it was taken with, as the frames of one recording; its name if nothing says.
    """

    split: str
    name: str
    group: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Listing:
    """What lies in a dataset's folder.

    Attributes:
        layout: what people call the way in which it lies there.
        classes, palette: the names and RGB colours of the classes.
        ignore_index: label of the pixels that belong to no class.
        read_mask: file of a mask to uint8 (H, W) of class numbers and `ignore_index`. It raises
            DataError if the file is damaged or has a label that is not known.
        mixed_sizes: whether images may differ in size.
        samples: every image that has a mask, by split, then by file name.
        problems: what is missing or wrong, one line each.
        data_hash: SHA-256 over relative path and SHA-256 of every file of the dataset.
        unused: names of images with a mask that no list names.
        unmasked: images without a mask that a list names.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    ignore_index: int
    read_mask: Callable[[Path], npt.NDArray[np.uint8]]
    mixed_sizes: bool
    samples: tuple[Sample, ...]
    problems: tuple[str, ...]
    data_hash: str
    unused: tuple[str, ...] = ()
    unmasked: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have samples, in the order of SPLITS."""
        return tuple(split for split in SPLITS if self.of_split(split))

    def of_split(self, split: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.split == split]

    def relative(self, path: Path) -> str:
        """A file's path as messages show it."""
        return printable(path.relative_to(self.root).as_posix())


def report(root: Path, problems: Iterable[str]) -> DataError:
    """One error for all problems of a dataset, with the first 20 lines.

    More than three files with the same fault are one line.
    """
    found = [printable(line) for line in problems]
    lines = _together(found)
    shown = lines[:_SHOWN_PROBLEMS]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    count = f"{len(found)} problem{'s' * (len(found) > 1)}"
    return DataError("\n  ".join([f"dataset {root} has {count}:", *shown]))


def _together(problems: Sequence[str]) -> list[str]:
    """Problems `FILE: FAULT` with those of more than three files told at once.

    A fault is the same whatever numbers and whatever name of its own file it tells.
    """
    faults: dict[str, list[tuple[str, str]]] = {}
    for line in problems:
        name, colon, fault = line.partition(": ")
        path, _, suffix = name.rpartition(".")
        stem = path.rpartition("/")[2]
        fault = re.sub(rf"(?<=[/ ]){re.escape(stem)}(?=\.\w| in )", "*", fault) if stem else fault
        kind = f"{suffix}: " + re.sub(r"\d+", "#", fault) if colon and stem else line
        faults.setdefault(kind, []).append((line, fault))
    lines = []
    for kind, alike in faults.items():
        files = {line.partition(": ")[0]: None for line, _ in alike}
        if len(files) <= _SHOWN_FILES or kind == alike[0][0]:
            lines += [line for line, _ in alike]
            continue
        names = ", ".join([*files][:_SHOWN_FILES])
        ways = [*dict.fromkeys(fault for _, fault in alike)]
        lines.append(f"{len(files)} files, as {names}: {_in_ways(ways)}")
    return lines


def _in_ways(faults: Sequence[str]) -> str:
    """Faults of one kind: the first three, and once what all have at their end."""
    if len(faults) == 1:
        return faults[0]
    alike = commonprefix([fault[::-1] for fault in faults])[::-1]  # noqa: RUF071 (of texts)
    end = re.search(r"[;,:]? .*", alike, re.DOTALL)
    ending = end[0] if end else ""
    more = ", ..." * (len(faults) > _SHOWN_FILES)
    return ", or ".join(f.removesuffix(ending) for f in faults[:_SHOWN_FILES]) + more + ending


# By Windows, and by archives of macOS.
_LEFT_BEHIND = ("thumbs.db", "desktop.ini", "__macosx")


def list_files(folder: Path) -> list[tuple[str, Path]]:
    """The visible files of a folder and of those in it, with their path there, sorted by it.

    The paths are in Unicode's form NFC: some systems write an accent as a character of its own.
    Links are followed; what is no regular file, as a link that leads nowhere, is listed too.
    """

    def in_order(item: tuple[str, Path]) -> list[str]:
        return item[0].split("/")

    found = []
    folders, seen = [folder], set()
    while folders:
        place = folders.pop()
        if (real := resolved(place)) in seen:  # a link back would have no end
            continue
        seen.add(real)
        for path in place.iterdir():
            if path.name.startswith(".") or path.name.lower() in _LEFT_BEHIND:
                continue
            if path.is_dir():
                folders.append(path)
            else:
                found.append((path.relative_to(folder).as_posix(), path))
    return [
        (unicodedata.normalize("NFC", name), path) for name, path in sorted(found, key=in_order)
    ]


def pair_files(
    root: Path,
    images: str,
    masks: str,
    image_suffixes: Collection[str],
    mask_suffixes: Collection[str],
    *,
    unpaired: bool = False,
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Image and mask by their path in `images` and in `masks`, and what has no counterpart.

    The paths are without suffix.

    Args:
        image_suffixes, mask_suffixes: of the files that are images or masks, in lower case.
        unpaired: images without a mask, and masks without an image, are nothing wrong.
    """
    missing = [
        f"{name}/: folder is missing" for name in (images, masks) if not (root / name).is_dir()
    ]
    if missing:
        return {}, missing
    pictures, other_pictures, problems = _by_stem(root, images, image_suffixes)
    labels, other_labels, found = _by_stem(root, masks, mask_suffixes)
    kinds = _kinds(image_suffixes)
    if not pictures and not labels and not other_pictures:
        return {}, [f"{images}/: no {kinds} image in it"]
    problems += found
    problems += [
        f"{images}/{name}{path.suffix}: a {_format(path)} image; expected {kinds}: convert it"
        for name, path in other_pictures.items()
    ]
    problems += [
        f"{masks}/{name}{path.suffix}: a {_format(path)} mask; expected {_kinds(mask_suffixes)}, "
        "which keeps every label as it is: save it anew from its source"
        for name, path in other_labels.items()
        if name not in labels
    ]
    both = {name: (path, labels[name]) for name, path in pictures.items() if name in labels}
    if unpaired:
        return both, problems
    problems += [
        f"{images}/{name}{path.suffix}: no mask {masks}/{name}.png"
        for name, path in pictures.items()
        if name not in labels and name not in other_labels
    ]
    problems += [
        f"{masks}/{name}{path.suffix}: no image {name} in {images}/"
        for name, path in labels.items()
        if name not in pictures and name not in other_pictures
    ]
    return both, problems


def sample_name(name: str) -> str:
    """The name of a sample from the path of its image: it can be the name of a file."""
    return printable(name).translate(str.maketrans("/\\", "_%"))[:255]


def _by_stem(
    root: Path, folder: str, suffixes: Collection[str]
) -> tuple[dict[str, Path], dict[str, Path], list[str]]:
    """Files of these suffixes by path without suffix, other pictures, and what is there twice."""
    known: dict[str, Path] = {}
    others: dict[str, Path] = {}
    problems = []
    for name, path in list_files(root / folder):
        stem = name.removesuffix(path.suffix)
        if not path.exists():
            problems.append(f"{folder}/{name}: a link that leads nowhere")
            continue
        if path.suffix.lower() not in suffixes:
            if path.suffix.lower() in _FORMATS:
                others.setdefault(stem, path)
            continue
        first = known.setdefault(stem, path)
        if first.suffix == path.suffix and first != path:
            problems.append(f"{folder}/{name}: is there twice, with accents composed in two ways")
        elif first != path:
            problems.append(f"{folder}/{name}: {first.name} has the same name")
    return known, others, problems


def _kinds(suffixes: Collection[str]) -> str:
    *others, last = dict.fromkeys(_FORMATS[suffix] for suffix in suffixes)
    return f"{', '.join(others)} or {last}" if others else last


def _format(path: Path) -> str:
    return _FORMATS[path.suffix.lower()]


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
    content = lines.encode(errors="surrogateescape")
    return hashlib.sha256(content).hexdigest(), [line for *_, line in digests if line]
