"""Pictures of label maps, for people."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

_OPACITY = 0.6


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


def side_by_side(
    image: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.integer],
    prediction: npt.NDArray[np.integer],
    palette: npt.NDArray[np.uint8],
) -> Image.Image:
    """The image (H, W, 3), its ground truth and the prediction (H, W): a picture of H x 3W."""
    height, width = truth.shape
    picture = Image.new("RGB", (3 * width, height))
    picture.paste(Image.fromarray(np.ascontiguousarray(image)), (0, 0))
    picture.paste(overlay(image, truth, palette), (width, 0))
    picture.paste(overlay(image, prediction, palette), (2 * width, 0))
    return picture
