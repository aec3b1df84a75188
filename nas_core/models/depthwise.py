"""Depthwise convolutions that are right and fast.

PyTorch 2.14's depthwise convolutions are fast on the CPU in channels_last, but for these gaps:
- Dilation: forward and backward take several times as long as without, and in bf16 the weight's
  gradient is garbage on maps wider than the padding, at times NaN or a crash.
- 5x5: the weight's gradient takes more time than all the rest, in bf16 twice that of fp32.
- Stride 2 in bf16: the input's gradient takes over ten times as long as in fp32, and the
  weight's is garbage on maps of width 1.
So a dilated convolution is carried out as an undilated one on its phases, the gradient of a 5x5
kernel as that of four 3x3 kernels or, on maps as small as phases are, from the products of all
pairs of pixels (a fifth to a third of the time), and the input's gradient with a stride in fp32.

On a GPU, where cuDNN's kernels for dilation are slow in channels_last, phases do without them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

# On maps of 12 and 30 pixels pairs are faster than four kernels, on 108 slower.
_FEW_PIXELS = 32


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution without bias, "same" padding: (N, C, H, W) to (N, C, H/s, W/s).

    The stride s must divide the dilation, or the dilation be 1.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int, dilation: int = 1) -> None:
        super().__init__(
            channels,
            channels,
            kernel_size,
            stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=channels,
            bias=False,
        )

    def forward(self, input: Tensor) -> Tensor:
        device, dtype = input.device.type, input.dtype
        # fp64 has none of the fast kernels.
        if device not in ("cpu", "cuda") or dtype == torch.float64:
            return super().forward(input)
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        features, weight = input.to(dtype), self.weight.to(dtype)
        stride, dilation = self.stride[0], self.dilation[0]
        convolve = _Depthwise.apply if device == "cpu" else _convolve
        if dilation == 1:
            return convolve(features, weight, stride)
        # All taps of a kept output lie on the rows and columns that the stride keeps.
        features = features[:, :, ::stride, ::stride]
        num_phases = dilation // stride
        phases = split_phases(features, num_phases)
        return join_phases(convolve(phases, weight, 1), num_phases, features.shape)


def plain_convolutions(network: nn.Module) -> nn.Module:
    """A network whose `DepthwiseConv2d`s are made torch's; weights and names stay."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DepthwiseConv2d):
                with torch.device("meta"):
                    plain = nn.Conv2d(
                        child.in_channels,
                        child.out_channels,
                        child.kernel_size[0],
                        child.stride[0],
                        padding=child.dilation[0] * (child.kernel_size[0] // 2),
                        dilation=child.dilation[0],
                        groups=child.groups,
                        bias=False,
                    )
                plain.weight = child.weight
                setattr(parent, name, plain)
    return network


def split_phases(features: Tensor, num_phases: int) -> Tensor:
    """(N, C, H, W) to (d * d * N, C, H/d, W/d) in channels_last, d being `num_phases`.

    An image of the result holds every d-th row and column of one of the input; neighbours in it
    are d apart in the input. Zeros fill H and W up to multiples of d.
    """
    batch, channels, height, width = features.shape
    d = num_phases
    padded = functional.pad(features, (0, -width % d, 0, -height % d))
    rows, columns = padded.shape[2] // d, padded.shape[3] // d
    grid = padded.permute(0, 2, 3, 1).reshape(batch, rows, d, columns, d, channels)
    phases = grid.permute(2, 4, 0, 1, 3, 5).reshape(d * d * batch, rows, columns, channels)
    return phases.permute(0, 3, 1, 2)


def join_phases(phases: Tensor, num_phases: int, shape: torch.Size) -> Tensor:
    """The inverse of `split_phases`, cut to `shape` (N, C, H, W)."""
    batch, channels, height, width = shape
    d = num_phases
    rows, columns = phases.shape[2:]
    grid = phases.permute(0, 2, 3, 1).reshape(d, d, batch, rows, columns, channels)
    joined = grid.permute(2, 3, 0, 4, 1, 5).reshape(batch, rows * d, columns * d, channels)
    return joined[:, :height, :width].permute(0, 3, 1, 2)


def _convolve(features: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Depthwise, "same" padding: (N, C, H, W) with (C, 1, k, k) to (N, C, H/stride, W/stride)."""
    padding = weight.shape[2] // 2
    return functional.conv2d(features, weight, None, stride, padding, groups=len(weight))


class _Depthwise(torch.autograd.Function):
    """`_convolve` with gradients that are right and fast on the CPU."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.stride = stride
        return _convolve(features, weight, stride)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_features = of_weight = None
        if ctx.needs_input_grad[0]:
            of_features = _features_gradient(gradient, features, weight, ctx.stride)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(gradient, features, weight, ctx.stride)
        return of_features, of_weight, None


def _features_gradient(gradient: Tensor, features: Tensor, weight: Tensor, stride: int) -> Tensor:
    padding = weight.shape[2] // 2
    if stride == 1:
        return _gradient("features", gradient, features, weight, stride, padding)
    # The values of the features make no difference to their gradient.
    empty = torch.empty_like(features, dtype=torch.float32)
    result = _gradient("features", gradient.float(), empty, weight.float(), stride, padding)
    return result.to(features.dtype)


def _weight_gradient(gradient: Tensor, features: Tensor, weight: Tensor, stride: int) -> Tensor:
    kernel_size = weight.shape[2]
    padding = kernel_size // 2
    if kernel_size == 3 and stride == 1:
        return _gradient("weight", gradient, features, weight, stride, padding)
    if features.shape[2] * features.shape[3] <= _FEW_PIXELS:
        return _weight_gradient_by_pairs(gradient, features, kernel_size, stride)
    # Zeros that are there instead of implied: with implied ones the entries of the kernel that
    # meet nothing else (in a map of width 1) are left unset in bf16.
    padded = functional.pad(features, (padding,) * 4)
    height = (gradient.shape[2] - 1) * stride + 3
    width = (gradient.shape[3] - 1) * stride + 3
    # The four 3x3 corners of a 5x5 gradient overlap in its middle row and column.
    corners = (0,) if kernel_size == 3 else (0, 2)
    result = torch.empty_like(weight)
    for top in corners:
        for left in corners:
            window = padded[:, :, top : top + height, left : left + width]
            window = window.contiguous(memory_format=torch.channels_last)
            kernel = weight[:, :, top : top + 3, left : left + 3]
            corner = _gradient("weight", gradient, window, kernel, stride, padding=0)
            result[:, :, top : top + 3, left : left + 3] = corner
    return result


def _weight_gradient_by_pairs(
    gradient: Tensor, features: Tensor, kernel_size: int, stride: int
) -> Tensor:
    """From the products of all pixels of the output with all of the input, summed over images.

    The copies let each channel have one matrix product; without them torch makes many.
    """
    batch, channels, height, width = features.shape
    inputs, outputs = (
        pixels.permute(0, 2, 3, 1).reshape(-1, channels).T.contiguous().view(channels, batch, -1)
        for pixels in (features, gradient)
    )
    products = (outputs.transpose(1, 2) @ inputs).float().flatten(1)
    meets = _pairs(tuple(gradient.shape[2:]), (height, width), kernel_size, stride)
    result = products @ meets
    return result.to(features.dtype).view(channels, 1, kernel_size, kernel_size)


@cache
def _pairs(
    outputs: tuple[int, ...], inputs: tuple[int, ...], kernel_size: int, stride: int
) -> Tensor:
    """Which entry of a kernel joins which pixels: 1 or 0, (outputs * inputs, k * k)."""
    reach = kernel_size // 2
    # Of each axis, (outputs, inputs, k).
    rows, columns = (
        (
            torch.arange(num_inputs)[:, None]
            == stride * torch.arange(num_outputs)[:, None, None] + torch.arange(-reach, reach + 1)
        )
        for num_outputs, num_inputs in zip(outputs, inputs, strict=True)
    )
    joined = rows[:, None, :, None, :, None] & columns[None, :, None, :, None, :]
    return joined.reshape(-1, kernel_size**2).float()


def _gradient(
    of: Literal["features", "weight"],
    gradient: Tensor,
    features: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
) -> Tensor:
    of_features, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        features,
        weight,
        None,
        [stride, stride],
        [padding, padding],
        [1, 1],
        False,
        [0, 0],
        len(weight),
        [of == "features", of == "weight", False],
    )
    wanted: Tensor = of_features if of == "features" else of_weight
    return wanted
