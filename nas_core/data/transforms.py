"""From uint8 images and masks to the batches that a network sees.

Augmentation works on uint8 with torchvision's functions, which are several times faster there
than on floats, and draws all its randomness from one explicit generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from nas_core.data.fitting import Size, fitted
from nas_core.data.labels import IGNORED
from nas_core.data.prepared import Split
from nas_core.models.encoder import IMAGENET_MEAN, IMAGENET_STD

Rows = npt.NDArray[np.intp]

FILL = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
"""The colour, as uint8, of what is no image."""
NUM_DRAWS = 7
"""Random numbers of a crop: scale, place down and across, mirror, three colours."""


class Crops(TypedDict):
    """How random crops are cut; see `augmented_batch`."""

    height: int
    width: int
    min_scale: float
    max_scale: float
    jitter: float


def normalise(images: Tensor | npt.NDArray[np.uint8]) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) with ImageNet's mean and deviation.

    The result is channels_last, on the device of `images`; nothing is transposed in memory.
    """
    return normalised(torch.as_tensor(images).permute(0, 3, 1, 2).to(torch.float32))


def normalised(batch: Tensor) -> Tensor:
    """float32 (N, 3, H, W) of 0 to 255, in place, with ImageNet's mean and deviation."""
    mean, std = (on_device(values, batch.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return batch.sub_(mean * 255).div_(std * 255)


@cache
def on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A value for each channel, float32 (3, 1, 1); nothing may change it.

    Once on a GPU they stay there: to send them again would wait for all that it does.
    """
    with torch.inference_mode(False):  # may come from anywhere
        return torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)


def augmented_batch(
    split: Split,
    indices: Sequence[int],
    *,
    height: int,
    width: int,
    min_scale: float,
    max_scale: float,
    jitter: float,
    ignore_index: int,
    generator: torch.Generator,
    send: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> tuple[Tensor, Tensor]:
    """Random crops of the images of `indices`, randomly scaled, mirrored and coloured.

    The part of an image that the crop shows is cut out first and then scaled, so the cost does not
    grow with the scale. An image that is smaller than the crop once scaled lies at a random place
    in it, surrounded by the mean colour and by `ignore_index`.

    Args:
        height, width: of a crop, in pixels.
        min_scale, max_scale: a scale is drawn uniformly from this range.
        jitter: brightness, contrast and saturation are each multiplied by a factor drawn uniformly
            from 1 - jitter to 1 + jitter.
        generator: a generator on the CPU.
        send: moves what is shown of an image to the device that the rest is done on.

    Returns:
        float32 (N, 3, height, width), normalised and channels_last, and int64 (N, height, width),
        on that device.
    """
    draws = torch.rand((len(indices), NUM_DRAWS), generator=generator).tolist()
    images = send(torch.tensor(FILL, dtype=torch.uint8).repeat(len(indices), height, width, 1))
    masks = send(torch.full((len(indices), height, width), ignore_index, dtype=torch.int64))
    for row, index in enumerate(indices):
        scale_draw, down, across, mirror, *colour_draws = draws[row]
        scale = min_scale + (max_scale - min_scale) * scale_draw
        source_height, source_width = split.masks[index].shape
        shown_rows, target_top, target_height = _window(source_height, height, scale, down)
        shown_columns, target_left, target_width = _window(source_width, width, scale, across)
        shown = (shown_rows, shown_columns)
        image = send(torch.as_tensor(split.images[index][shown])).permute(2, 0, 1)
        mask = send(torch.as_tensor(split.masks[index][shown]))[None]
        size = [target_height, target_width]
        image = functional.resize(image, size, antialias=True)
        mask = functional.resize(mask, size, interpolation=InterpolationMode.NEAREST_EXACT)
        if mirror < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        if jitter:
            image = _coloured(image, [1 + jitter * (2 * draw - 1) for draw in colour_draws])
        rows = slice(target_top, target_top + target_height)
        columns = slice(target_left, target_left + target_width)
        images[row, rows, columns] = image.permute(1, 2, 0)
        masks[row, rows, columns] = mask[0]
    return normalise(images), masks


def resized(
    split: Split,
    height: int,
    width: int,
    rows: Rows | None = None,
    *,
    frame: Size | None = None,
    ignore_index: int = IGNORED,
) -> Split:
    """The split with images scaled bilinearly (antialiased) and masks by the nearest pixel.

    Images of other proportions than the frame lie in the upper left corner, see `fitted`,
    surrounded by the mean colour and by `ignore_index`. The result is in memory, uint8 as before; a
    split that has the size already is returned itself.

    Args:
        rows: the images of the result; all if None.
        frame: height and width of the image that fills the result; if None, of the first.
    """
    chosen = np.arange(len(split)) if rows is None else rows
    if split.images.shape[1:3] == (height, width):
        return split if rows is None else split.rows(rows)
    if frame is None:
        frame = split.masks[0].shape[:2]
    images = np.empty((len(chosen), height, width, 3), np.uint8)
    images[:] = FILL
    masks = np.full((len(chosen), height, width), ignore_index, np.uint8)
    for place, row in enumerate(chosen):
        new = fitted(split.masks[row].shape, frame, (height, width))
        image = torch.as_tensor(split.images[row]).permute(2, 0, 1)
        shown = (place, slice(new[0]), slice(new[1]))
        images[shown] = functional.resize(image, list(new)).permute(1, 2, 0).numpy()
        masks[shown] = _resized_mask(split.masks[row], new)
    names, groups = (tuple(of[row] for row in chosen) for of in (split.names, split.groups))
    return Split(images, masks, names, groups)


def labelled_at(split: Split, height: int, width: int, *, frame: Size, ignore_index: int) -> Rows:
    """Rows of the split that have a labelled pixel once they are `resized`."""
    return np.array(
        [
            row
            for row, mask in enumerate(split.masks)
            if (
                _resized_mask(mask, fitted(mask.shape, frame, (height, width))) != ignore_index
            ).any()
        ],
        np.intp,
    )


def _resized_mask(mask: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    scaled: npt.NDArray[np.uint8] = functional.resize(
        torch.as_tensor(mask)[None], list(size), interpolation=InterpolationMode.NEAREST_EXACT
    )[0].numpy()
    return scaled


def _window(length: int, crop: int, scale: float, draw: float) -> tuple[slice, int, int]:
    """Along one axis: what is shown of the image, and start and length in the crop.

    `draw` in [0, 1) places the crop in the scaled image, or the scaled image in the crop.
    """
    scaled = max(1, round(length * scale))
    if scaled <= crop:
        return slice(0, length), int(draw * (crop - scaled + 1)), scaled
    shown = min(length, max(1, round(crop / scale)))
    start = int(draw * (length - shown + 1))
    return slice(start, start + shown), 0, crop


def _coloured(image: Tensor, factors: Sequence[float]) -> Tensor:
    brightness, contrast, saturation = factors
    image = functional.adjust_brightness(image, brightness)
    image = functional.adjust_contrast(image, contrast)
    jittered: Tensor = functional.adjust_saturation(image, saturation)
    return jittered
