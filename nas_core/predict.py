"""From an image to its classes: what serving, overlays and the command line share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from nas_core.data.transforms import normalise
from nas_core.models.segmenter import Segmenter


@torch.inference_mode()
def predict_labels(segmenter: Segmenter, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The most likely class of each pixel.

    Args:
        segmenter: in eval mode, on any device.
        image: RGB (H, W, 3), of any size.

    Returns:
        Class numbers (H, W).

    Raises:
        ValueError: the image has another shape or type, or no pixels.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"expected uint8 (H, W, 3), found {image.dtype} {image.shape}")
    device = next(segmenter.parameters()).device
    # A copy: torch takes neither read-only arrays nor mirrored ones.
    batch = torch.from_numpy(image.copy())[None].to(device)
    labels = segmenter(normalise(batch)).argmax(1)[0]
    return labels.to(torch.uint8).cpu().numpy()
