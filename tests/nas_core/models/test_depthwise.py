"""The depthwise convolution against torch's own in fp64, in every precision and layout."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas_core.models.depthwise import DepthwiseConv2d, join_phases, split_phases

CHANNELS = 8
TOLERANCE = {"fp32": 1e-5, "bf16": 3e-2}


def relative_error(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact).norm() / exact.norm())


DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("kernel_size", "dilation"), [(3, 1), (5, 1), (5, 6)], ids=["3x3", "5x5", "5x5_dil6"]
)
@pytest.mark.parametrize("size", [(48, 36), (13, 17), (3, 2), (1, 1)], ids=str)
def test_values_and_gradients(
    size: tuple[int, int],
    kernel_size: int,
    dilation: int,
    stride: int,
    precision: str,
    layout: str,
    device: str,
) -> None:
    torch.manual_seed(0)
    convolution = DepthwiseConv2d(CHANNELS, kernel_size, stride, dilation).to(device)
    features = torch.randn(3, CHANNELS, *size, device=device)
    if layout == "channels_last":
        convolution = convolution.to(memory_format=torch.channels_last)
        features = features.contiguous(memory_format=torch.channels_last)
    features.requires_grad_()
    exact_features = features.detach().double().requires_grad_()
    exact_weight = convolution.weight.detach().double().requires_grad_()
    padding = dilation * (kernel_size // 2)
    exact = functional.conv2d(
        exact_features, exact_weight, None, stride, padding, dilation, CHANNELS
    )
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        output = convolution(features)
    gradient = torch.randn(exact.shape, device=device)
    exact.backward(gradient.double())
    output.backward(gradient.to(output.dtype))

    assert output.shape == exact.shape
    assert output.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    for value, reference in [
        (output, exact),
        (features.grad, exact_features.grad),
        (convolution.weight.grad, exact_weight.grad),
    ]:
        assert value is not None
        assert reference is not None
        assert relative_error(value.detach(), reference.detach()) < TOLERANCE[precision]


def test_no_gradient_is_computed_for_what_is_frozen() -> None:
    convolution = DepthwiseConv2d(CHANNELS, 5, 1)
    convolution.weight.requires_grad_(False)
    features = torch.randn(2, CHANNELS, 6, 6, requires_grad=True)
    convolution(features).sum().backward()
    assert features.grad is not None
    assert convolution.weight.grad is None
    assert not convolution(features.detach()).requires_grad


def test_phases_hold_every_dth_pixel_and_join_again() -> None:
    features = torch.arange(2 * 3 * 7 * 10.0).reshape(2, 3, 7, 10)
    phases = split_phases(features, 3)
    assert phases.shape == (18, 3, 3, 4)
    assert torch.equal(phases[:2, :, :, :4], features[:, :, ::3, ::3])
    assert torch.equal(join_phases(phases, 3, features.shape), features)
