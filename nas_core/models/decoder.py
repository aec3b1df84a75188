"""The decoder that a genotype describes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.models.operations import (
    ConvBnRelu,
    concatenate,
    make_aggregation,
    make_operation,
)
from nas_core.space.genotype import (
    AGGREGATIONS,
    NUM_STRIDED_LAYERS,
    OPERATIONS,
    Genotype,
    Layer,
    Template,
)

TAP_CHANNELS = (24, 32)
"""Of MobileNetV2."""


class Application(nn.Module):
    """A template applied once: agg(op1(a), op2(b)), the sides adapted to each other.

    A side with fewer channels than the other goes through a 1x1 convolution; where the sizes
    differ, one side is resized: to the smaller size if `shrink`, else to the larger.
    """

    def __init__(
        self,
        template: Template,
        in_channels: tuple[int, int],
        op_channels: tuple[int, int],
        stride: int,
        sep_repeats: int,
        shrink: bool,
    ) -> None:
        super().__init__()
        self.out_channels = max(op_channels)
        self.shrink = shrink
        names = (OPERATIONS[template.op1], OPERATIONS[template.op2])
        self.op1, self.op2 = (
            make_operation(name, channels, out, stride, sep_repeats)
            for name, channels, out in zip(names, in_channels, op_channels, strict=True)
        )
        self.adapt1, self.adapt2 = (
            nn.Identity() if out == self.out_channels else ConvBnRelu(out, self.out_channels)
            for out in op_channels
        )
        self.aggregate = make_aggregation(AGGREGATIONS[template.agg], self.out_channels)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, C_a, H_a, W_a) and (N, C_b, H_b, W_b) to (N, out_channels, h, w)."""
        x = self.adapt1(self.op1(a))
        y = self.adapt2(self.op2(b))
        choose = min if self.shrink else max
        size = choose(x.shape[2:], y.shape[2:])
        joined: Tensor = self.aggregate(resize(x, size), resize(y, size))
        return joined


class DecoderLayer(nn.Module):
    """A template applied `layer.repeats` times, with weights of its own each time."""

    def __init__(
        self,
        layer: Layer,
        template: Template,
        in_channels: tuple[int, int],
        sep_repeats: int,
        shrink: bool,
    ) -> None:
        super().__init__()
        self.applications = nn.ModuleList()
        op_channels = (in_channels[0] * layer.stride, in_channels[1] * layer.stride)
        for _ in range(layer.repeats):
            application = Application(
                template, in_channels, op_channels, layer.stride, sep_repeats, shrink
            )
            self.applications.append(application)
            # Only the first application widens: the later ones keep the channels they are given.
            in_channels = op_channels = (in_channels[1], application.out_channels)
        self.out_channels = in_channels[1]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        for application in self.applications:
            a, b = b, application(a, b)
        return b


class Decoder(nn.Module):
    """Two feature maps of the encoder to logits.

    The modules are built layer by layer, so genotypes with one id draw equal initial weights
    from equal seeds.

    Args:
        genotype: the architecture.
        num_classes: channels of the logits.
        agg_size: channels between the head's two convolutions.
        sep_repeats: repeats inside a separable convolution.
        tap_channels: channels of the encoder's taps.
    """

    def __init__(
        self,
        genotype: Genotype,
        num_classes: int,
        agg_size: int,
        sep_repeats: int,
        tap_channels: tuple[int, int] = TAP_CHANNELS,
    ) -> None:
        super().__init__()
        self.inputs = [(layer.in1, layer.in2) for layer in genotype.structure]
        self.head_entries = [len(tap_channels) + index for index in genotype.head_inputs]
        self.layers = nn.ModuleList()
        channels = list(tap_channels)
        for index, layer in enumerate(genotype.structure):
            built = DecoderLayer(
                layer,
                genotype.templates[layer.template],
                (channels[layer.in1], channels[layer.in2]),
                sep_repeats,
                shrink=index < NUM_STRIDED_LAYERS,
            )
            self.layers.append(built)
            channels.append(built.out_channels)
        self.gather = ConvBnRelu(sum(channels[entry] for entry in self.head_entries), agg_size)
        self.classify = nn.Conv2d(agg_size, num_classes, 3, padding=1)

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """Taps (N, C1, H/4, W/4) and (N, C2, H/8, W/8) to logits (N, num_classes, h, w).

        h and w are the largest size among the layers that the head collects.
        """
        pool = list(taps)
        for (in1, in2), layer in zip(self.inputs, self.layers, strict=True):
            pool.append(layer(pool[in1], pool[in2]))
        collected = [pool[entry] for entry in self.head_entries]
        size = max(features.shape[2:] for features in collected)
        joined = concatenate([resize(features, size) for features in collected])
        gathered = self.gather(functional.relu(joined, inplace=True))
        logits: Tensor = self.classify(gathered)
        return logits


def resize(features: Tensor, size: torch.Size) -> Tensor:
    """Bilinear to `size` (height, width); the tensor itself where it has that size."""
    if features.shape[2:] == size:
        return features
    if features.is_meta:  # else torch computes with what is not there, for longer than all the rest
        return features.new_empty(*features.shape[:2], *size)
    return functional.interpolate(features, size=size, mode="bilinear", align_corners=False)
