"""A captured network beside one that runs as it is."""

import copy

import pytest
import torch
from torch import nn

from nas_core.config import ComputeSettings
from nas_core.models.compute import Compute
from nas_core.models.decoder import Decoder
from nas_core.models.encoder import Encoder
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training.cuda_graphs import GraphedNetwork


def step(network: nn.Module, forward, images: torch.Tensor) -> list[torch.Tensor]:
    """Logits, gradients and buffers after one forward and backward pass."""
    logits = forward(images)
    logits.square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    return [logits.detach(), *gradients, *network.buffers()]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_captured_segmenter_computes_the_same(precision: str) -> None:
    compute = Compute.from_settings(ComputeSettings(precision=precision))
    torch.manual_seed(0)
    network = compute.place(Segmenter(Encoder(), Decoder(ARCHITECTURES["arch0"], 11, 64, 2)))
    other = copy.deepcopy(network)
    captured = GraphedNetwork(network)
    tolerance = 1e-3 if precision == "fp32" else 3e-2
    for _ in range(3):
        images = compute.send(torch.randn(4, 3, 96, 128))
        # TF32 has 10 bits of mantissa: its rounding is as large as the tolerance.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), compute.autocast():
            found = step(network, captured, images)
            expected = step(other, other, images)
        for value, reference in zip(found, expected, strict=True):
            distance = torch.linalg.vector_norm((value - reference).float())
            assert distance <= tolerance * torch.linalg.vector_norm(reference.float()) + 1e-6
        network.zero_grad()
        other.zero_grad()
    assert captured.captured
    network.eval(), other.eval()
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        torch.testing.assert_close(network(images), other(images), atol=1e-3, rtol=1e-3)
