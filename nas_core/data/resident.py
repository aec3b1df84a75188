"""Training images that lie on a GPU, and random crops of a whole batch of them in a few kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

import torch
from torch import Tensor

from nas_core.data.prepared import Split
from nas_core.data.transforms import FILL, NUM_DRAWS, Crops, normalised, on_device

SHARE_OF_FREE = 0.25
"""Of the free memory that a process may take of a GPU; the training needs the rest."""
# Of red, green and blue in a grey value, as torchvision weighs them (ITU-R BT.601).
_GREY = (0.2989, 0.587, 0.114)


class ResidentImages:
    """The images and masks of splits on a device, as uint8, on a canvas of the largest size.

    A crop is cut, scaled and mirrored by two matrix products, which torchvision's antialiased
    resizing of an image amounts to. So a batch takes the same few kernels whatever the number of
    its images, and no value is read back.

    Args:
        ignore_index: the label of what is no image.
    """

    def __init__(self, splits: Sequence[Split], device: torch.device, ignore_index: int) -> None:
        self.ignore_index = ignore_index
        number, height, width = _canvas(splits)
        self.images = torch.zeros((number, 3, height, width), dtype=torch.uint8, device=device)
        self.masks = torch.full_like(self.images[:, 0], ignore_index)
        sizes = []
        pairs = (pair for split in splits for pair in zip(split.images, split.masks, strict=True))
        for row, (image, mask) in enumerate(pairs):
            height, width = mask.shape
            sizes.append((height, width))
            self.images[row, :, :height, :width] = torch.as_tensor(image).permute(2, 0, 1)
            self.masks[row, :height, :width] = torch.as_tensor(mask)
        self.sizes = torch.tensor(sizes, dtype=torch.float64, device=device)

    @classmethod
    def on(
        cls, device: torch.device, splits: Sequence[Split], ignore_index: int
    ) -> ResidentImages | None:
        """On a GPU that has room for them; else None: batches are made where the images are."""
        if device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(device)
        # Others may share the GPU, and come later.
        own = torch.cuda.get_per_process_memory_fraction(device.index) * total
        own -= torch.cuda.memory_allocated(device)
        if cls.num_bytes(splits) > SHARE_OF_FREE * min(free, own):
            return None
        return cls(splits, device, ignore_index)

    @staticmethod
    def num_bytes(splits: Sequence[Split]) -> int:
        number, height, width = _canvas(splits)
        return number * height * width * 4

    def batch(
        self,
        rows: Tensor,
        generator: torch.Generator,
        send: Callable[[Tensor], Tensor],
        **crops: Unpack[Crops],
    ) -> tuple[Tensor, Tensor]:
        """`crops` of the images of `rows`, with random numbers of a generator on the CPU.

        Args:
            send: moves rows and random numbers to the device.
        """
        draws = torch.rand((len(rows), NUM_DRAWS), generator=generator)
        return self.crops(send(rows), send(draws), **crops)

    def crops(
        self,
        rows: Tensor,
        draws: Tensor,
        *,
        height: int,
        width: int,
        min_scale: float,
        max_scale: float,
        jitter: float,
    ) -> tuple[Tensor, Tensor]:
        """As `transforms.augmented_batch` does it, up to the rounding of pixels.

        Args:
            rows: int64 (N,), which count through all splits.
            draws: float (N, `NUM_DRAWS`) from [0, 1).

        Returns:
            float32 (N, 3, height, width), normalised and channels_last, and int64
            (N, height, width).
        """
        scale_draw, down, across, mirror, *colours = draws.double().unbind(1)
        scale = min_scale + (max_scale - min_scale) * scale_draw
        lengths = self.sizes[rows]
        canvas = self.images.shape[2:]
        vertical = _Axis(lengths[:, 0], height, scale, down, None, canvas[0])
        horizontal = _Axis(lengths[:, 1], width, scale, across, mirror < 0.5, canvas[1])
        inside = vertical.inside[:, :, None] & horizontal.inside[:, None, :]
        images = vertical.weights[:, None] @ self.images[rows].float()
        images = (images @ horizontal.weights[:, None].transpose(2, 3)).round_()
        if jitter:
            factors = [1 + jitter * (2 * draw - 1) for draw in colours]
            images = _coloured(
                images, [one.float()[:, None, None, None] for one in factors], inside
            )
        images = torch.where(inside[:, None], images, on_device(FILL, images.device))
        masks = self.masks[
            rows[:, None, None], vertical.nearest[:, :, None], horizontal.nearest[:, None, :]
        ].long()
        return (
            normalised(images).contiguous(memory_format=torch.channels_last),
            masks.masked_fill_(~inside, self.ignore_index),
        )


class _Axis:
    """What a crop's rows, or columns, show of each image's.

    Attributes:
        inside: bool (N, crop): where the scaled image is.
        weights: float32 (N, crop, canvas): of the pixels of the image in those of the crop.
        nearest: int64 (N, crop): the pixel of the image that one of the crop's mask shows.
    """

    def __init__(
        self,
        length: Tensor,
        crop: int,
        scale: Tensor,
        draw: Tensor,
        mirrored: Tensor | None,
        canvas: int,
    ) -> None:
        # See `transforms._window`.
        scaled = (length * scale).round().clamp(min=1)
        fits = scaled <= crop
        cut = torch.minimum(length, (crop / scale).round().clamp(min=1))
        shown = torch.where(fits, length, cut)
        start = torch.where(fits, 0.0, (draw * (length - cut + 1)).floor())
        target = torch.where(fits, scaled, float(crop))
        begin = torch.where(fits, (draw * (crop - scaled + 1)).floor(), 0.0)

        place = torch.arange(crop, dtype=torch.float64, device=length.device) - begin[:, None]
        self.inside = (place >= 0) & (place < target[:, None])
        if mirrored is not None:
            place = torch.where(mirrored[:, None], target[:, None] - 1 - place, place)
        ratio = (shown / target)[:, None]
        centre = start[:, None] + (place + 0.5) * ratio
        pixels = torch.arange(canvas, dtype=torch.float64, device=length.device)
        # A triangle over the pixels that one of the crop covers, or two where it is enlarged.
        reach = ratio.clamp(min=1)[:, :, None]
        weights = 1 - (pixels + 0.5 - centre[:, :, None]).abs() / reach
        within = (pixels >= start[:, None]) & (pixels < (start + shown)[:, None])
        weights = weights.clamp_(min=0) * within[:, None, :]
        self.weights = (weights / weights.sum(2, keepdim=True).clamp(min=1e-9)).float()
        last = (start + shown - 1)[:, None]
        self.nearest = centre.floor().clamp(start[:, None], last).long()


def _coloured(images: Tensor, factors: Sequence[Tensor], inside: Tensor) -> Tensor:
    """Brightness, contrast, saturation in whole numbers, as torchvision changes uint8 images."""
    brightness, contrast, saturation = factors
    images = _whole(images * brightness)
    shown = inside[:, None]
    grey = (_grey(images).floor() * shown).sum((1, 2, 3), keepdim=True)
    mean = grey / shown.sum((1, 2, 3), keepdim=True)
    images = _whole(contrast * images + (1 - contrast) * mean)
    return _whole(saturation * images + (1 - saturation) * _grey(images).floor())


def _grey(images: Tensor) -> Tensor:
    return (images * on_device(_GREY, images.device)).sum(1, keepdim=True)


def _whole(values: Tensor) -> Tensor:
    return values.clamp(0, 255).floor()


def _canvas(splits: Sequence[Split]) -> tuple[int, int, int]:
    """The number of images, and the largest height and width."""
    sizes = [mask.shape for split in splits for mask in split.masks]
    return len(sizes), max(height for height, _ in sizes), max(width for _, width in sizes)
