"""Pictures of label maps, for people."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

_OPACITY = 0.6

# Colours of an error map; a right pixel is a grey around this one.
WRONG = (220, 20, 30)
RIGHT = (190, 190, 190)
UNLABELLED = (0, 0, 0)


def colourise(labels: npt.NDArray[np.integer], palette: npt.NDArray[np.uint8]) -> Image.Image:
    """Labels (H, W) in the colours of `palette` (C, 3); labels that are no class are black."""
    num_classes = len(palette)
    colours = np.concatenate([palette, np.zeros((1, 3), np.uint8)])
    known = (labels >= 0) & (labels < num_classes)
    return Image.fromarray(colours[np.where(known, labels, num_classes)])


def overlay(
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    palette: npt.NDArray[np.uint8],
) -> Image.Image:
    """An image (H, W, 3) tinted with its labels (H, W); it shows through where there is none."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    tinted = Image.blend(picture, colourise(labels, palette), _OPACITY)
    known = (labels >= 0) & (labels < len(palette))
    return Image.composite(tinted, picture, Image.fromarray(known))


def error_map(
    image: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.integer],
    prediction: npt.NDArray[np.integer],
    num_classes: int,
) -> Image.Image:
    """Where a prediction (H, W) is wrong, over the pale grey image (H, W, 3).

    Wrong pixels have the colour `WRONG`, those whose truth (H, W) is no class `UNLABELLED`.
    """
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L")).astype(np.uint16)
    # From half of RIGHT to somewhat above it: the image stays visible, and is never taken for red.
    pale = (RIGHT[0] // 2 + grey * 3 // 5).astype(np.uint8)
    picture = np.repeat(pale[..., None], 3, axis=2)
    labelled = (truth >= 0) & (truth < num_classes)
    picture[labelled & (truth != prediction)] = WRONG
    picture[~labelled] = UNLABELLED
    return Image.fromarray(picture)
