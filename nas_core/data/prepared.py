"""The prepared dataset: every PNG decoded once into memory-mapped arrays.

    manifest.json       classes, palette, size, names, label shares and the hash of the source
    SPLIT_images.npy    uint8 (N, H, W, 3), RGB
    SPLIT_masks.npy     uint8 (N, H, W), class numbers and the ignored label

Training reads pages of these files as it needs them, in every process from the same memory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from nas_core.config import DatasetSettings
from nas_core.data import camvid, synthetic
from nas_core.data.images import read_header, read_image, read_mask
from nas_core.errors import DataError
from nas_core.files import replacing, write_json
from nas_core.locks import exclusive

_MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """What manifest.json holds. `format` changes whenever the meaning of a file does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int
    height: int
    width: int
    data_hash: str
    label_shares: tuple[float, ...]
    names: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Split:
    """Images and masks of a split.

    Attributes:
        images: uint8 (N, H, W, 3), RGB.
        masks: uint8 (N, H, W), class numbers and the ignored label.
        names: the N file names without suffix.
    """

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, indices: npt.NDArray[np.intp]) -> Split:
        """A part of the split, copied into memory."""
        names = tuple(self.names[index] for index in indices)
        return Split(self.images[indices], self.masks[indices], names)


@dataclass(frozen=True)
class PreparedData:
    """A prepared dataset, open for reading.

    Attributes:
        palette: uint8 (C, 3), the colours of the classes.
        label_shares: float64 (C,), each class's share of the labelled training pixels.
        data_hash: SHA-256 over the files that it was prepared from.
    """

    folder: Path
    classes: tuple[str, ...]
    palette: npt.NDArray[np.uint8]
    ignore_index: int
    height: int
    width: int
    data_hash: str
    label_shares: npt.NDArray[np.float64]
    splits: dict[str, Split]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """The palette as plain numbers."""
        return tuple((int(r), int(g), int(b)) for r, g, b in self.palette)

    def split(self, name: str) -> Split:
        return self.splits[name]

    @classmethod
    def open(cls, folder: Path) -> PreparedData:
        """Map a prepared dataset into memory.

        Raises:
            DataError: there is none in `folder`, or it is incomplete or of another version.
        """
        try:
            manifest = Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
            splits = {name: _open_split(folder, name, manifest) for name in manifest.names}
        except OSError as error:
            name = Path(error.filename).name
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
    source = root / dataset.path
    if dataset.kind == "synthetic":
        synthetic.draw_dataset(source, dataset.synthetic)
    listing = camvid.list_dataset(source)
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
    return Split(images, masks, manifest.names[name])


def _open_array(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Map an array. Copy on write: torch takes it without a copy, and the file never changes."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError):
        raise _not_prepared(path.parent, f"has a damaged {path.name}") from None
    if array.shape != shape or array.dtype != np.uint8:
        raise _not_prepared(
            path.parent, f"has a damaged {path.name} ({array.dtype} {array.shape}, not {shape})"
        )
    return array


def _is_up_to_date(folder: Path, data_hash: str) -> bool:
    try:
        return PreparedData.open(folder).data_hash == data_hash
    except DataError:
        return False


@dataclass
class _Checked:
    """What decoding one sample told: its problems, or what its split needs to know of it."""

    sample: camvid.Sample
    problems: list[str] = field(default_factory=list)
    pixel_digest: bytes = b""
    label_counts: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(camvid.NUM_LABELS, np.int64)
    )


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


def _build(listing: camvid.Listing, folder: Path) -> None:
    """Decode all samples into `folder`, or raise all their problems."""
    height, width = size = _common_size(listing.samples)
    _check_disk_space(folder, len(listing.samples) * height * width * 4)
    with replacing(folder) as new:
        checked = _decode_all(listing, size, new)
        problems = [*listing.problems, *(line for one in checked for line in one.problems)]
        problems += _shared_images(checked)
        problems += _unlabelled_splits(checked)
        if problems:
            raise camvid.report(listing.root, problems)
        counts = sum(one.label_counts for one in checked if one.sample.split == "train")
        labelled = np.asarray(counts)[: len(camvid.CLASSES)]
        manifest = Manifest(
            classes=camvid.CLASSES,
            palette=camvid.PALETTE,
            ignore_index=camvid.VOID,
            height=height,
            width=width,
            data_hash=listing.data_hash,
            label_shares=tuple((labelled / labelled.sum()).tolist()),
            names={
                split: tuple(sample.name for sample in listing.of_split(split))
                for split in camvid.SPLITS
            },
        )
        write_json(new / _MANIFEST, manifest.model_dump())


