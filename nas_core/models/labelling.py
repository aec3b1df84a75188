"""From images to their classes: what serving, overlays and predictions share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import psutil
import torch

from nas_core.base.errors import DataError
from nas_core.config import TileSettings
from nas_core.data.tiling import windows
from nas_core.data.transforms import normalise
from nas_core.models.segmenter import Segmenter, most_likely

# Measured with arch0 and arch1 on the CPU at 2048x1024: 228 and 236.
BYTES_PER_PIXEL = 240
MAX_BATCH = 8
BATCH_PIXELS = 2**21  # one image of Cityscapes


def batch_size_for(size: tuple[int, int]) -> int:
    """How many images of this height and width are labelled at once, so that memory is bounded."""
    return max(1, min(MAX_BATCH, BATCH_PIXELS // (size[0] * size[1])))


def check_memory(
    name: object, size: tuple[int, int], tile: TileSettings | None = None, num_classes: int = 0
) -> None:
    """Refuse what would end the process, which no message could then explain.

    Args:
        size: height and width in pixels.
        tile: see `predict_labels`, with the number of classes.

    Raises:
        DataError: labelling an image of this size needs more memory than is free.
    """
    pixels = size[0] * size[1]
    needed, free = BYTES_PER_PIXEL * pixels, psutil.virtual_memory().available
    if tile and max(size) > tile.size:
        at_once = max(tile.size**2, BATCH_PIXELS)
        needed = min(needed, BYTES_PER_PIXEL * at_once) + 4 * num_classes * pixels
    if needed > free:
        raise DataError(
            f"{name}: {size[1]}x{size[0]} pixels need about {needed / 1e9:.1f} GB of memory and "
            f"{free / 1e9:.1f} GB are free: scale it down or cut it up"
        )


def check_array(image: npt.NDArray[np.uint8]) -> None:
    """Raise a ValueError unless `image` is RGB (H, W, 3) of uint8 with pixels."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"expected uint8 (H, W, 3), found {image.dtype} {image.shape}")


@torch.inference_mode()
def predict_labels(
    segmenter: Segmenter, image: npt.NDArray[np.uint8], tile: TileSettings | None = None
) -> npt.NDArray[np.uint8]:
    """The most likely class of each pixel.

    Args:
        segmenter: in eval mode, on any device.
        image: RGB (H, W, 3), of any size.
        tile: what the network was trained on. A larger image is labelled by such tiles, whose
            probabilities are blended where they overlap: a tile counts most at its centre.

    Returns:
        Class numbers (H, W).

    Raises:
        ValueError: the image has another shape or type, or no pixels.
        WeightsError: see `most_likely`.
    """
    check_array(image)
    if tile and max(image.shape[:2]) > tile.size:
        return _predict_tiles(segmenter, image, tile)
    labels: npt.NDArray[np.uint8] = predict_batch(segmenter, image[None])[0]
    return labels


@torch.inference_mode()
def predict_batch(segmenter: Segmenter, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The most likely class of each pixel of RGB images (N, H, W, 3), as class numbers (N, H, W).

    The segmenter is in eval mode, on any device.

    Raises:
        WeightsError: see `most_likely`.
    """
    device = next(segmenter.parameters()).device
    # A copy: torch takes neither read-only arrays nor mirrored ones.
    batch = torch.from_numpy(images.copy()).to(device)
    labels = most_likely(segmenter(normalise(batch)), segmenter.source)
    return labels.to(torch.uint8).cpu().numpy()


def _predict_tiles(
    segmenter: Segmenter, image: npt.NDArray[np.uint8], tile: TileSettings
) -> npt.NDArray[np.uint8]:
    """See `predict_labels`. The weights' sum is the same for all classes: it decides nothing."""
    device = next(segmenter.parameters()).device
    places = windows(image.shape, tile)
    blended: torch.Tensor | None = None
    size = [min(length, tile.size) for length in image.shape[:2]]
    down, across = (_ramp(length) for length in size)
    weights = (down[:, None] * across).to(device)
    step = batch_size_for((size[0], size[1]))
    for start in range(0, len(places), step):
        some = places[start : start + step]
        batch = torch.from_numpy(np.stack([image[place] for place in some])).to(device)
        likely = segmenter(normalise(batch)).softmax(1).mul_(weights)
        if blended is None:
            blended = likely.new_zeros(likely.shape[1], *image.shape[:2])
        for place, one in zip(some, likely, strict=True):
            blended[:, *place] += one
    assert blended is not None, "an image has pixels"
    labels: npt.NDArray[np.uint8] = (
        most_likely(blended[None], segmenter.source)[0].to(torch.uint8).cpu().numpy()
    )
    return labels


def _ramp(length: int) -> torch.Tensor:
    """Weights along a side of a tile, from its ends to 1 in the middle, never zero."""
    place = torch.arange(length, dtype=torch.float32)
    return torch.minimum(place + 1, length - place) / ((length + 1) // 2)
