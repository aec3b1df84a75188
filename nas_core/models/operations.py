"""The six operations and two aggregations that templates are made of.

Exact definitions: arXiv 1904.02365 and the behaviour of its authors' public implementation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.models.depthwise import DepthwiseConv2d
from nas_core.space.genotype import AGGREGATIONS, OPERATIONS


class ConvBnRelu(nn.Sequential):
    """1x1 convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            OrderedDict(
                conv=nn.Conv2d(in_channels, out_channels, 1, bias=False),
                bn=nn.BatchNorm2d(out_channels),
                relu=nn.ReLU(inplace=True),
            )
        )


class SeparableConv(nn.Sequential):
    """`sep_repeats` times depthwise (with the stride each time), 1x1 convolution, BN, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        sep_repeats: int,
        kernel_size: int,
        dilation: int = 1,
    ) -> None:
        blocks: list[nn.Module] = []
        for index in range(sep_repeats):
            channels = in_channels if index == 0 else out_channels
            blocks.append(DepthwiseConv2d(channels, kernel_size, stride, dilation))
            blocks.append(ConvBnRelu(channels, out_channels))
        super().__init__(*blocks)


class MaxPool(nn.Sequential):
    """1x1 convolution without bias, batch norm, 3x3 max pool with the stride."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(
            OrderedDict(
                conv=nn.Conv2d(in_channels, out_channels, 1, bias=False),
                bn=nn.BatchNorm2d(out_channels),
                pool=nn.MaxPool2d(3, stride, padding=1),
            )
        )


class GlobalAveragePool(ConvBnRelu):
    """Mean over space, 1x1 convolution, BN, ReLU, spread back over the input's size.

    Its batch norm sees one value per image and channel, so training needs two images or more in
    a batch; with one torch raises ValueError.
    """

    def forward(self, input: Tensor) -> Tensor:
        mean = input.mean((2, 3), keepdim=True)
        scaled: Tensor = super().forward(mean)  # type: ignore[no-untyped-call]
        return scaled.expand(-1, -1, *input.shape[2:])


class SkipConnect(nn.Module):
    """The input, tiled along its channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.num_tiles = out_channels // in_channels

    def forward(self, input: Tensor) -> Tensor:
        return input if self.num_tiles == 1 else concatenate([input] * self.num_tiles)


class WeightedSum(nn.Module):
    """alpha * x + beta * y with a learnable alpha and beta for each channel ("psum")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels, 1, 1))
        self.beta = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        # In bf16, products with the fp32 weights would make all that follows fp32.
        return self.alpha.to(x.dtype) * x + self.beta.to(y.dtype) * y


class Concatenation(nn.Module):
    """Concatenate, BN, ReLU, 1x1 convolution without bias back to `channels` ("cat")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(2 * channels)
        self.conv = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        joined: Tensor = self.bn(concatenate([x, y]))
        mixed: Tensor = self.conv(functional.relu(joined, inplace=True))
        return mixed


def concatenate(features: Sequence[Tensor]) -> Tensor:
    """Join (N, C_i, H, W) along the channels.

    On the CPU with dense gradients: those of torch.cat are windows of its own, in which the
    backward pass of `resize` takes eight times as long, and that of a convolution twice.
    """
    if features[0].device.type != "cpu":
        return torch.cat(list(features), dim=1)
    joined: Tensor = _Concatenate.apply(*features)
    return joined


class _Concatenate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *features: Tensor) -> Tensor:
        ctx.channels = [part.shape[1] for part in features]
        ctx.dtypes = [part.dtype for part in features]
        return torch.cat(features, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            part.to(dtype).contiguous(memory_format=torch.channels_last)
            for part, dtype in zip(gradients[0].split(ctx.channels, dim=1), ctx.dtypes, strict=True)
        )


def make_operation(
    name: str, in_channels: int, out_channels: int, stride: int, sep_repeats: int
) -> nn.Module:
    """The operation of this name (one of `OPERATIONS`): (N, in, H, W) to (N, out, h, w).

    h and w are H and W divided by the stride (by stride ** sep_repeats for separable
    convolutions), rounded up; global_average_pool and skip_connect ignore the stride.
    """
    if name == "sep_conv_3x3":
        return SeparableConv(in_channels, out_channels, stride, sep_repeats, kernel_size=3)
    if name == "sep_conv_5x5":
        return SeparableConv(in_channels, out_channels, stride, sep_repeats, kernel_size=5)
    if name == "sep_conv_5x5_dil6":
        return SeparableConv(in_channels, out_channels, stride, sep_repeats, 5, dilation=6)
    if name == "max_pool_3x3":
        return MaxPool(in_channels, out_channels, stride)
    if name == "global_average_pool":
        return GlobalAveragePool(in_channels, out_channels)
    if name == "skip_connect":
        return SkipConnect(in_channels, out_channels)
    raise ValueError(f"unknown operation {name!r}; there are: {', '.join(OPERATIONS)}")


def make_aggregation(name: str, channels: int) -> nn.Module:
    """The aggregation of this name (one of `AGGREGATIONS`) of two (N, channels, H, W)."""
    if name == "psum":
        return WeightedSum(channels)
    if name == "cat":
        return Concatenation(channels)
    raise ValueError(f"unknown aggregation {name!r}; there are: {', '.join(AGGREGATIONS)}")
