"""A network as ONNX, checked against PyTorch before the file is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from PIL import Image

from nas_core.base.errors import RunError
from nas_core.base.files import write_bytes
from nas_core.data.images import read_image
from nas_core.data.street_scene import draw_scene
from nas_core.data.transforms import normalise
from nas_core.deploy import measure
from nas_core.deploy.shipping import normalisation
from nas_core.models.checkpoint import NetworkCard
from nas_core.models.labelling import check_array, check_memory
from nas_core.models.onnx_graph import INPUT, OUTPUT, onnx_graph
from nas_core.models.segmenter import Segmenter, most_likely

MAX_LOGIT_DIFFERENCE = 1e-3
MAX_LABEL_SHARE = 1e-3
_SYNTHETIC_SIZES = ((2, 120, 160), (1, 97, 131))


@dataclass(frozen=True)
class Deviation:
    """How far a runtime is from PyTorch.

    Attributes:
        logits: the largest absolute difference of a logit.
        labels: the share of the pixels whose class differs.
        num_images: that it was measured on.
    """

    logits: float
    labels: float
    num_images: int


def export_onnx(
    segmenter: Segmenter,
    card: NetworkCard,
    path: Path,
    images: Sequence[npt.NDArray[np.uint8]] = (),
    size: tuple[int, int] | None = None,
) -> Deviation:
    """Write `path`: normalised float32 images (N, 3, H, W) to logits (N, C, H, W).

    Sides may have up to 16384 pixels. The file's metadata tells how an image becomes the input,
    and has the classes and the palette, as JSON; of a network that was trained on tiles also their
    size and overlap, by which larger images are to be labelled.

    Args:
        segmenter: on the CPU, in eval mode.
        images: RGB (H, W, 3), to compare PyTorch and ONNX Runtime on; synthetic ones if empty.
        size: height and width that the network is to take alone, one image at a time; the images
            are resized to it.

    Raises:
        RunError: ONNX Runtime's logits or labels differ by more than MAX_LOGIT_DIFFERENCE or
            MAX_LABEL_SHARE, or the file cannot be written. Then there is no new file.
        WeightsError: the card is of another network, or PyTorch's logits are not finite. Then
            there is none either.
        ValueError: an image has another shape or type, or no pixels.
    """
    card.check(segmenter)
    pictures = batches(images, size)
    model = onnx_model(segmenter, card, size)
    agreement = agreed(path, "ONNX Runtime", segmenter, session(model), pictures)
    write_bytes(path, model)
    return agreement


def agreed(
    path: Path,
    name: str,
    segmenter: Segmenter,
    runtime: Runtime,
    pictures: Sequence[npt.NDArray[np.uint8]],
) -> Deviation:
    """See `compare`. Raises a RunError if it is too far from PyTorch for `path` to be written."""
    agreement = compare(segmenter, runtime, pictures)
    if not agreement.logits <= MAX_LOGIT_DIFFERENCE or agreement.labels > MAX_LABEL_SHARE:
        raise RunError(
            f"{path} is not written: {name} differs from PyTorch by {agreement.logits:.2g} "
            f"in a logit (at most {MAX_LOGIT_DIFFERENCE:g}) and in {agreement.labels:.2%} of the "
            f"pixels (at most {MAX_LABEL_SHARE:.1%})"
        )
    return agreement


def onnx_model(
    segmenter: Segmenter, card: NetworkCard, size: tuple[int, int] | None = None
) -> bytes:
    """The content of an ONNX file, not compared with PyTorch yet.

    Args:
        size: height and width, for one image of this size alone; any batch and size if None.
    """
    model = onnx_graph(segmenter, size)
    onnx.helper.set_model_props(model, metadata(card))
    content: bytes = model.SerializeToString()
    return content


def metadata(card: NetworkCard, layout: str = "NCHW") -> dict[str, str]:
    """What a file knows of its input and output, by key; texts, or JSON.

    Args:
        layout: of both.
    """
    axis = layout.index("C")
    return {
        "preprocessing": json.dumps(
            {**normalisation().model_dump(), "layout": layout, "type": "float32"}
        ),
        "postprocessing": f"the class of a pixel is the argmax of the logits over axis {axis}",
        "classes": json.dumps(card.classes),
        "palette": json.dumps(card.palette),
        "genotype": json.dumps(card.genotype.to_dict()),
        "encoder": card.encoder,
        **({"tile": json.dumps(card.tile.model_dump())} if card.tile else {}),
    }


class Runtime(Protocol):
    """A network that is ready to run, as ONNX Runtime's sessions are."""

    def run(
        self, outputs: list[str], inputs: dict[str, npt.NDArray[np.float32]]
    ) -> list[npt.NDArray[np.float32]]:
        """The logits (N, C, H, W) of normalised images (N, 3, H, W), by the names of both."""
        ...

    def get_inputs(self) -> Sequence[Any]:
        """What it takes, each with its `shape`; a side of any length is no number there."""
        ...


