"""Operations and aggregations: shapes, parameters, values and gradients."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from nas_core.models.operations import concatenate, make_aggregation, make_operation
from nas_core.space.genotype import AGGREGATIONS, OPERATIONS

# Large enough for the wrong gradient of dilated convolutions in bf16 to show without a remedy.
SIZE = (36, 29)
IN_CHANNELS = 6
# Relative. In bf16 some ReLUs open or close: two in a row make errors of 0.1 in float64's view,
# with torch's own convolutions too. A wrong gradient is off by 1 and more.
TOLERANCE = {"fp32": 1e-4, "bf16": 0.2}
NUM_PARAMETERS = {
    "sep_conv_3x3": lambda i, o: i * 9 + i * o + 2 * o,
    "sep_conv_5x5": lambda i, o: i * 25 + i * o + 2 * o,
    "global_average_pool": lambda i, o: i * o + 2 * o,
    "max_pool_3x3": lambda i, o: i * o + 2 * o,
    "sep_conv_5x5_dil6": lambda i, o: i * 25 + i * o + 2 * o,
    "skip_connect": lambda i, o: 0,
}


def relative_error(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact).norm() / exact.norm())


def check_gradients(module: nn.Module, inputs: list[Tensor], precision: str, layout: str) -> None:
    """Compare outputs and all gradients in training mode with those of a copy in fp64."""
    exact_module = copy.deepcopy(module).double()
    exact_inputs = [tensor.double().requires_grad_() for tensor in inputs]
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    module = module.to(memory_format=memory_format)
    inputs = [tensor.contiguous(memory_format=memory_format).requires_grad_() for tensor in inputs]
    exact = exact_module(*exact_inputs)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        output = module(*inputs)
    # Not of mean zero, lest the sums over space cancel and leave the rounding.
    gradient = 1 + torch.randn(exact.shape)
    exact.backward(gradient.double())
    output.backward(gradient.to(output.dtype))

    assert output.shape == exact.shape
    pairs = [("output", output, exact)]
    pairs += [
        (f"input {index}", tensor.grad, reference.grad)
        for index, (tensor, reference) in enumerate(zip(inputs, exact_inputs, strict=True))
    ]
    pairs += [
        (name, parameter.grad, reference.grad)
        for (name, parameter), reference in zip(
            module.named_parameters(), exact_module.parameters(), strict=True
        )
    ]
    for name, value, reference in pairs:
        assert value is not None, name
        assert relative_error(value.detach(), reference.detach()) < TOLERANCE[precision], name


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_right(name: str, stride: int, precision: str, layout: str) -> None:
    torch.manual_seed(0)
    operation = make_operation(name, IN_CHANNELS, IN_CHANNELS * stride, stride, sep_repeats=2)
    check_gradients(operation, [torch.randn(4, IN_CHANNELS, *SIZE)], precision, layout)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", AGGREGATIONS)
def test_aggregations_are_right(name: str, precision: str, layout: str) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(4, IN_CHANNELS, *SIZE) for _ in range(2)]
    check_gradients(make_aggregation(name, IN_CHANNELS), inputs, precision, layout)


@pytest.mark.parametrize("sep_repeats", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_shapes_and_parameters(name: str, stride: int, sep_repeats: int) -> None:
    out_channels = IN_CHANNELS * stride
    operation = make_operation(name, IN_CHANNELS, out_channels, stride, sep_repeats)
    divisor = 1 if name in ("global_average_pool", "skip_connect") else stride
    expected = NUM_PARAMETERS[name](IN_CHANNELS, out_channels)
    if name.startswith("sep_conv") and sep_repeats == 2:
        divisor = stride**2
        expected += NUM_PARAMETERS[name](out_channels, out_channels)
    output = operation(torch.randn(2, IN_CHANNELS, *SIZE))
    assert output.shape == (2, out_channels, *(math.ceil(side / divisor) for side in SIZE))
    assert sum(parameter.numel() for parameter in operation.parameters()) == expected


def test_global_average_pool_spreads_one_value_a_channel() -> None:
    operation = make_operation("global_average_pool", 3, 3, 1, 1).eval()
    features = torch.randn(1, 3, 4, 5)
    output = operation(features)
    assert output.shape == features.shape
    assert torch.equal(output, output[:, :, :1, :1].expand_as(output))
    mean = operation(features.mean((2, 3), keepdim=True))
    torch.testing.assert_close(output[:, :, :1, :1], mean)


def test_global_average_pool_refuses_to_train_on_one_image() -> None:
    operation = make_operation("global_average_pool", 3, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        operation(torch.randn(1, 3, 4, 5))


def test_skip_connect_tiles_the_channels() -> None:
    features = torch.randn(1, 3, 4, 5)
    assert torch.equal(make_operation("skip_connect", 3, 3, 1, 1)(features), features)
    tiled = make_operation("skip_connect", 3, 6, 2, 1)(features)
    assert torch.equal(tiled, features.repeat(1, 2, 1, 1))


def test_max_pool_has_no_relu() -> None:
    torch.manual_seed(0)
    operation = make_operation("max_pool_3x3", 4, 4, 1, 1)
    assert operation(torch.randn(2, 4, 6, 6)).min() < 0


def test_psum_starts_as_a_sum() -> None:
    x, y = torch.randn(2, 1, 3, 4, 5)
    torch.testing.assert_close(make_aggregation("psum", 3)(x, y), x + y)


def test_psum_keeps_bf16() -> None:
    x, y = torch.randn(2, 1, 3, 4, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert make_aggregation("psum", 3)(x, y).dtype == torch.bfloat16


def test_concatenation_hands_on_dense_gradients_of_each_part_s_type() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, 4, 5).requires_grad_(), torch.randn(2, 2, 4, 5).bfloat16()]
    parts[1].requires_grad_()
    joined = concatenate(parts)
    assert torch.equal(joined, torch.cat(parts, dim=1))
    gradient = torch.randn(joined.shape).to(memory_format=torch.channels_last)
    found = torch.autograd.grad(joined, parts, gradient)
    assert torch.equal(found[0], gradient[:, :3])
    assert torch.equal(found[1], gradient[:, 3:].bfloat16())
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in found)


def test_unknown_names_list_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"'conv'.*sep_conv_3x3, .*skip_connect"):
        make_operation("conv", 1, 1, 1, 1)
    with pytest.raises(ValueError, match=r"'add'.*psum, cat"):
        make_aggregation("add", 1)
