"""Networks in 8-bit integers: quantised with calibration images, and refused if that costs much.

Weights have a scale for each output channel, activations one for each tensor, from the least and
the largest value that they take on the calibration images.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from nas_core.base.errors import RunError
from nas_core.base.files import write_bytes
from nas_core.data.transforms import normalise
from nas_core.deploy.export import (
    Runtime,
    batches,
    network_input,
    onnx_model,
    resized,
    session,
)
from nas_core.deploy.turns import by_turns
from nas_core.models.checkpoint import NetworkCard
from nas_core.models.labelling import check_array
from nas_core.models.onnx_graph import INPUT, OUTPUT
from nas_core.models.segmenter import Segmenter, most_likely
from nas_core.training.metrics import ConfusionMatrix

KEPT_BLOCKS = ("encoder/features.1",)
"""Blocks that stay in fp32: this one costs most of what int8 loses."""
NUM_TIMED = 10
_NUM_RANKED = 3
_NUM_SHOWN = 3
_BLOCK = r"/?(encoder/features\.\d+|decoder/layers\.\d+/applications\.\d+|decoder/\w+)/"

Array = npt.NDArray[np.uint8]


class Quantised(Protocol):
    """A network in 8-bit integers."""

    @property
    def files(self) -> Mapping[str, bytes]:
        """The content of each file, by its suffix."""
        ...

    @property
    def blocks(self) -> Sequence[str]:
        """The parts of the network that were quantised, see `block_of`."""
        ...

    def session(self, threads: int | None = None) -> Runtime:
        """It, ready to run."""
        ...

    def restored(self, block: str) -> Runtime:
        """It with one block in fp32."""
        ...


Quantise = Callable[[bytes, NetworkCard, Sequence[npt.NDArray[np.float32]]], Quantised]
"""From an ONNX model, and normalised images (1, 3, H, W) to calibrate with."""


@dataclass(frozen=True)
class Checked:
    """What int8 costs.

    Attributes:
        num_images: that it was measured on.
        labels: the share of the pixels whose class differs from PyTorch's fp32.
        mean_iou: before and after; None where the true classes are not known.
        num_bytes: of the files, and of ONNX in fp32.
        milliseconds: median CPU time of one image with one thread, of ONNX Runtime in fp32 and of
            this, by turns.
    """

    num_images: int
    labels: float
    mean_iou: tuple[float, float] | None
    num_bytes: tuple[int, int] = (0, 0)
    milliseconds: tuple[float, float] = (0, 0)

    @property
    def loss(self) -> float:
        """Points of mIoU; without true classes the per cent of the labels that differ."""
        if self.mean_iou is None:
            return 100 * self.labels
        before, after = self.mean_iou
        return 100 * (before - after)


@dataclass(frozen=True)
class Pictures:
    """Images to check on, uint8 (H, W, 3), and their true classes, uint8 (H, W), if known.

    A label that is no class of the network does not count.
    """

    images: Sequence[Array]
    masks: Sequence[Array] = field(default=())

    def at(self, size: tuple[int, int] | None) -> Pictures:
        """The same at another size."""
        masks = [resized(mask, size) for mask in self.masks]
        return Pictures([resized(image, size) for image in self.images], masks)


def export_int8(
    segmenter: Segmenter,
    card: NetworkCard,
    path: Path,
    quantise: Quantise,
    calibration: Sequence[Array],
    pictures: Pictures,
    max_loss: float,
    size: tuple[int, int] | None = None,
) -> Checked:
    """Write `path`, and the files that go with it, unless int8 costs too much.

    Args:
        segmenter: on the CPU, in eval mode.
        calibration: images, RGB (H, W, 3).
        pictures: to compare with fp32.
        max_loss: the most that may be lost, see `Checked.loss`.
        size: height and width that the network is to take alone, one image at a time; images are
            resized to it.

    Raises:
        RunError: more is lost, or a file cannot be written. Then there is no new file.
        WeightsError: the card is of another network, or PyTorch's logits are not finite. Then
            there is none either.
        ValueError: an image has another shape or type, or no pixels; or there are none.
    """
    if not calibration or not pictures.images:
        raise ValueError("there are no images")
    for image in pictures.images:
        check_array(image)
    card.check(segmenter)
    calibrating = batches(calibration, size)
    pictures = pictures.at(size)
    expected = [_labels(segmenter, image) for image in pictures.images]  # or it has no finite ones
    plain = onnx_model(segmenter, card, size)
    quantised = quantise(plain, card, list(map(network_input, calibrating)))
    runtime = quantised.session(1)
    found = [_run(runtime, image) for image in pictures.images]
    checked = check(expected, found, pictures.masks, len(card.classes))
    if not checked.loss <= max_loss:
        unit = "of the labels differ" if checked.mean_iou is None else "points of mIoU are lost"
        costs = costliest(quantised, pictures.images, expected)
        raise RunError(
            f"{path} is not written: {checked.loss:.2f} {unit} on {checked.num_images} images "
            f"({max_loss:g} at most). "
            + (f"Most by {'; '.join(costs)}" if costs else "No block costs it alone")
            + ". Give other calibration images, or allow a larger loss"
        )
    times = cpu_milliseconds(
        {"plain": session(plain, 1), "int8": runtime}, network_input(pictures.images[0][None])
    )
    write_files(path, quantised.files)
    return Checked(
        num_images=checked.num_images,
        labels=checked.labels,
        mean_iou=checked.mean_iou,
        num_bytes=(len(plain), sum(map(len, quantised.files.values()))),
        milliseconds=(times["plain"], times["int8"]),
    )


def check(
    expected: Sequence[npt.NDArray[np.int64]],
    found: Sequence[npt.NDArray[np.int64]],
    masks: Sequence[Array],
    num_classes: int,
) -> Checked:
    """Class numbers (H, W) of fp32 and of int8, against the true ones if there are any."""
    num_different = sum(int((a != b).sum()) for a, b in zip(expected, found, strict=True))
    num_pixels = sum(labels.size for labels in expected)
    mean_iou = None
    if masks:
        before, after = (_mean_iou(labels, masks, num_classes) for labels in (expected, found))
        mean_iou = before, after
    return Checked(len(expected), num_different / num_pixels, mean_iou)


def costliest(
    quantised: Quantised, images: Sequence[Array], expected: Sequence[npt.NDArray[np.int64]]
) -> list[str]:
    """The blocks that int8 costs most in, in words: each in turn is computed in fp32 alone."""
    images, expected = images[:_NUM_RANKED], expected[:_NUM_RANKED]

    def share(runtime: Runtime) -> float:
        found = [_run(runtime, image) for image in images]
        return check(expected, found, (), 0).labels

    whole = share(quantised.session())
    gains = {block: whole - share(quantised.restored(block)) for block in quantised.blocks}
    ranked = sorted(gains, key=lambda block: -gains[block])[:_NUM_SHOWN]
    return [f"{block} ({gains[block]:.2%} of the labels)" for block in ranked if gains[block] > 0]


def cpu_milliseconds(
    runtimes: Mapping[str, Runtime], inputs: npt.NDArray[np.float32], num: int = NUM_TIMED
) -> dict[str, float]:
    """Median CPU time of one image (1, 3, H, W) in each, over `num` runs by turns."""
    runs = {name: partial(one.run, [OUTPUT], {INPUT: inputs}) for name, one in runtimes.items()}
    times = by_turns(runs, num, warm_ups=2, clock=time.process_time)
    return {name: float(np.median(values)) for name, values in times.items()}


def block_of(node: str) -> str | None:
    """The block of the network that a node of its graph belongs to; None if to none.

    That is a block of the encoder, an application of a template, or a part of the head.
    """
    found = re.match(_BLOCK, node)
    return found[1] if found else None


def evenly(number: int, most: int) -> Iterator[int]:
    """Up to `most` of `number` indices, evenly spread."""
    taken = min(number, most)
    return (index * number // taken for index in range(taken))


@torch.inference_mode()
def _labels(segmenter: Segmenter, image: Array) -> npt.NDArray[np.int64]:
    logits = segmenter(normalise(image[None].copy()))
    labels: npt.NDArray[np.int64] = most_likely(logits, segmenter.source)[0].numpy()
    return labels


def _run(runtime: Runtime, image: Array) -> npt.NDArray[np.int64]:
    (logits,) = runtime.run([OUTPUT], {INPUT: network_input(image[None])})
    labels: npt.NDArray[np.int64] = logits[0].argmax(0)
    return labels


def _mean_iou(
    labels: Sequence[npt.NDArray[np.int64]], masks: Sequence[Array], num_classes: int
) -> float:
    confusion = ConfusionMatrix(num_classes, ignore_index=num_classes)
    for found, mask in zip(labels, masks, strict=True):
        truth = torch.from_numpy(np.minimum(mask, num_classes))
        confusion.update(torch.from_numpy(found), truth)
    return confusion.metrics()["mean_iou"]


def write_files(path: Path, files: Mapping[str, bytes]) -> None:
    """The file `path` comes last: it is never there without those that it needs."""
    if len(files) > 1:
        path.unlink(missing_ok=True)
    for suffix in sorted(files, key=lambda suffix: suffix == path.suffix):
        write_bytes(path.with_suffix(suffix), files[suffix])
