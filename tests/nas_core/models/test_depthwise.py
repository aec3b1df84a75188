"""The depthwise convolution against torch's own in fp64, in every precision and layout."""

import json
import subprocess
import sys

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


# In a process of its own, as the fault may end it. What is wrong are values that were left unset,
# so several tries.
TORCHS_OWN = """
import json
import torch
from torch.nn import functional

def gradient(dtype):
    torch.manual_seed(0)
    features, weight = torch.randn(16, 48, {height}, {width}), torch.randn(48, 1, {k}, {k})
    features = features.to(dtype).contiguous(memory_format=torch.channels_last)
    weight = weight.to(dtype).requires_grad_()
    padding = {dilation} * ({k} // 2)
    out = functional.conv2d(features, weight, None, {stride}, padding, {dilation}, groups=48)
    of_out = torch.randn(out.shape).to(dtype).contiguous(memory_format=torch.channels_last)
    # What lies where the gradient will.
    [torch.full((length,), 7.0, dtype=dtype) for length in range(64, 8192, 32)]
    out.backward(of_out)
    return weight.grad.float()

exact = gradient(torch.float32)
errors = [float((gradient(torch.bfloat16) - exact).norm() / exact.norm()) for _ in range(8)]
print(json.dumps(max(errors, key=lambda error: error if error == error else float("inf"))))
"""


@pytest.mark.xfail(
    reason="torch computes it wrong on this processor, so DepthwiseConv2d does it in another way. "
    "Where this passes and the processor has bf16, torch's fault is mended and the way can go"
)
@pytest.mark.parametrize(
    ("height", "width", "k", "stride", "dilation"),
    [(24, 40, 3, 1, 3), (6, 1, 5, 2, 1)],
    ids=["dilated", "stride 2, width 1"],
)
def test_torchs_own_gradient_of_the_weight_in_bf16(
    height: int, width: int, k: int, stride: int, dilation: int
) -> None:
    code = TORCHS_OWN.format(height=height, width=width, k=k, stride=stride, dilation=dilation)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0
    assert json.loads(found.stdout) < TOLERANCE["bf16"]
