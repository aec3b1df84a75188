"""The prepared dataset: every image decoded once into memory-mapped arrays.

    manifest.json       classes, palette, places, names, groups, label shares, hash of the source
    SPLIT_images.npy    uint8, RGB, one image after another
    SPLIT_masks.npy     uint8, class numbers and the ignored label, likewise

Training reads pages of these files as it needs them, in every process from the same memory. Each
image has its own size; the manifest says where it lies. With `dataset.tile` the images are tiles.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from types import TracebackType
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nas_core.base.code import PREPARING, code_digest
from nas_core.base.errors import DataError
from nas_core.base.files import (
    check_regular,
    digest_of,
    file_digest,
    inside,
    read_limited,
    replacing,
    write_json,
)
from nas_core.base.locks import exclusive
from nas_core.base.logs import Logger
from nas_core.config import DatasetSettings, TileSettings
from nas_core.data.containers import MAX_PIXELS
from nas_core.data.description import Channel
from nas_core.data.inspection import (
    Inspected,
    Size,
    all_problems,
    frame_size,
    image_sizes,
    inspect_sample,
)
from nas_core.data.labels import MAX_CLASSES
from nas_core.data.layouts import list_dataset
from nas_core.data.listing import Listing, Sample, report
from nas_core.data.tiling import Window, is_void, tile_name, too_small, windows

_MANIFEST = "manifest.json"
_MAX_MANIFEST = 2**28
# What numpy raises for damaged headers, which it reads as Python source.
_DAMAGED = (ValueError, TypeError, EOFError, OverflowError, SyntaxError, MemoryError, TokenError)
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00]{1,255}$")]
Pictures = npt.NDArray[Any]
"""uint8 (N, H, W, ...); where sizes differ, objects (N,) that are uint8 (H, W, ...) each."""

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where a picture lies in the files of its split: the pixels before it, and its size."""

    start: Annotated[int, Field(ge=0, le=2**48)]
    height: Annotated[int, Field(ge=1, le=MAX_PIXELS)]
    width: Annotated[int, Field(ge=1, le=MAX_PIXELS)]

    @property
    def end(self) -> int:
        return self.start + self.height * self.width


