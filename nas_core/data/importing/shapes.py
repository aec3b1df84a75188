"""Shapes of annotation tools as pixels.

COCO's are drawn as its own tools draw them, labelme's as labelme draws them: the pixels are the
same. What lies outside of the image is cut off.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from nas_core.base.errors import DataError, SettingsError
from nas_core.data.containers import PNG
from nas_core.data.fitting import Size
from nas_core.data.images import decode_image

Points = npt.NDArray[np.float64]

MAX_OUTLINE = 2**20
"""Pixels along the outline of a shape: drawing one takes time and memory for each of them."""

# Numbers of 5 bits a character, the lowest first; all but the last have the bit for more.
_RUNS = re.compile(rb"(?:[P-o]{0,6}[0-O])+")


class ShapeError(ValueError):
    """Why shapes cannot be drawn, in the plural: it is said once for all of a kind."""


@dataclass(frozen=True)
class Region:
    """The pixels of a shape: bool (h, w), whose upper left pixel is at `top`, `left`."""

    top: int
    left: int
    pixels: npt.NDArray[np.bool_]

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.pixels.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def coco_polygon(numbers: Any, size: Size) -> Region:
    """A polygon x0, y0, x1, y1, ... in pixels, where (0, 0) is the corner of the first pixel.

    Raises:
        ShapeError: it is none, or lies outside of the image.
    """
    coco = coco_masks()
    flat = _numbers(numbers)
    if flat.ndim != 1 or flat.size % 2:
        raise ShapeError("polygons that are no list x, y, x, y ... of numbers")
    points = _polygon(flat.reshape(-1, 2), size)
    runs = coco.frPyObjects([points.ravel().tolist()], *size)
    return _seen(coco.decode(runs)[..., 0].astype(bool), points)


def run_lengths(value: dict[Any, Any], size: Size) -> Region:
    """A mask of COCO as lengths of runs of 0 and 1 in turn, down the columns.

    `counts` is a list of them, or text in the form of
    https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (rleFrString).

    Raises:
        ShapeError: it is none, or of another size.
    """
    if _numbers(value.get("size")).tolist() != list(size):
        raise ShapeError("run-length masks of another size than their image")
    counts = value.get("counts")
    runs: Any = _runs(counts) if isinstance(counts, str) else counts
    # Compared as Python's integers: a sum of any size is right.
    is_list = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if not is_list or sum(runs) != size[0] * size[1]:
        raise ShapeError("run-length masks whose runs do not fill the image")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[::-1]).T
    return _cropped(pixels)


def labelme_polygon(points: Any, size: Size) -> Region:
    """A polygon, (N, 2) of x and y in pixels; its outline belongs to it."""
    corners = _polygon(_points(points), size)
    flat: list[float] = corners.ravel().tolist()
    return _drawn(size, corners, lambda draw: draw.polygon(flat, fill=1, outline=1))


def labelme_rectangle(points: Any, size: Size) -> Region:
    """A rectangle by two opposite corners, (2, 2) of x and y; its outline belongs to it."""
    corners = _two(points, "rectangles")
    _check_outline(corners)
    box = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
    return _drawn(size, corners, lambda draw: draw.rectangle(box, fill=1, outline=1))


def labelme_circle(points: Any, size: Size) -> Region:
    """A circle by its centre and a point on it, (2, 2) of x and y."""
    centre, other = _two(points, "circles")
    radius = float(np.hypot(*(other - centre)))
    corners = np.stack([centre - radius, centre + radius])
    _check_outline(corners)
    box = tuple(corners.ravel().tolist())
    return _drawn(size, corners, lambda draw: draw.ellipse(box, fill=1, outline=1))


def labelme_mask(points: Any, content: Any, size: Size) -> Region:
    """A PNG in base64 whose pixels that are not black belong to the shape.

    Args:
        points: the first and the last pixel of the picture, (2, 2) of x and y.
    """
    corners = _two(points, "masks")
    _check_outline(corners)
    (left, top), (right, bottom) = corners.round().astype(int).tolist()
    try:
        mask = base64.b64decode(content, validate=True)
        if not mask.startswith(PNG):  # what is stored with loss has other edges
            raise ValueError
        picture = decode_image(mask, "mask").any(axis=2)
    except (DataError, binascii.Error, TypeError, ValueError):
        raise ShapeError("masks that are no PNG in base64") from None
    if picture.shape != (bottom - top + 1, right - left + 1):
        raise ShapeError("masks of another size than their two points say")
    if min(left, top) < 0 or right >= size[1] or bottom >= size[0]:
        raise ShapeError("masks that are partly outside of the image")
    return Region(top, left, picture)


def coco_masks() -> Any:
    """The package that draws COCO's polygons.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import pycocotools.mask
    except ModuleNotFoundError:
        raise SettingsError(
            "the format coco: the package pycocotools is missing; install nas-seg[import]"
        ) from None
    return pycocotools.mask


