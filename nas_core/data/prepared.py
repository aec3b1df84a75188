"""The prepared dataset: every image decoded once into memory-mapped arrays.

    manifest.json       classes, palette, places, names, groups, label shares, hash of the source
    SPLIT_images.npy    uint8, RGB, one image after another
    SPLIT_masks.npy     uint8, class numbers and the ignored label, likewise

Training reads pages of these files as it needs them, in every process from the same memory. Each
image has its own size; the manifest says where it lies. With `dataset.tile` the images are tiles.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nas_core.base.errors import DataError, RunError
from nas_core.base.files import (
    check_regular,
    digest_of,
    inside,
    read_limited,
)
from nas_core.config import TileSettings
from nas_core.data.containers import MAX_PIXELS
from nas_core.data.description import Channel
from nas_core.data.labels import MAX_CLASSES

MIN_TRAIN_IMAGES = 3
"""What a search needs: one for meta-val and two for meta-train, as batch norm wants two."""
MANIFEST = "manifest.json"
_MAX_MANIFEST = 2**28
# What numpy raises for damaged headers, which it reads as Python source.
_DAMAGED = (ValueError, TypeError, EOFError, OverflowError, SyntaxError, MemoryError, TokenError)
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00]{1,255}$")]
Pictures = npt.NDArray[Any]
"""uint8 (N, H, W, ...); where sizes differ, objects (N,) that are uint8 (H, W, ...) each."""


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
            RunError: memory does not suffice.
        """
        try:
            manifest = Manifest.model_validate_json(
                read_limited(folder / MANIFEST, _MAX_MANIFEST), strict=True
            )
            splits = {name: _open_split(folder, name, manifest) for name in manifest.names}
        except OSError as error:
            if error.errno == errno.ENOMEM:  # a limit of address space, as of ulimit -v
                raise RunError(
                    f"{folder} cannot be mapped into memory: {error.strerror}: free some, or raise "
                    "the limit"
                ) from None
            name = Path(error.filename or MANIFEST).name
            raise _not_prepared(folder, f"has no readable {name}") from None
        except ValidationError as error:
            keys = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
            problem = f"has a {MANIFEST} of another version, or a damaged one"
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


def _not_prepared(folder: Path, problem: str) -> DataError:
    return DataError(f"{folder} {problem}: prepare the dataset with `nas search --stage prepare`")


def array_path(folder: Path, split: str, kind: str) -> Path:
    return folder / f"{split}_{kind}.npy"


def _open_split(folder: Path, name: str, manifest: Manifest) -> Split:
    places = manifest.places[name]
    length = manifest.pixels[name]
    if any(place.end > length for place in places):
        raise _not_prepared(folder, f"has a damaged {MANIFEST} (places)")
    images = _open_array(array_path(folder, name, "images"), (length * 3,))
    masks = _open_array(array_path(folder, name, "masks"), (length,))
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
