"""What an architecture costs: parameters and multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas_core.genotype import Genotype
from nas_core.models.decoder import Decoder
from nas_core.models.encoder import Encoder


@dataclass(frozen=True)
class Cost:
    """The whole network's, encoder included.

    Attributes:
        num_parameters: trainable parameters.
        macs: multiply-accumulates of the convolutions for one image.
        output_size: height and width of the logits, before they are resized to the image.
    """

    num_parameters: int
    macs: int
    output_size: tuple[int, int]


def measure_cost(
    genotype: Genotype,
    *,
    num_classes: int,
    agg_size: int,
    sep_repeats: int,
    input_size: tuple[int, int],
) -> Cost:
    """The cost for one image of `input_size` (height, width). Computes shapes only, no values."""
    with torch.device("meta"):
        encoder = Encoder()
        decoder = Decoder(genotype, num_classes, agg_size, sep_repeats)
        image = torch.empty(1, 3, *input_size)
    network = nn.ModuleList([encoder, decoder]).eval()
    macs = 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal macs
        assert isinstance(module, nn.Conv2d)
        macs += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        height, width = decoder(encoder(image)).shape[2:]
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(num_parameters, macs, (height, width))
