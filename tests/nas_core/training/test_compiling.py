"""torch.compile and its fall-back, on a network small enough to compile here; CUDA graphs."""

import copy
import logging

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor

from nas_core.config import ComputeSettings
from nas_core.models.compute import Compute
from nas_core.models.decoder import Decoder
from nas_core.models.encoder import Encoder
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training.compiling import CompiledNetwork, GraphedNetwork


def small_network(width: int) -> nn.Module:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU6(), nn.Conv2d(width, 4, 1)
    )  # fmt: skip
    return nn.Sequential(*layers)


def step(network: nn.Module, forward, images: torch.Tensor) -> list[torch.Tensor]:
    """Logits, gradients and buffers after one forward and backward pass."""
    logits = forward(images)
    logits.square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    return [logits.detach(), *gradients, *network.buffers()]


def assert_steps_are_alike(network: nn.Module, images: torch.Tensor) -> CompiledNetwork:
    other = copy.deepcopy(network)
    compiled = CompiledNetwork(network)
    expected = step(other, other, images)
    for found, value in zip(step(network, compiled, images), expected, strict=True):
        torch.testing.assert_close(found, value, atol=1e-4, rtol=1e-3)
    return compiled


@pytest.mark.slow
def test_a_compiled_network_computes_the_same() -> None:
    network = small_network(width=8)
    compiled = assert_steps_are_alike(network, torch.randn(2, 3, 16, 16))
    assert compiled.forward is not network


def test_without_a_compiler_the_network_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    network = small_network(width=12)  # whose code is not in memory from another test
    absent = {"cpp.cxx": (None, "/absent/c++"), "force_disable_caches": True}
    with inductor.patch(absent), caplog.at_level(logging.WARNING):
        compiled = assert_steps_are_alike(network, torch.randn(2, 3, 16, 16))
    assert compiled.forward is network
    (message,) = [m for m in caplog.messages if "compute.compile" in m]
    assert "No working C++ compiler" in message and "\n" not in message


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_segmenter_is_compiled_on_a_gpu() -> None:
    compute = Compute.from_settings(ComputeSettings(compile=True, precision="fp32"))
    torch.manual_seed(0)
    network = compute.place(Segmenter(Encoder(), Decoder(ARCHITECTURES["arch0"], 11, 64, 2)))
    compiled = assert_steps_are_alike(network, torch.randn(2, 3, 96, 128, device=compute.device))
    assert compiled.forward is not network


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
