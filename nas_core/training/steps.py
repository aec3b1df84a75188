"""One optimisation step, as both trainings take it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from nas_core.base.errors import CandidateError, WeightsError


@dataclass
class StepLog:
    """Losses of an epoch's steps, and how many steps were skipped for a non-finite one."""

    losses: list[float] = field(default_factory=list)
    num_skipped: int = 0

    def mean_loss(self) -> float:
        """The mean loss of the steps taken.

        Raises:
            CandidateError: every step was skipped.
        """
        if not self.losses:
            raise CandidateError(
                f"the loss or its gradient was not finite in any of {self.num_skipped} steps; "
                "a lower learning rate may help"
            )
        return sum(self.losses) / len(self.losses)


def optimise(
    loss: Tensor,
    optimizer: Optimizer,
    parameters: list[Parameter],
    max_norm: float,
    log: StepLog,
) -> bool:
    """Backpropagate and step, unless the loss or the gradient norm is not finite.

    Args:
        parameters: those whose gradient norm is clipped to `max_norm`.

    Returns:
        Whether the step was taken.
    """
    optimizer.zero_grad(set_to_none=True)
    value = loss.item()
    if math.isfinite(value):
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        if torch.isfinite(norm):
            optimizer.step()
            log.losses.append(value)
            return True
    log.num_skipped += 1
    return False


@contextmanager
def validation(name: str) -> Iterator[None]:
    """For scoring a network in training.

    Raises:
        CandidateError: its weights or logits are not finite. The message says at which validation.
    """
    try:
        yield
    except WeightsError as error:
        raise CandidateError(f"{error} at {name}; a lower learning rate may help") from None


def shuffled_batches(num_items: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Indices 0..num_items-1 in random order, in batches of `batch_size`.

    The rest that does not fill a batch is left out (another order leaves out others), unless
    there is less than one batch: batch norm wants batches of like size.
    """
    order = torch.randperm(num_items, generator=generator)
    if num_items <= batch_size:
        return [order]
    return list(order[: num_items - num_items % batch_size].split(batch_size))
