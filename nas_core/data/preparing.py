"""Making the prepared dataset: every image is checked and decoded once; see `prepared`."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from nas_core.base.code import PREPARING, code_digest
from nas_core.base.errors import DataError
from nas_core.base.files import digest_of, file_digest, replacing, write_json
from nas_core.base.locks import exclusive
from nas_core.base.logs import Logger
from nas_core.config import DatasetSettings, TileSettings
from nas_core.data.fitting import Size
from nas_core.data.inspection import (
    Inspected,
    all_problems,
    frame_size,
    image_sizes,
    inspect_sample,
)
from nas_core.data.layouts import list_dataset
from nas_core.data.listing import Listing, Sample, report
from nas_core.data.prepared import MANIFEST, Manifest, Place, PreparedData, array_path
from nas_core.data.tiling import Window, is_void, tile_name, too_small, windows

log = logging.getLogger(__name__)


def prepare(
    dataset: DatasetSettings, root: Path, folder: Path, *, logger: Logger = log
) -> PreparedData:
    """Check a dataset and decode it into `folder`; nothing is done if that is up to date.

    The source files are hashed each time, so a changed file is always seen. The folder is put in
    place as a whole: after an error or a crash it is the former one, or there is none.

    Args:
        dataset: its `path` is relative to `root`. A synthetic dataset is drawn if need be.
        root: the project's folder.
        folder: where the prepared dataset goes.
        logger: told why what was prepared before is made anew.

    Raises:
        DataError: the dataset cannot be used (all problems of all files in one message),
            `folder` is a file or holds others than prepared data, or the disk is full or not
            writable.
    """
    listing = list_dataset(dataset, root)
    try:
        with exclusive(folder):
            reason = _outdated(folder, listing.data_hash, dataset.tile)
            if not listing.problems and not reason:
                return PreparedData.open(folder)
            if reason and folder.exists():
                _check_replaceable(folder)
                logger.info("the dataset is prepared anew: %s", reason)
            _build(listing, dataset.tile, folder)
    except OSError as error:  # reading errors are collected as problems of the dataset
        raise DataError(f"{folder}: the prepared data cannot be written: {error}") from error
    return PreparedData.open(folder)


def _check_replaceable(folder: Path) -> None:
    """Raise a DataError where files that are no prepared data would be lost."""
    inside = sorted(folder.glob("[!.]*")) if folder.is_dir() else [folder]
    if others := [one for one in inside if one.name != MANIFEST and one.suffix != ".npy"]:
        raise DataError(
            f"{others[0]} is no prepared data, and would be lost: give a folder of its own"
        )


def _outdated(folder: Path, data_hash: str, tile: TileSettings | None) -> str:
    """Why what lies in `folder` cannot be used; empty if it can."""
    try:
        data = PreparedData.open(folder)
    except DataError:
        return "what was prepared is damaged, or of another version of the program"
    if data.data_hash != data_hash:
        return "its files have changed"
    if data.tile != tile:
        return "dataset.tile has changed"
    if data.code != code_digest(PREPARING):
        return "another version of the program prepared it"
    return ""


class _ArrayFile:
    """A .npy file of uint8 that threads fill picture by picture.

    Plain writes and not a memory map: a full disk is then an error and does not kill the process.
    """

    def __init__(self, path: Path, length: int) -> None:
        self.file = path.open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self.file, header)
        self.file.flush()
        self.start, self.length = self.file.tell(), length

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            os.truncate(self.file.fileno(), self.start + self.length)  # the end may be a hole
            os.fsync(self.file.fileno())
        self.file.close()

    def write(self, start: int, picture: npt.NDArray[np.uint8]) -> None:
        """Write a picture's values behind the first `start` of the file."""
        offset = self.start + start
        left = memoryview(picture.tobytes())
        while left:
            written = os.pwrite(self.file.fileno(), left, offset)
            left, offset = left[written:], offset + written


