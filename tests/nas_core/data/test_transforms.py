from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.data.prepared import Split, pictures_of
from nas_core.data.transforms import FILL, augmented_batch, normalise, resized
from nas_core.models.encoder import IMAGENET_MEAN, IMAGENET_STD

VOID = 11
HEIGHT, WIDTH = 24, 32


def random_split(count: int = 4) -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    masks = rng.integers(0, VOID, (count, HEIGHT, WIDTH), dtype=np.uint8)
    names = tuple(f"image_{index}" for index in range(count))
    return Split(images, masks, names, names)


def labelled_split() -> Split:
    """Four large areas whose grey value is 20 times the label, so that the two can be compared."""
    masks = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    masks[:, HEIGHT // 2 :] += 2
    masks[:, :, WIDTH // 2 :] += 7
    images = np.repeat(masks[..., None] * np.uint8(20), 3, axis=-1)
    return Split(images, masks, ("areas",), ("areas",))


def augment(
    split: Split, indices: list[int], seed: int = 0, **changes: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    options = {"height": 16, "width": 20, "min_scale": 1.0, "max_scale": 1.0, "jitter": 0.0}
    generator = torch.Generator().manual_seed(seed)
    return augmented_batch(
        split, indices, ignore_index=VOID, generator=generator, **(options | changes)
    )


def grey_values(images: torch.Tensor) -> torch.Tensor:
    """Undo `normalise`: (N, H, W, 3)."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (images.permute(0, 2, 3, 1) * std + mean) * 255


def test_normalise_is_imagenets_and_channels_last() -> None:
    images = random_split().images
    batch = normalise(images)
    expected = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255).double()
    for channel in range(3):
        expected[:, channel] -= IMAGENET_MEAN[channel]
        expected[:, channel] /= IMAGENET_STD[channel]
    torch.testing.assert_close(batch.double(), expected, atol=1e-6, rtol=1e-5)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalise(torch.from_numpy(images)), batch)


def test_normalise_leaves_its_input_alone() -> None:
    images = random_split().images
    before = images.copy()
    normalise(images)
    np.testing.assert_array_equal(images, before)


def test_without_any_change_a_crop_of_the_whole_is_the_image_or_its_mirror() -> None:
    split = random_split()
    images, masks = augment(split, [0, 1, 2, 3] * 4, height=HEIGHT, width=WIDTH)
    mirrored = 0
    for row, index in enumerate([0, 1, 2, 3] * 4):
        mask, image = torch.from_numpy(split.masks[index]), normalise(split.images[[index]])[0]
        flip = not torch.equal(masks[row], mask.long())
        mirrored += flip
        torch.testing.assert_close(images[row], image.flip(-1) if flip else image)
        assert torch.equal(masks[row], mask.flip(-1).long() if flip else mask.long())
    assert 3 <= mirrored <= 13


def test_shapes_types_and_layout() -> None:
    images, masks = augment(random_split(), [3, 0, 0], min_scale=0.5, max_scale=2.0, jitter=0.4)
    assert images.shape == (3, 3, 16, 20)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert masks.shape == (3, 16, 20)
    assert masks.dtype == torch.int64
    assert images.isfinite().all()


def test_what_is_shown_of_an_image_is_sent() -> None:
    sent: list[torch.Tensor] = []

    def send(tensor: torch.Tensor) -> torch.Tensor:
        sent.append(tensor)
        return tensor

    options = {"min_scale": 2.0, "max_scale": 2.0}
    expected = augment(random_split(), [2, 1], 4, **options)
    found = augment(random_split(), [2, 1], 4, send=send, **options)
    assert all(map(torch.equal, found, expected))
    shapes = [tuple(tensor.shape) for tensor in sent]
    assert shapes == [(2, 16, 20, 3), (2, 16, 20), *[(8, 10, 3), (8, 10)] * 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_makes_the_same_crops() -> None:
    options = {"min_scale": 0.5, "max_scale": 2.0, "jitter": 0.4}
    expected = augment(random_split(), [0, 1, 2, 3], 5, **options)
    found = augment(random_split(), [0, 1, 2, 3], 5, send=lambda one: one.cuda(), **options)
    # Rounding to whole grey values, several times in a row.
    torch.testing.assert_close(found[0].cpu(), expected[0], atol=4 / 57, rtol=0)
    assert torch.equal(found[1].cpu(), expected[1])


def test_the_generator_decides() -> None:
    split, options = random_split(), {"min_scale": 0.5, "max_scale": 2.0, "jitter": 0.4}
    first, again, other = (augment(split, [0, 1], seed, **options) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@given(
    seed=st.integers(0, 1000),
    scale=st.floats(0.3, 3.0),
    height=st.integers(8, 60),
    width=st.integers(8, 60),
)
@settings(max_examples=60)
def test_masks_stay_on_their_pixels_at_any_scale(
    seed: int, scale: float, height: int, width: int
) -> None:
    images, masks = augment(
        labelled_split(), [0], seed, min_scale=scale, max_scale=scale, height=height, width=width
    )
    shown = masks[0] != VOID
    # An image smaller than the crop is surrounded by void; any other fills it.
    assert shown.any(0).sum() == min(width, round(WIDTH * scale))
    assert shown.any(1).sum() == min(height, round(HEIGHT * scale))
    assert set(masks[0][shown].tolist()) <= {0, 2, 7, 9}
    values = grey_values(images)[0].mean(-1)
    matching = ((values - 20 * masks[0]).abs() < 1)[shown].float().mean()
    smooth = 2 * max(2.0, 3 * scale) / min(shown.any(0).sum(), shown.any(1).sum())
    assert matching > 1 - smooth, "only pixels beside an edge may be a mixture"
    mean_colour = 255 * torch.tensor(IMAGENET_MEAN)
    assert ((grey_values(images)[0][~shown] - mean_colour).abs() < 1).all()


def test_crops_reach_every_part_of_the_image() -> None:
    split = labelled_split()
    seen = [augment(split, [0], seed, height=6, width=6)[1].unique().tolist() for seed in range(40)]
    assert {label for labels in seen for label in labels} == {0, 2, 7, 9}


def test_small_images_lie_at_changing_places_in_the_crop() -> None:
    split = labelled_split()
    tops = {
        int((augment(split, [0], seed, height=30, width=40)[1][0] != VOID).any(1).nonzero()[0])
        for seed in range(40)
    }
    assert len(tops) > 4
    assert tops <= set(range(30 - HEIGHT + 1))


def test_jitter_changes_brightness_contrast_and_saturation_within_its_range() -> None:
    grey = np.full((1, HEIGHT, WIDTH, 3), 100, np.uint8)
    split = Split(grey, np.zeros((1, HEIGHT, WIDTH), np.uint8), ("grey",), ("grey",))
    means = [grey_values(augment(split, [0], seed, jitter=0.4)[0]).mean() for seed in range(60)]
    assert 59 <= min(means) < 75, "a plain grey image shows brightness alone"
    assert 125 < max(means) <= 141

    coloured = grey.copy()
    coloured[..., 0] = 150
    split = Split(coloured, split.masks, ("red",), ("red",))
    spreads = []
    for seed in range(60):
        red, green, blue = grey_values(augment(split, [0], seed, jitter=0.4)[0])[0, 0, 0]
        assert green == pytest.approx(float(blue), abs=1)
        spreads.append(float(red - green))
    assert min(spreads) < 30
    assert max(spreads) > 65


def test_masks_are_never_coloured() -> None:
    split = random_split()
    plain, jittered = (augment(split, [0, 1], jitter=jitter)[1] for jitter in (0.0, 0.9))
    assert torch.equal(plain, jittered)


def test_resized_keeps_the_picture() -> None:
    split = labelled_split()
    half = resized(split, HEIGHT // 2, WIDTH // 2)
    assert half.images.shape == (1, HEIGHT // 2, WIDTH // 2, 3)
    assert half.images.dtype == half.masks.dtype == np.uint8
    assert half.names == split.names
    np.testing.assert_array_equal(half.masks, split.masks[:, ::2, ::2])
    inside = np.ones(half.masks.shape[1:], bool)
    inside[HEIGHT // 4 - 1 : HEIGHT // 4 + 1] = inside[:, WIDTH // 4 - 1 : WIDTH // 4 + 1] = False
    np.testing.assert_array_equal(
        half.images[0][inside], np.repeat(20 * half.masks[0][inside][:, None], 3, 1)
    )


def test_resizing_averages_what_it_drops() -> None:
    stripes = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    stripes[:, :, ::2] = 200
    split = Split(stripes, np.zeros((1, HEIGHT, WIDTH), np.uint8), ("stripes",), ("s",))
    inner = resized(split, HEIGHT // 4, WIDTH // 4).images[0, 1:-1, 1:-1]
    assert (abs(inner.astype(int) - 100) <= 8).all()


def mixed_split() -> Split:
    """A frame of 20x40, half of it, and one as tall as it is wide; each of one colour and label."""
    sizes = [(20, 40), (10, 20), (30, 30)]
    images = [np.full((*size, 3), 60 * (row + 1), np.uint8) for row, size in enumerate(sizes)]
    masks = [np.full(size, row, np.uint8) for row, size in enumerate(sizes)]
    return Split(pictures_of(images), pictures_of(masks), ("a", "b", "c"), ("a", "b", "c"))


def test_images_of_other_proportions_are_not_stretched_when_resized() -> None:
    small = resized(mixed_split(), 12, 20, frame=(20, 40), ignore_index=9)
    for row in (0, 1):
        assert (small.images[row] == 60 * (row + 1)).all()
        assert (small.masks[row] == row).all()
    # 30x30 in 20x40 is 20x20: a half of the width, in the upper left corner.
    assert (small.masks[2, :, :10] == 2).all() and (small.images[2, :, :10] == 180).all()
    assert (small.masks[2, :, 10:] == 9).all()
    assert (small.images[2, :, 10:] == FILL).all()
    only = resized(mixed_split(), 12, 20, np.array([2]), frame=(20, 40), ignore_index=9)
    np.testing.assert_array_equal(only.masks[0], small.masks[2])
    assert only.names == ("c",)


def test_crops_come_from_images_of_their_own_size() -> None:
    images, masks = augment(mixed_split(), [0, 1, 2], height=24, width=48)
    for row in range(3):
        assert {*masks[row].unique().tolist()} <= {row, VOID}
        assert (masks[row] == row).any()
    assert images.shape == (3, 3, 24, 48)


def test_resized_to_its_own_size_is_the_split_itself() -> None:
    split = random_split()
    assert resized(split, HEIGHT, WIDTH) is split