class Manifest(BaseModel):
    """What manifest.json holds. `format` changes whenever the meaning of a file does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[3]
    classes: tuple[str, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    palette: tuple[tuple[Channel, Channel, Channel], ...]
    ignore_index: Channel
    height: int = Field(ge=1, le=MAX_PIXELS)
    width: int = Field(ge=1, le=MAX_PIXELS)
    """Of the largest image, see `frame_size`."""
    data_hash: str
    """Of the files that it was prepared from."""
    code: str
    """Digest of the code that decoded them."""
    content_hash: str
    """Of the arrays, and of what else a training takes from here."""
    label_shares: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    # They become names of files.
    names: dict[
        Annotated[str, Field(pattern=r"^(train|val|test)$")],
        Annotated[tuple[FileName, ...], Field(min_length=1)],
    ]
    groups: dict[str, tuple[str, ...]]
    """Of each image, in the order of `names`: see `Sample.group`."""
    places: dict[str, tuple[Place, ...]]
    pixels: dict[str, Annotated[int, Field(ge=1, le=2**48)]]
    """In the files of each split, with those of no image."""
    tile: TileSettings | None
    num_void: int
    """Tiles that were left out, see `is_void`."""

    @model_validator(mode="after")
    def is_consistent(self) -> Self:
        if not len(self.classes) == len(self.palette) == len(self.label_shares):
            raise ValueError("classes, palette and label_shares differ in length")
        if not {"train", "val"} <= set(self.names):
            raise ValueError("a split is missing")
        names, *others = (
            {split: len(of) for split, of in parts.items()}
            for parts in (self.names, self.groups, self.places)
        )
        if any(other != names for other in others) or self.pixels.keys() != names.keys():
            raise ValueError("names, groups and places differ in length")
        return self


@dataclass(frozen=True)
class Split:
    """Images and masks of a split.

    Attributes:
        images: uint8 (H, W, 3) each, RGB.
        masks: uint8 (H, W) each, of its image's size: class numbers and the ignored label.
        names: the N file names without suffix.
        groups: of each image, what it was taken with: see `Sample.group`.
    """

    images: Pictures
    masks: Pictures
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, indices: npt.NDArray[np.intp]) -> Split:
        """A part of the split, copied into memory where all have one size."""
        names, groups = (
            tuple(values[index] for index in indices) for values in (self.names, self.groups)
        )
        return Split(self.images[indices], self.masks[indices], names, groups)


def pictures_of(arrays: Sequence[npt.NDArray[np.uint8]]) -> Pictures:
    """Pictures of any sizes, without a copy."""
    pictures = np.empty(len(arrays), object)
    for index, array in enumerate(arrays):
        pictures[index] = array
    return pictures


@dataclass(frozen=True)
class PreparedData:
    """A prepared dataset, open for reading.

    Attributes:
        palette: uint8 (C, 3), the colours of the classes.
        height, width: of the largest image.
        tile: what images were cut into; None where they are whole.
        num_void: tiles that were left out, for they are nearly all ignored.
        label_shares: float64 (C,), each class's share of the labelled training pixels.
        data_hash: SHA-256 over the files that it was prepared from.
        code: digest of the code that decoded them.
        content_hash: SHA-256 over the arrays and all else that decides what is learned from them.
    """

    folder: Path
    classes: tuple[str, ...]
    palette: npt.NDArray[np.uint8]
    ignore_index: int
    height: int
    width: int
    data_hash: str
    code: str
    content_hash: str
    label_shares: npt.NDArray[np.float64]
    splits: dict[str, Split]
    tile: TileSettings | None = None
    num_void: int = 0

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def extent(self) -> str:
        """The size of the images, as people read it."""
        sizes = {mask.shape for split in self.splits.values() for mask in split.masks}
        return f"{'up to ' * (len(sizes) > 1)}{self.width}x{self.height}"

    @property
    def search_hash(self) -> str:
        """SHA-256 over all that a search takes from here: it may choose meta-val by the groups."""
        train = self.splits["train"]
        return digest_of(self.content_hash, train.names, train.groups, length=64)

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """The palette as plain numbers."""
        return tuple((int(r), int(g), int(b)) for r, g, b in self.palette)

    @property
    def final_split(self) -> str:
        """The split that final scores are of: `test`, or `val` where there is no test split."""
        return "test" if "test" in self.splits else "val"

    def split(self, name: str) -> Split:
        return self.splits[name]

    @classmethod
    def open(cls, folder: Path) -> PreparedData:
        """Map a prepared dataset into memory.

        Raises:
            DataError: there is none in `folder`, or it is incomplete or of another version.
        """
        try:
            manifest = Manifest.model_validate_json(
                read_limited(folder / _MANIFEST, _MAX_MANIFEST), strict=True
            )
            splits = {name: _open_split(folder, name, manifest) for name in manifest.names}
        except OSError as error:
            name = Path(error.filename or _MANIFEST).name
            raise _not_prepared(folder, f"has no readable {name}") from None
        except ValidationError as error:
            keys = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
            problem = f"has a {_MANIFEST} of another version, or a damaged one"
            details = f" ({', '.join(sorted(keys))})" if keys else ""
            raise _not_prepared(folder, problem + details) from None
        return cls(
            folder=folder,
            classes=manifest.classes,
            palette=np.array(manifest.palette, dtype=np.uint8),
            ignore_index=manifest.ignore_index,
            height=manifest.height,
            width=manifest.width,
            data_hash=manifest.data_hash,
            code=manifest.code,
            content_hash=manifest.content_hash,
            label_shares=np.array(manifest.label_shares),
            splits=splits,
            tile=manifest.tile,
            num_void=manifest.num_void,
        )


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
    if others := [one for one in inside if one.name != _MANIFEST and one.suffix != ".npy"]:
        raise DataError(
            f"{others[0]} is no prepared data, and would be lost: give a folder of its own"
        )


def _not_prepared(folder: Path, problem: str) -> DataError:
    return DataError(f"{folder} {problem}: prepare the dataset with `nas search --stage prepare`")


def _array_path(folder: Path, split: str, kind: str) -> Path:
    return folder / f"{split}_{kind}.npy"


def _open_split(folder: Path, name: str, manifest: Manifest) -> Split:
    places = manifest.places[name]
    length = manifest.pixels[name]
    if any(place.end > length for place in places):
        raise _not_prepared(folder, f"has a damaged {_MANIFEST} (places)")
    images = _open_array(_array_path(folder, name, "images"), (length * 3,))
    masks = _open_array(_array_path(folder, name, "masks"), (length,))
    return Split(
        _pictures(images, places, 3),
        _pictures(masks, places, 1),
        manifest.names[name],
        manifest.groups[name],
    )


def _pictures(flat: npt.NDArray[np.uint8], places: Sequence[Place], channels: int) -> Pictures:
    shapes = [(place.height, place.width, channels)[: 2 + (channels > 1)] for place in places]
    starts = np.array([place.start for place in places])
    size = places[0].height * places[0].width
    if len(set(shapes)) == 1 and np.array_equal(starts, size * np.arange(len(places))):
        return flat.reshape(len(places), *shapes[0])
    return pictures_of(
        [
            flat[place.start * channels : place.end * channels].reshape(shape)
            for place, shape in zip(places, shapes, strict=True)
        ]
    )


def _open_array(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Map an array. Copy on write: torch takes it without a copy, and the file never changes."""
    try:
        inside(path.parent, path.name)  # a link would lead to another file
        check_regular(path)
        array = np.lib.format.open_memmap(path, mode="c")
    except _DAMAGED:
        raise _not_prepared(path.parent, f"has a damaged {path.name}") from None
    if array.shape != shape or array.dtype != np.uint8:
        raise _not_prepared(
            path.parent, f"has a damaged {path.name} ({array.dtype} {array.shape}, not {shape})"
        )
    return array


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
        write_json(new / _MANIFEST, manifest.model_dump())


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
                stack.enter_context(_ArrayFile(_array_path(folder, split, kind), size))
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