def _numbers(value: Any) -> Points:
    """An array of finite numbers, of any shape."""
    try:
        array = np.array(value)
    except ValueError:  # lists of several lengths
        raise ShapeError("shapes whose points are not all pairs of numbers") from None
    if (array.dtype.kind not in "iuf" and array.size) or _has_bool(value):
        raise ShapeError("shapes with something else than numbers for points")
    if not np.isfinite(numbers := array.astype(np.float64)).all():
        raise ShapeError("shapes with a number that is not finite (NaN, Infinity)")
    return numbers


def _has_bool(value: Any) -> bool:
    """Among numbers numpy takes True for one."""
    if isinstance(value, list | tuple):
        return any(map(_has_bool, value))
    return isinstance(value, bool)


def _points(value: Any) -> Points:
    points = _numbers(value)
    if points.size and (points.ndim != 2 or points.shape[1] != 2):
        raise ShapeError("shapes whose points are not all pairs of numbers")
    return points.reshape(-1, 2)


def _two(value: Any, kind: str) -> Points:
    points = _points(value)
    if len(points) != 2:
        raise ShapeError(f"{kind} that have not two points")
    return points


def _polygon(points: Points, size: Size) -> Points:
    if len(points) < 3:
        raise ShapeError("polygons of fewer than 3 points")
    _check_outline(points)
    _check_inside(points, size)
    if size != (1, 1) and points.min() >= 0 and points.max() <= 1:
        raise ShapeError("polygons within one pixel, as of shares of the size in place of pixels")
    return points


def _check_outline(points: Points) -> None:
    far = abs(points).max() > MAX_OUTLINE  # else the sum may overflow
    if far or abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum() > MAX_OUTLINE:
        raise ShapeError(f"shapes whose outline is longer than {MAX_OUTLINE} pixels")


def _check_inside(points: Points, size: Size) -> None:
    if (points.max(axis=0) < 0).any() or (points.min(axis=0) > size[::-1]).any():
        raise ShapeError("shapes outside of their image")


def _drawn(size: Size, corners: Points, fill: Callable[[ImageDraw.ImageDraw], None]) -> Region:
    _check_inside(corners, size)
    picture = Image.new("L", size[::-1])
    fill(ImageDraw.Draw(picture))
    box = picture.getbbox() or (0, 0, 0, 0)
    return Region(box[1], box[0], np.asarray(picture.crop(box)) > 0)


def _seen(pixels: npt.NDArray[np.bool_], points: Points) -> Region:
    """The part of an image that a polygon can reach."""
    left, top = np.floor(points.min(axis=0)).clip(min=1).astype(int).tolist()
    right, bottom = np.ceil(points.max(axis=0)).clip(min=0).astype(int).tolist()
    top, left = top - 1, left - 1
    return Region(top, left, pixels[top : bottom + 1, left : right + 1])


def _cropped(pixels: npt.NDArray[np.bool_]) -> Region:
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return Region(0, 0, pixels[:0, :0])
    window = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Region(int(rows[0]), int(columns[0]), window)


def _runs(text: str) -> list[int]:
    """The lengths in a compressed mask: from the fourth on, differences to the one before last."""
    content = text.encode(errors="replace")
    if not _RUNS.fullmatch(content):
        raise ShapeError("run-length masks whose text is damaged")
    runs: list[int] = []
    value = shift = 0
    for char in content:
        bits = char - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (bits & 0x10) << (shift - 4)  # the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
