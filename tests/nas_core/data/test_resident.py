"""Crops of images on a device are those of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from nas_core.data.prepared import Split
from nas_core.data.resident import SHARE_OF_FREE, ResidentImages
from nas_core.data.transforms import augmented_batch
from nas_core.models.compute import Compute
from nas_core.models.encoder import IMAGENET_STD

CPU = torch.device("cpu")
CPU_SEND = Compute(CPU, bf16=False).send
IGNORED = 255


def split_of(sizes: list[tuple[int, int]], seed: int = 0) -> Split:
    """Scenes with structure of many sizes: noise that is enlarged."""
    rng = np.random.default_rng(seed)
    images, masks = [], []
    for height, width in sizes:
        coarse = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        images.append(
            np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        )
        masks.append(rng.integers(0, 4, (height, width), dtype=np.uint8))
    names = tuple(str(number) for number in range(len(sizes)))
    return Split(images, masks, names, names)


def both(
    split: Split, rows: list[int], crop: tuple[int, int], low: float, high: float, jitter: float
):
    height, width = crop
    expected = augmented_batch(
        split, rows, height=height, width=width, min_scale=low, max_scale=high, jitter=jitter,
        ignore_index=IGNORED, generator=torch.Generator().manual_seed(5),
    )  # fmt: skip
    resident = ResidentImages([split], CPU, IGNORED)
    found = resident.batch(
        torch.tensor(rows), torch.Generator().manual_seed(5), CPU_SEND,
        height=height, width=width, min_scale=low, max_scale=high, jitter=jitter,
    )  # fmt: skip
    return expected, found


@pytest.mark.parametrize("jitter", [0.0, 0.4])
@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 1.0), (0.4, 0.6), (0.5, 2.0), (1.5, 3.0), (0.05, 0.1)]
)
def test_crops_are_those_of_the_cpu(low: float, high: float, jitter: float) -> None:
    split = split_of([(60, 80), (40, 100), (72, 72), (33, 47)])
    (images, masks), (found, labels) = both(
        split, [0, 1, 2, 3, 2, 0, 1, 3], (48, 64), low, high, jitter
    )
    assert found.shape == images.shape and found.dtype == images.dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    levels = (found - images).abs() * torch.tensor(IMAGENET_STD)[:, None, None] * 255
    # torchvision resizes uint8 in fixed point, and colours multiply what it rounds otherwise.
    assert levels.max() <= (6 if jitter else 1.01)
    assert levels.mean() < 0.4
    assert torch.equal(labels == IGNORED, masks == IGNORED)
    # Where the middle of a pixel lies between two, rounding decides.
    assert (labels == masks).float().mean() > 0.99


def test_rows_count_through_all_splits() -> None:
    first, second = split_of([(20, 24)] * 2), split_of([(16, 30)] * 3, seed=1)
    resident = ResidentImages([first, second], CPU, IGNORED)
    draws = torch.zeros(1, 7)
    draws[:, 3] = 0.9  # not mirrored
    _, masks = resident.crops(
        torch.tensor([3]), draws, height=16, width=30, min_scale=1, max_scale=1, jitter=0
    )
    assert np.array_equal(masks[0].numpy(), second.masks[1])
    assert ResidentImages.num_bytes([first, second]) == 5 * 20 * 30 * 4


def test_nothing_of_a_neighbour_or_of_the_canvas_is_shown() -> None:
    """Images of one colour each stay of it, whatever lies around them on the canvas."""
    images = [np.full((20, 30, 3), 200, np.uint8), np.full((40, 60, 3), 10, np.uint8)]
    masks = [np.zeros((20, 30), np.uint8), np.ones((40, 60), np.uint8)]
    resident = ResidentImages([Split(images, masks, ("a", "b"), ("a", "b"))], CPU, IGNORED)
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([0, 1] * 20)
    found, labels = resident.batch(
        rows, generator, CPU_SEND, height=24, width=24, min_scale=0.3, max_scale=2.5, jitter=0
    )
    for row, image, mask in zip(rows.tolist(), found, labels, strict=True):
        assert set(mask.unique().tolist()) <= {row, IGNORED}
        red = image[0][mask == row] * IMAGENET_STD[0] * 255 + 0.485 * 255
        assert torch.allclose(red, torch.full_like(red, [200.0, 10.0][row]), atol=0.01)


@pytest.mark.parametrize(
    ("free", "fraction", "allocated", "fits"),
    [
        (1.01, 1.0, 0, True),
        (0.99, 1.0, 0, False),
        (8.0, 1.01 / 8, 0, True),
        (8.0, 0.99 / 8, 0, False),  # one of eight that share the GPU
        (7.5, 1 / 4, 1.01, False),
    ],
)
def test_images_take_a_share_of_what_a_process_may_take(
    monkeypatch: pytest.MonkeyPatch, free: float, fraction: float, allocated: float, fits: bool
) -> None:
    class Placed(ResidentImages):
        def __init__(self, *of: object) -> None:
            pass

    split = split_of([(20, 24)] * 2)
    unit = ResidentImages.num_bytes([split]) / SHARE_OF_FREE
    for name, value in {
        "mem_get_info": (free * unit, 8 * unit),
        "get_per_process_memory_fraction": fraction,
        "memory_allocated": allocated * unit,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    found = Placed.on(torch.device("cuda"), [split], IGNORED)
    assert (found is not None) == fits
