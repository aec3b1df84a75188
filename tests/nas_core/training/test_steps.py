import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from nas_core.base.errors import CandidateError
from nas_core.training.averaging import PolyakAverage
from nas_core.training.cuda_graphs import unchanged
from nas_core.training.steps import Step, StepLog, optimise, shuffled_batches


class Weights(nn.Module):
    """A loss that is the scaled sum of two weights."""

    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, scale: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return (self.weight * scale).sum()


def _optimise(scale: float, max_norm: float = 1e9) -> tuple[torch.Tensor, float]:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    loss = optimise((weight * scale).sum(), optimizer, [weight], max_norm)
    return weight.detach(), loss


def test_takes_a_step() -> None:
    weight, loss = _optimise(2.0)
    assert loss == 6.0
    torch.testing.assert_close(weight, torch.tensor([0.8, 1.8]))


def test_clips_the_gradient_norm() -> None:
    weight, _ = _optimise(30.0, max_norm=1.0)
    torch.testing.assert_close(weight, torch.tensor([1.0, 2.0]) - 0.1 / 2**0.5)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_nothing(scale: float) -> None:
    weight, loss = _optimise(scale)
    assert math.isnan(loss)
    torch.testing.assert_close(weight, torch.tensor([1.0, 2.0]))


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    weight = nn.Parameter(torch.tensor([0.0, 4.0]))
    loss = optimise(weight.sqrt().sum(), torch.optim.SGD([weight], lr=0.1), [weight], 1.0)
    assert math.isnan(loss)  # the root's slope at 0 is infinite
    torch.testing.assert_close(weight.detach(), torch.tensor([0.0, 4.0]))


def test_a_log_counts_the_skipped() -> None:
    log = StepLog([2.0, math.nan, torch.tensor(4.0), torch.tensor(math.nan)])
    assert log.read() == (3.0, 2)


def test_an_epoch_without_a_finite_step_is_a_failure() -> None:
    with pytest.raises(CandidateError, match="any of 7 steps"):
        StepLog([math.nan] * 7).read()


def _steps(
    kind: Callable[[Step], Callable[..., float | torch.Tensor]],
    scales: list[float],
    max_norm: float,
) -> tuple[list[float], list[torch.Tensor]]:
    """Losses, and all that the steps have changed."""
    network = Weights()
    average = PolyakAverage(network, 0.9)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    step = kind(Step(network, optimizer, [network.weight], max_norm, network, average))
    losses = [float(step(torch.tensor(scale))) for scale in scales]
    moments = optimizer.state[network.weight]
    state = [moments["step"], moments["exp_avg"], moments["exp_avg_sq"]]
    values = [*network.parameters(), average.module.weight, average.n_averaged, *state]
    return losses, [value.detach().clone() for value in values]


@pytest.mark.parametrize("max_norm", [1.0, math.inf])
def test_a_device_decides_as_the_cpu_does(max_norm: float) -> None:
    scales = [2.0, math.nan, -1.0, math.inf, 5.0, 3.0]
    expected, values = _steps(lambda step: step, scales, max_norm)
    found, others = _steps(lambda step: step.without_reading, scales, max_norm)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.isnan(found).tolist() == [False, True, False, True, False, False]
    for value, other in zip(values, others, strict=True):
        torch.testing.assert_close(other, value)
    assert int(others[2]) == int(others[3]) == 4  # averaged, and steps of the optimiser


def test_what_a_capture_has_tried_is_undone() -> None:
    network = Weights()
    average = PolyakAverage(network, 0.9)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    step = Step(network, optimizer, [network.weight], 1.0, network, average)
    with unchanged(step.state):
        step.without_reading(torch.tensor(2.0))
    assert network.weight.tolist() == [1.0, 2.0] and int(network.count) == 0
    assert int(average.n_averaged) == 0
    moments = optimizer.state[network.weight]
    assert all(not value.any() for value in moments.values()) and len(moments) == 3
    # And what there was is back.
    step.without_reading(torch.tensor(2.0))
    before = [value.clone() for value in step.state()]
    with unchanged(step.state):
        step.without_reading(torch.tensor(3.0))
    assert len(before) == len(step.state()) > 6
    for value, other in zip(before, step.state(), strict=True):
        torch.testing.assert_close(value, other)


def test_batches_are_full_and_shuffled() -> None:
    batches = shuffled_batches(23, 5, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    seen = torch.cat(batches).tolist()
    assert len(set(seen)) == 20 and seen != sorted(seen)


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    (batch,) = shuffled_batches(3, 8, torch.Generator().manual_seed(0))
    assert sorted(batch.tolist()) == [0, 1, 2]