def _build(listing: Listing, tile: TileSettings | None, folder: Path) -> None:
    """Decode all samples into `folder`, or raise all their problems."""
    sizes = image_sizes(listing)
    names = [listing.relative(sample.image) for sample in listing.samples]
    if small := too_small(zip(names, sizes, strict=True), tile):
        raise report(listing.root, [*listing.problems, *small])
    frame = frame_size(listing, sizes)
    slots = _slots(listing, sizes, tile)
    pixels = {split: of[-1][-1].place.end for split, of in slots.items()}
    _check_disk_space(folder, sum(pixels.values()) * 4)
    with replacing(folder) as new:
        inspected, kept = _decode_all(listing, frame, slots, tile, new)
        problems = all_problems(listing, inspected)
        problems += [f"{split}: no tile is left, all are nearly void" for split in _empty(kept)]
        if problems:
            raise report(listing.root, problems)
        counts = sum(one.label_counts for one in inspected if one.sample.split == "train")
        labelled = np.asarray(counts)[: len(listing.classes)]
        shares = tuple((labelled / labelled.sum()).tolist())
        arrays = sorted(new.glob("*.npy"))
        content = [[path.name, file_digest(path)] for path in arrays]
        places = {split: tuple(slot.place for slot in of) for split, of in kept.items()}
        num_slots = sum(len(of_sample) for of in slots.values() for of_sample in of)
        manifest = Manifest(
            format=3,
            classes=listing.classes,
            palette=listing.palette,
            ignore_index=listing.ignore_index,
            height=tile.size if tile else frame[0],
            width=tile.size if tile else frame[1],
            data_hash=listing.data_hash,
            code=code_digest(PREPARING),
            content_hash=digest_of(content, places, listing.ignore_index, shares, length=64),
            label_shares=shares,
            names={split: tuple(slot.name for slot in of) for split, of in kept.items()},
            groups={split: tuple(slot.group for slot in of) for split, of in kept.items()},
            places=places,
            pixels=pixels,
            tile=tile,
            num_void=num_slots - sum(map(len, kept.values())),
        )
        write_json(new / MANIFEST, manifest.model_dump())


class _Slot(NamedTuple):
    """Where an image, or a tile of it, goes."""

    name: str
    group: str
    window: Window
    place: Place


def _slots(
    listing: Listing, sizes: Sequence[Size | None], tile: TileSettings | None
) -> dict[str, list[list[_Slot]]]:
    """By split the slots of each sample; an image whose size is not known has one pixel."""
    found: dict[str, list[list[_Slot]]] = {split: [] for split in listing.splits}
    ends = dict.fromkeys(listing.splits, 0)
    for sample, size in zip(listing.samples, sizes, strict=True):
        slots = []
        for window in windows(size or (1, 1), tile):
            height, width = (axis.stop - axis.start for axis in window)
            place = Place(ends[sample.split], height, width)
            ends[sample.split] = place.end
            name = tile_name(sample.name, window) if tile else sample.name
            slots.append(_Slot(name, sample.group, window, place))
        found[sample.split].append(slots)
    return found


def _empty(kept: Mapping[str, Sequence[_Slot]]) -> list[str]:
    return [split for split, slots in kept.items() if not slots]


def _check_disk_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise DataError(
            f"{folder.parent}: the prepared dataset needs {needed / 1e6:.0f} MB and "
            f"{free / 1e6:.0f} MB are free; make room, or move the project to a larger disk"
        )


def _decode_all(
    listing: Listing,
    frame: Size,
    slots: Mapping[str, Sequence[Sequence[_Slot]]],
    tile: TileSettings | None,
    folder: Path,
) -> tuple[list[Inspected], dict[str, list[_Slot]]]:
    """Check all samples, writing those without a problem to the arrays in `folder`.

    Returns:
        What was found, and by split the slots that were filled. The others are holes in the files.
    """

    def decode(
        job: tuple[Sample, Sequence[_Slot], _ArrayFile, _ArrayFile],
    ) -> tuple[Inspected, list[_Slot]]:
        sample, own, images, masks = job
        inspected, image, mask = inspect_sample(listing, sample, frame)
        if image is None or mask is None:
            return inspected, [*own]
        if mask.shape != tuple(axis.stop for axis in own[-1].window):
            name = listing.relative(sample.image)
            inspected.problems.append(f"{name}: changed while it was read: start again")
            return inspected, [*own]
        filled = []
        counts = np.zeros_like(inspected.label_counts)
        for slot in own:
            part = mask[slot.window]
            if tile and is_void(part, listing.ignore_index):
                continue
            images.write(slot.place.start * 3, image[slot.window])
            masks.write(slot.place.start, part)
            counts += np.bincount(part.ravel(), minlength=256)
            filled.append(slot)
        if tile:
            inspected.label_counts = counts
        return inspected, filled

    with ExitStack() as stack:
        jobs = []
        for split, of_split in slots.items():
            length = of_split[-1][-1].place.end
            images, masks = (
                stack.enter_context(_ArrayFile(array_path(folder, split, kind), size))
                for kind, size in (("images", length * 3), ("masks", length))
            )
            samples = zip(listing.of_split(split), of_split, strict=True)
            jobs += [(sample, own, images, masks) for sample, own in samples]
        with ThreadPoolExecutor() as threads:
            done = list(threads.map(decode, jobs))
    kept: dict[str, list[_Slot]] = {split: [] for split in slots}
    for inspected, filled in done:
        kept[inspected.sample.split] += filled
    return [inspected for inspected, _ in done], kept
