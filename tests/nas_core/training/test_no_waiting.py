"""What would make a CPU wait for its GPU in a step, looked for on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, LRScheduler
from torch.utils._python_dispatch import TorchDispatchMode

from nas_core.base.seeds import seeded
from nas_core.data.prepared import Split
from nas_core.data.resident import ResidentImages
from nas_core.models.compute import Compute
from nas_core.models.decoder import Decoder
from nas_core.models.encoder import Encoder
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training.averaging import PolyakAverage
from nas_core.training.losses import _loss_without_reading
from nas_core.training.steps import Step

# A value read, a shape that depends on values, a tensor made of numbers, which is sent.
WAITING = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "lift_fresh"}


class _NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = function.overloadpacket.__name__
        assert name not in WAITING, function
        if name.startswith("index"):  # by what is true of a mask: as many as there are
            indices = [one for one in args[1] if isinstance(one, Tensor)]
            assert all(one.dtype != torch.bool for one in indices), function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "waits",
    [
        lambda one: one.sum().item(),
        lambda one: bool((one > 0).any()),
        lambda one: one[one > 0],
        lambda one: one * torch.tensor([1.0, 2.0]),
    ],
)
def test_it_would_be_found(waits: Callable[[Tensor], object]) -> None:
    with pytest.raises(AssertionError), _NoWaiting():
        waits(torch.ones(2))


def test_a_batch_waits_for_nothing() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 40, 56, 3), np.uint8)
    masks = rng.integers(0, 4, (3, 40, 56), np.uint8)
    split = Split(images, masks, ("a", "b", "c"), ("a", "b", "c"))
    resident = ResidentImages([split], torch.device("cpu"), 255)
    batch = partial(
        resident.crops, torch.tensor([2, 0]), torch.rand(2, 7), height=32, width=48,
        min_scale=0.5, max_scale=2.0, jitter=0.3,
    )  # fmt: skip
    expected = batch()  # sends what does not change
    with _NoWaiting():
        found = batch()
    for value, other in zip(found, expected, strict=True):
        assert torch.equal(value, other)


@pytest.mark.parametrize("name", ["arch0", "arch1", "camvid0"])
def test_a_step_waits_for_nothing(name: str) -> None:
    compute = Compute(torch.device("cpu"), False)
    network = compute.place(
        seeded(0, lambda: Segmenter(Encoder(), Decoder(ARCHITECTURES[name], 5, 8, 1)))
    ).train()
    weights = torch.ones(5)

    def loss_of(images: Tensor, masks: Tensor) -> Tensor:
        with compute.autocast():
            logits = network(images)
        return _loss_without_reading(logits.float(), masks, weights, 255)

    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    average = PolyakAverage(network, 0.9)
    step = Step(loss_of, optimizer, list(network.parameters()), 3.0, network, average)
    batch = (torch.randn(2, 3, 64, 64), torch.randint(5, (2, 64, 64)))
    # The first one makes what stays: the optimiser's state, and tables of the CPU's gradients.
    step.without_reading(*batch)
    with _NoWaiting():
        loss = step.without_reading(*batch)
    assert loss.isfinite() and int(average.n_averaged) == 2


@pytest.mark.parametrize(
    "schedule_of",
    [
        lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (1 + step)),
        lambda optimizer: LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=4),
    ],
)
def test_a_rate_that_lies_on_the_device_is_changed_there(
    schedule_of: Callable[[Optimizer], LRScheduler],
) -> None:
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam([{"params": [torch.ones(2)], "lr": rate}], fused=True)
    schedule = schedule_of(optimizer)
    optimizer.step()
    for _ in range(4):
        with _NoWaiting():
            schedule.step()
    assert optimizer.param_groups[0]["lr"] is rate and rate < 0.021
