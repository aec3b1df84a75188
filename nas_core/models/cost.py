"""What an architecture costs: parameters and multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from nas_core.config import DEFAULT_ENCODER, NetworkSettings
from nas_core.models.decoder import Decoder
from nas_core.models.encoder import Encoder
from nas_core.space.genotype import Genotype

Shape = tuple[int, int, int]
"""Channels, height, width."""


class Form(TypedDict):
    """What a network's cost depends on beside its genotype; see `Decoder`."""

    num_classes: int
    agg_size: int
    sep_repeats: int
    encoder: str


def form_of(network: NetworkSettings, num_classes: int) -> Form:
    """That of the networks that the settings are of."""
    return Form(
        num_classes=num_classes,
        agg_size=network.agg_size,
        sep_repeats=network.sep_repeats,
        encoder=network.encoder,
    )


@dataclass(frozen=True)
class Cost:
    """The whole network's, encoder included.

    Attributes:
        num_parameters: trainable parameters.
        macs: multiply-accumulates of the convolutions for one image.
        output_size: height and width of the logits, before they are resized to the image.
        pool_shapes: of the taps, then of the layers' outputs.
    """

    num_parameters: int
    macs: int
    output_size: tuple[int, int]
    pool_shapes: tuple[Shape, ...]


def measure_cost(
    genotype: Genotype,
    *,
    num_classes: int,
    agg_size: int,
    sep_repeats: int,
    input_size: tuple[int, int],
    encoder: str = DEFAULT_ENCODER,
) -> Cost:
    """The cost for one image of `input_size` (height, width). Computes shapes only, no values."""
    return _measure(genotype, num_classes, agg_size, sep_repeats, input_size, encoder)


@lru_cache(maxsize=1024)
def _measure(
    genotype: Genotype,
    num_classes: int,
    agg_size: int,
    sep_repeats: int,
    input_size: tuple[int, int],
    encoder: str,
) -> Cost:
    encoder_parameters, encoder_macs, taps = _encoder_cost(encoder, input_size)
    channels = (taps[0][1], taps[1][1])
    with torch.device("meta"):
        decoder = Decoder(genotype, num_classes, agg_size, sep_repeats, channels).eval()
    pool = list(taps)

    def keep_shape(module: nn.Module, inputs: Any, output: Tensor) -> None:
        pool.append(output.shape)

    for layer in decoder.layers:
        layer.register_forward_hook(keep_shape)
    macs, logits = _count_macs(decoder, [torch.empty(shape, device="meta") for shape in taps])
    _, _, height, width = logits.shape
    return Cost(
        encoder_parameters + num_parameters(decoder),
        encoder_macs + macs,
        (height, width),
        tuple((channels, high, wide) for _, channels, high, wide in pool),
    )


def count_parameters(
    genotype: Genotype,
    *,
    num_classes: int,
    agg_size: int,
    sep_repeats: int,
    encoder: str = DEFAULT_ENCODER,
) -> int:
    """`Cost.num_parameters` alone, in a fraction of the time."""
    encoder_parameters, channels = _encoder_size(encoder)
    with torch.device("meta"):
        decoder = Decoder(genotype, num_classes, agg_size, sep_repeats, channels)
    return encoder_parameters + num_parameters(decoder)


def encoder_cost(encoder: str, input_size: tuple[int, int]) -> tuple[int, int]:
    """Parameters and multiply-accumulates of an encoder, less than which no network has."""
    return _encoder_cost(encoder, input_size)[:2]


@cache
def _encoder_cost(name: str, input_size: tuple[int, int]) -> tuple[int, int, list[torch.Size]]:
    """Parameters, multiply-accumulates and the shapes of the taps; the same for all candidates."""
    with torch.device("meta"):
        encoder = Encoder(name).eval()
        image = torch.empty(1, 3, *input_size)
    macs, taps = _count_macs(encoder, image)
    return num_parameters(encoder), macs, [tap.shape for tap in taps]


@cache
def _encoder_size(name: str) -> tuple[int, tuple[int, int]]:
    """Parameters, and the channels of the taps."""
    with torch.device("meta"):
        encoder = Encoder(name)
    return num_parameters(encoder), encoder.tap_channels


def num_parameters(network: nn.Module) -> int:
    """Of all its parts."""
    return sum(parameter.numel() for parameter in network.parameters())


def _count_macs(network: nn.Module, inputs: Any) -> tuple[int, Any]:
    """Multiply-accumulates of the convolutions of a call, and its result.

    `network`, on the device meta, serves for nothing else afterwards.
    """
    macs = 0

    def convolve(module: nn.Conv2d, features: Tensor) -> Tensor:
        nonlocal macs
        assert not isinstance(module.padding, str)
        size = (
            (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for length, padding, dilation, kernel, stride in zip(
                features.shape[2:],
                module.padding,
                module.dilation,
                module.kernel_size,
                module.stride,
                strict=True,
            )
        )
        output = features.new_empty(len(features), module.out_channels, *size)
        macs += output.numel() * module.weight[0].numel()
        return output

    # On meta, torch takes half a second for what these do to values that nobody looks at.
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.forward = partial(convolve, module)  # type: ignore[method-assign]
        elif isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.ReLU6):
            module.forward = _same  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        outputs = network(inputs)
    return macs, outputs


def _same(features: Tensor) -> Tensor:
    return features
