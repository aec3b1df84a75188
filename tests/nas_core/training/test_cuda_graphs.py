"""A captured step beside one that runs as it is."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nas_core.base.seeds import seeded
from nas_core.config import ComputeSettings
from nas_core.models.compute import Compute
from nas_core.models.decoder import Decoder
from nas_core.models.encoder import Encoder
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training import cuda_graphs
from nas_core.training.averaging import PolyakAverage
from nas_core.training.cuda_graphs import GraphedStep
from nas_core.training.losses import segmentation_loss
from nas_core.training.steps import Step, for_its_device, scheduled_groups

WEIGHTS = torch.ones(11)
Run = Callable[..., float | Tensor]


def steps_of(
    compute: Compute, kind: Callable[[Step], Run]
) -> tuple[list[float], Segmenter, PolyakAverage]:
    """Losses of some steps of one kind, the network and its average."""
    network = compute.place(
        seeded(0, lambda: Segmenter(Encoder(), Decoder(ARCHITECTURES["arch0"], 11, 64, 2)))
    ).train()
    average = PolyakAverage(network, 0.9)
    optimizer = torch.optim.AdamW(
        scheduled_groups({network: 1e-3}, compute.device), fused=True, capturable=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    weights = WEIGHTS.to(compute.device)

    def loss_of(images: Tensor, masks: Tensor) -> Tensor:
        with compute.autocast():
            logits = network(images)
        return segmentation_loss(logits, masks, weights, 255)

    step = kind(Step(loss_of, optimizer, list(network.parameters()), 3.0, network, average))
    assert isinstance(step, GraphedStep) == (kind is for_its_device)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for number in range(5):
        images = torch.randn(4, 3, 96, 128, generator=generator)
        masks = torch.randint(11, (4, 96, 128), generator=generator)
        if number == 2:
            images = images * torch.nan
        # TF32 has 10 bits of mantissa: its rounding is as large as the tolerance.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            losses.append(float(step(compute.send(images), compute.send(masks))))
        schedule.step()
    return losses, network, average


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "kind", [lambda step: step, lambda step: step.without_reading], ids=["reads", "reads nothing"]
)
def test_a_captured_step_does_the_same(precision: str, kind: Callable[[Step], Run]) -> None:
    compute = Compute.from_settings(ComputeSettings(precision=precision))
    tolerance = 1e-2 if precision == "fp32" else 6e-2
    expected, network, average = steps_of(compute, kind)
    found, captured, captured_average = steps_of(compute, for_its_device)
    assert math.isnan(found[2]) and math.isnan(expected[2])
    assert found[:2] == pytest.approx(expected[:2], rel=tolerance)
    assert int(average.n_averaged) == int(captured_average.n_averaged) == 4
    pairs = zip(captured.parameters(), network.parameters(), strict=True)
    for value, reference in pairs:
        distance = torch.linalg.vector_norm((value - reference).detach().float())
        assert distance <= tolerance * torch.linalg.vector_norm(reference.detach().float()) + 1e-2


def test_a_torch_that_does_not_warn_of_streams_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "set_warn_on_accumulate_grad_stream_mismatch"  # not in torch 2.9
    monkeypatch.delattr(torch.autograd.graph, name, raising=False)
    cuda_graphs._warn_of_no_streams()
    told: list[bool] = []
    monkeypatch.setattr(torch.autograd.graph, name, told.append, raising=False)
    cuda_graphs._warn_of_no_streams()
    assert told == [False]