def _common_size(samples: Iterable[camvid.Sample]) -> tuple[int, int]:
    """The size (H, W) of most images. Unreadable ones are left out here and reported later."""
    sizes: Counter[tuple[int, int]] = Counter()
    for sample in samples:
        with suppress(DataError):
            header = read_header(sample.image)
            sizes[header.height, header.width] += 1
    return sizes.most_common(1)[0][0] if sizes else (1, 1)


def _check_disk_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise DataError(
            f"{folder.parent}: the prepared dataset needs {needed / 1e6:.0f} MB and "
            f"{free / 1e6:.0f} MB are free; make room, or move the project to a larger disk"
        )


def _decode_all(listing: camvid.Listing, size: tuple[int, int], folder: Path) -> list[_Checked]:
    """Check all samples, writing those without a problem to the arrays in `folder`."""
    with ExitStack() as stack:
        jobs = []
        for split in camvid.SPLITS:
            samples = listing.of_split(split)
            shape = (len(samples), *size)
            images, masks = (
                stack.enter_context(_ArrayFile(_array_path(folder, split, kind), array_shape))
                for kind, array_shape in (("images", (*shape, 3)), ("masks", shape))
            )
            jobs += [(sample, index, images, masks) for index, sample in enumerate(samples)]

        def decode(job: tuple[camvid.Sample, int, _ArrayFile, _ArrayFile]) -> _Checked:
            sample, index, images, masks = job
            checked, image, mask = _decode_sample(sample, size)
            if image is not None and mask is not None:
                images.write_row(index, image)
                masks.write_row(index, mask)
            return checked

        with ThreadPoolExecutor() as threads:
            return list(threads.map(decode, jobs))


def _decode_sample(
    sample: camvid.Sample, size: tuple[int, int]
) -> tuple[_Checked, npt.NDArray[np.uint8] | None, npt.NDArray[np.uint8] | None]:
    """What there is to know of a sample, and its image and mask if they have no problem."""
    checked = _Checked(sample)
    image = mask = None
    try:
        image = read_image(sample.image)
    except DataError as error:
        checked.problems.append(str(error))
    try:
        mask = read_mask(sample.mask, camvid.NUM_LABELS)
    except DataError as error:
        checked.problems.append(str(error))
    if image is not None:
        checked.pixel_digest = hashlib.sha256(image.tobytes()).digest()
        if image.shape[:2] != size:
            checked.problems.append(
                f"{sample.split}/{sample.image.name}: {_extent(image)}; "
                f"most images are {size[1]}x{size[0]}"
            )
        if mask is not None and mask.shape != image.shape[:2]:
            checked.problems.append(
                f"{sample.split}annot/{sample.mask.name}: {_extent(mask)}; "
                f"its image is {_extent(image)}"
            )
    if checked.problems or image is None or mask is None:
        return checked, None, None
    checked.label_counts = np.bincount(mask.ravel(), minlength=camvid.NUM_LABELS)
    return checked, image, mask


def _extent(array: npt.NDArray[np.uint8]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _shared_images(checked: Iterable[_Checked]) -> list[str]:
    """Images with the same pixels in two splits: a score on one would not be fair."""
    first: dict[bytes, camvid.Sample] = {}
    problems = []
    for one in checked:
        if not one.pixel_digest:
            continue
        sample = one.sample
        earlier = first.setdefault(one.pixel_digest, sample)
        if earlier.split != sample.split:
            problems.append(
                f"{sample.split}/{sample.image.name}: same image as "
                f"{earlier.split}/{earlier.image.name}"
            )
    return problems


def _unlabelled_splits(checked: Sequence[_Checked]) -> list[str]:
    """Splits whose masks are all void: nothing could be learned from or measured on them."""
    problems = []
    for split in camvid.SPLITS:
        of_split = [one for one in checked if one.sample.split == split]
        if not of_split or any(one.problems for one in of_split):
            continue
        if not any(one.label_counts[: len(camvid.CLASSES)].any() for one in of_split):
            problems.append(f"{split}annot/: every pixel of every mask is {camvid.VOID} (void)")
    return problems
