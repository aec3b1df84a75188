"""The whole network."""

import pytest
import torch

from nas_core.models.decoder import Decoder
from nas_core.models.encoder import Encoder
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES

pytestmark = pytest.mark.usefixtures("one_thread")


def make_network(name: str) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(Encoder(), Decoder(ARCHITECTURES[name], 11, agg_size=16, sep_repeats=1))


@pytest.mark.parametrize("name", ["arch0", "arch1"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_logits_have_the_images_size_and_full_precision(name: str, precision: str) -> None:
    network = make_network(name).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 45, 62).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = network(images)
    assert logits.shape == (2, 11, 45, 62)
    assert logits.dtype == torch.float32
    logits.square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


def test_bf16_is_close_to_fp32() -> None:
    network = make_network("arch0")
    images = torch.randn(2, 3, 64, 80)
    # Running statistics of real features, as a trained network has them.
    network(images)
    network.eval()
    with torch.no_grad():
        exact = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(images)
    assert (rounded - exact).norm() / exact.norm() < 0.05
