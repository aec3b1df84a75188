"""The prepared dataset: every image decoded once into memory-mapped arrays.

    manifest.json       classes, palette, size, names, groups, label shares, hash of the source
    SPLIT_images.npy    uint8 (N, H, W, 3), RGB
    SPLIT_masks.npy     uint8 (N, H, W), class numbers and the ignored label

Training reads pages of these files as it needs them, in every process from the same memory.

Where images differ in size, H and W are the greatest: smaller ones lie in the upper left corner,
surrounded by the mean colour and by the ignored label, as in the crops of training.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from types import TracebackType
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nas_core.base.code import PREPARING, code_digest
from nas_core.base.errors import DataError
from nas_core.base.files import digest_of, file_digest, inside, read_limited, replacing, write_json
from nas_core.base.locks import exclusive
from nas_core.config import DatasetSettings
from nas_core.data.containers import MAX_PIXELS
from nas_core.data.description import Channel
from nas_core.data.inspection import Inspected, Size, all_problems, frame_size, inspect_sample
from nas_core.data.labels import MAX_CLASSES
from nas_core.data.layouts import list_dataset
from nas_core.data.listing import SPLITS, Listing, Sample, report

_MANIFEST = "manifest.json"
_MAX_MANIFEST = 2**28
# What numpy raises for damaged headers, which it reads as Python source.
_DAMAGED = (ValueError, TypeError, EOFError, OverflowError, SyntaxError, MemoryError, TokenError)
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00]{1,255}$")]
_PADDING = (124, 116, 104)
"""ImageNet's mean colour, zero once normalised."""


class Manifest(BaseModel):
    """What manifest.json holds. `format` changes whenever the meaning of a file does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2]
    classes: tuple[str, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    palette: tuple[tuple[Channel, Channel, Channel], ...]
    ignore_index: Channel
    height: int = Field(ge=1, le=MAX_PIXELS)
    width: int = Field(ge=1, le=MAX_PIXELS)
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

    @model_validator(mode="after")
    def is_consistent(self) -> Self:
        if not len(self.classes) == len(self.palette) == len(self.label_shares):
            raise ValueError("classes, palette and label_shares differ in length")
        if not {"train", "val"} <= set(self.names):
            raise ValueError("a split is missing")
        counts = [{split: len(of) for split, of in x.items()} for x in (self.names, self.groups)]
        if counts[0] != counts[1]:
            raise ValueError("names and groups differ in length")
        return self


@dataclass(frozen=True)
class Split:
    """Images and masks of a split.

    Attributes:
        images: uint8 (N, H, W, 3), RGB.
        masks: uint8 (N, H, W), class numbers and the ignored label.
        names: the N file names without suffix.
        groups: of each image, what it was taken with: see `Sample.group`.
    """

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, indices: npt.NDArray[np.intp]) -> Split:
        """A part of the split, copied into memory."""
        names, groups = (
            tuple(values[index] for index in indices) for values in (self.names, self.groups)
        )
        return Split(self.images[indices], self.masks[indices], names, groups)


@dataclass(frozen=True)
class PreparedData:
    """A prepared dataset, open for reading.

    Attributes:
        palette: uint8 (C, 3), the colours of the classes.
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

    @property
    def num_classes(self) -> int:
        return len(self.classes)

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
        )


def prepare(dataset: DatasetSettings, root: Path, folder: Path) -> PreparedData:
    """Check a dataset and decode it into `folder`; nothing is done if that is up to date.

    The source files are hashed each time, so a changed file is always seen. The folder is put in
    place as a whole: after an error or a crash it is the former one, or there is none.

    Args:
        dataset: its `path` is relative to `root`. A synthetic dataset is drawn if need be.
        root: the project's folder.
        folder: where the prepared dataset goes.

    Raises:
        DataError: the dataset cannot be used (all problems of all files in one message), or the
            disk is full or not writable.
    """
    listing = list_dataset(dataset, root)
    try:
        with exclusive(folder):
            if not listing.problems and _is_up_to_date(folder, listing.data_hash):
                return PreparedData.open(folder)
            _build(listing, folder)
    except OSError as error:  # reading errors are collected as problems of the dataset
        raise DataError(f"{folder}: the prepared data cannot be written: {error}") from error
    return PreparedData.open(folder)


def _not_prepared(folder: Path, problem: str) -> DataError:
    return DataError(f"{folder} {problem}: prepare the dataset with `nas search --stage prepare`")


def _array_path(folder: Path, split: str, kind: str) -> Path:
    return folder / f"{split}_{kind}.npy"


def _open_split(folder: Path, name: str, manifest: Manifest) -> Split:
    shape = (len(manifest.names[name]), manifest.height, manifest.width)
    images = _open_array(_array_path(folder, name, "images"), (*shape, 3))
    masks = _open_array(_array_path(folder, name, "masks"), shape)
    return Split(images, masks, manifest.names[name], manifest.groups[name])


