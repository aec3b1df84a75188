"""Large images as overlapping tiles, when they are prepared and when they are labelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from nas_core.config import TileSettings

MOST_VOID = 0.95
"""A prepared tile of which more is ignored is left out."""

Window = tuple[slice, slice]
"""Rows and columns of an image."""


def windows(size: Sequence[int], tile: TileSettings | None) -> list[Window]:
    """The tiles of an image of this height and width, row by row; the whole image without `tile`.

    Along each axis they are spread evenly, and overlap by `tile.overlap` pixels at least. An axis
    that is not longer than a tile has one.
    """
    if tile is None:
        return [(slice(0, size[0]), slice(0, size[1]))]
    rows, columns = (_along(length, tile) for length in size[:2])
    return [(row, column) for row in rows for column in columns]


def _along(length: int, tile: TileSettings) -> list[slice]:
    if length <= tile.size:
        return [slice(0, length)]
    number = -(-(length - tile.overlap) // (tile.size - tile.overlap))
    starts = np.linspace(0, length - tile.size, number).round().astype(int).tolist()
    return [slice(start, start + tile.size) for start in starts]


def tile_name(name: str, window: Window) -> str:
    """The name of a tile of an image: the name of the image, first row, first column."""
    place = f"_{window[0].start}_{window[1].start}"
    return name[: 255 - len(place)] + place


def image_of(name: str, tile: TileSettings | None) -> str:
    """The image that a tile of this name is of; the image itself without `tile`."""
    return name if tile is None else name.rsplit("_", 2)[0]


def is_void(mask: npt.NDArray[np.uint8], ignore_index: int) -> bool:
    """Whether a tile's mask has too little of any class to be worth keeping."""
    return bool(np.mean(mask == ignore_index) > MOST_VOID)


def too_small(
    images: Iterable[tuple[str, Sequence[int] | None]], tile: TileSettings | None
) -> list[str]:
    """A line for each image, by name and size, that a tile does not fit into."""
    if tile is None:
        return []
    return [
        f"{name}: {size[1]}x{size[0]} is smaller than a tile of {tile.size}x{tile.size}: give a "
        "smaller dataset.tile.size"
        for name, size in images
        if size is not None and min(size[:2]) < tile.size
    ]
