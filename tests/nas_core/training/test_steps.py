import pytest
import torch
from torch import nn

from nas_core.base.errors import CandidateError
from nas_core.training.steps import StepLog, optimise, shuffled_batches


def _step(scale: float, max_norm: float = 1e9) -> tuple[torch.Tensor, bool, StepLog]:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    log = StepLog()
    taken = optimise((weight * scale).sum(), optimizer, [weight], max_norm, log)
    return weight.detach(), taken, log


def test_takes_a_step() -> None:
    weight, taken, log = _step(2.0)
    assert taken and log.losses == [6.0] and log.num_skipped == 0
    torch.testing.assert_close(weight, torch.tensor([0.8, 1.8]))


def test_clips_the_gradient_norm() -> None:
    weight, _, _ = _step(30.0, max_norm=1.0)
    torch.testing.assert_close(weight, torch.tensor([1.0, 2.0]) - 0.1 / 2**0.5)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_nothing_and_is_counted(scale: float) -> None:
    weight, taken, log = _step(scale)
    assert not taken and log.num_skipped == 1 and not log.losses
    torch.testing.assert_close(weight, torch.tensor([1.0, 2.0]))


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted() -> None:
    weight = nn.Parameter(torch.tensor([0.0, 4.0]))
    log = StepLog()
    taken = optimise(
        weight.sqrt().sum(), torch.optim.SGD([weight], lr=0.1), [weight], 1.0, log
    )  # the root's slope at 0 is infinite
    assert not taken and log.num_skipped == 1
    torch.testing.assert_close(weight.detach(), torch.tensor([0.0, 4.0]))


def test_an_epoch_without_a_finite_step_is_a_failure() -> None:
    log = StepLog(num_skipped=7)
    with pytest.raises(CandidateError, match="any of 7 steps"):
        log.mean_loss()


def test_batches_are_full_and_shuffled() -> None:
    batches = shuffled_batches(23, 5, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    seen = torch.cat(batches).tolist()
    assert len(set(seen)) == 20 and seen != sorted(seen)


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    (batch,) = shuffled_batches(3, 8, torch.Generator().manual_seed(0))
    assert sorted(batch.tolist()) == [0, 1, 2]