def _open_array(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Map an array. Copy on write: torch takes it without a copy, and the file never changes."""
    try:
        inside(path.parent, path.name)  # a link would lead to another file
        array = np.lib.format.open_memmap(path, mode="c")
    except _DAMAGED:
        raise _not_prepared(path.parent, f"has a damaged {path.name}") from None
    if array.shape != shape or array.dtype != np.uint8:
        raise _not_prepared(
            path.parent, f"has a damaged {path.name} ({array.dtype} {array.shape}, not {shape})"
        )
    return array


def _is_up_to_date(folder: Path, data_hash: str) -> bool:
    try:
        data = PreparedData.open(folder)
    except DataError:
        return False
    return data.data_hash == data_hash and data.code == code_digest(PREPARING)


class _ArrayFile:
    """A .npy file of uint8 that threads fill row by row.

    Plain writes and not a memory map: a full disk is then an error and does not kill the process.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.file = path.open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)
        self.file.flush()
        self.start = self.file.tell()
        self.row_bytes = int(np.prod(shape[1:]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            os.fsync(self.file.fileno())
        self.file.close()

    def write_row(self, index: int, row: npt.NDArray[np.uint8]) -> None:
        offset = self.start + index * self.row_bytes
        left = memoryview(row.tobytes())
        while left:
            written = os.pwrite(self.file.fileno(), left, offset)
            left, offset = left[written:], offset + written


def _build(listing: Listing, folder: Path) -> None:
    """Decode all samples into `folder`, or raise all their problems."""
    frame, oversize = frame_size(listing)
    if oversize:
        raise report(listing.root, [*listing.problems, *oversize])
    _check_disk_space(folder, len(listing.samples) * frame[0] * frame[1] * 4)
    with replacing(folder) as new:
        inspected = _decode_all(listing, frame, new)
        if problems := all_problems(listing, inspected):
            raise report(listing.root, problems)
        counts = sum(one.label_counts for one in inspected if one.sample.split == "train")
        labelled = np.asarray(counts)[: len(listing.classes)]
        shares = tuple((labelled / labelled.sum()).tolist())
        arrays = sorted(new.glob("*.npy"))
        content = [[path.name, file_digest(path)] for path in arrays]
        manifest = Manifest(
            format=2,
            classes=listing.classes,
            palette=listing.palette,
            ignore_index=listing.ignore_index,
            height=frame[0],
            width=frame[1],
            data_hash=listing.data_hash,
            code=code_digest(PREPARING),
            content_hash=digest_of(content, listing.ignore_index, shares, length=64),
            label_shares=shares,
            names={
                split: tuple(sample.name for sample in listing.of_split(split))
                for split in listing.splits
            },
            groups={
                split: tuple(sample.group for sample in listing.of_split(split))
                for split in listing.splits
            },
        )
        write_json(new / _MANIFEST, manifest.model_dump())


def _check_disk_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise DataError(
            f"{folder.parent}: the prepared dataset needs {needed / 1e6:.0f} MB and "
            f"{free / 1e6:.0f} MB are free; make room, or move the project to a larger disk"
        )


def _decode_all(listing: Listing, frame: Size, folder: Path) -> list[Inspected]:
    """Check all samples, writing those without a problem to the arrays in `folder`."""
    with ExitStack() as stack:
        jobs = []
        for split in SPLITS:
            samples = listing.of_split(split)
            if not samples:
                continue
            shape = (len(samples), *frame)
            images, masks = (
                stack.enter_context(_ArrayFile(_array_path(folder, split, kind), array_shape))
                for kind, array_shape in (("images", (*shape, 3)), ("masks", shape))
            )
            jobs += [(sample, index, images, masks) for index, sample in enumerate(samples)]

        def decode(job: tuple[Sample, int, _ArrayFile, _ArrayFile]) -> Inspected:
            sample, index, images, masks = job
            inspected, image, mask = inspect_sample(listing, sample, frame)
            if image is not None and mask is not None:
                images.write_row(index, _padded(image, frame, _PADDING))
                masks.write_row(index, _padded(mask, frame, listing.ignore_index))
            return inspected

        with ThreadPoolExecutor() as threads:
            return list(threads.map(decode, jobs))


def _padded(
    array: npt.NDArray[np.uint8], frame: Size, fill: int | tuple[int, ...]
) -> npt.NDArray[np.uint8]:
    """An array (h, w, ...) in the upper left corner of one of size `frame`, else of `fill`."""
    height, width = array.shape[:2]
    if (height, width) == frame:
        return array
    padded = np.empty((*frame, *array.shape[2:]), np.uint8)
    padded[:] = fill
    padded[:height, :width] = array
    return padded