def input_size(runtime: Runtime) -> tuple[int, int] | None:
    """The height and width that a runtime takes alone; None if it takes any.

    Raises:
        ValueError: it is no network of `onnx_model`'s input.
    """
    inputs = runtime.get_inputs()
    if [one.name for one in inputs] != [INPUT] or len(inputs[0].shape) != 4:
        raise ValueError("its input is not that of a network")
    height, width = inputs[0].shape[2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def session(model: bytes, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A model ready to run on `threads` CPU threads; as many as torch uses if None."""
    return measure.session(model, threads or torch.get_num_threads())


@torch.inference_mode()
def compare(
    segmenter: Segmenter,
    runtime: Runtime,
    batches: Sequence[npt.NDArray[np.uint8]] = (),
) -> Deviation:
    """How far a runtime is from PyTorch on RGB images (N, H, W, 3), synthetic ones if empty.

    Raises:
        WeightsError: PyTorch's logits are not finite.
    """
    most, num_different, num_pixels, num_images = 0.0, 0, 0, 0
    for images in batches or synthetic():
        inputs = normalise(images.copy())
        logits = segmenter(inputs)
        expected, labels = logits.numpy(), most_likely(logits, segmenter.source).numpy()
        (found,) = runtime.run([OUTPUT], {INPUT: inputs.contiguous().numpy()})
        difference = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
        most = max(most, float(np.nan_to_num(difference, nan=np.inf)))
        num_pixels += images[..., 0].size
        if np.isfinite(most):
            num_different += int((found.argmax(1) != labels).sum())
        num_images += len(images)
    return Deviation(most, num_different / num_pixels, num_images)


def batches(
    images: Sequence[npt.NDArray[np.uint8]], size: tuple[int, int] | None
) -> list[npt.NDArray[np.uint8]]:
    """Images (1, H, W, 3), of this size if there is one; synthetic ones if there are none.

    Raises:
        ValueError: an image is not RGB (H, W, 3) of uint8, or has no pixels.
    """
    for image in images:
        check_array(image)
    if not images:
        return synthetic(((1, *size),) if size else _SYNTHETIC_SIZES)
    return [resized(image, size)[None] for image in images]


def network_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """RGB (N, H, W, 3) as a runtime takes them."""
    inputs: npt.NDArray[np.float32] = normalise(images.copy()).contiguous().numpy()
    return inputs


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """An upright image, RGB (H, W, 3), that a network is to be checked on.

    Raises:
        DataError: it cannot be read, or needs more memory than is free.
    """
    image = read_image(path, upright=True)
    height, width = image.shape[:2]
    check_memory(path, (height, width))
    return image


def resized(picture: npt.NDArray[np.uint8], size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """An image (H, W, 3), or a mask (H, W) whose labels stay what they are, at another size."""
    if size is None or picture.shape[:2] == size:
        return picture
    how = Image.Resampling.BILINEAR if picture.ndim == 3 else Image.Resampling.NEAREST
    return np.array(Image.fromarray(picture).resize(size[::-1], how))


def synthetic(
    sizes: Sequence[tuple[int, int, int]] = _SYNTHETIC_SIZES,
) -> list[npt.NDArray[np.uint8]]:
    """Drawn scenes, uint8 (N, H, W, 3), for each number, height and width."""
    rng = np.random.default_rng(0)
    return [
        np.stack([np.array(draw_scene(height, width, rng)[0]) for _ in range(number)])
        for number, height, width in sizes
    ]
