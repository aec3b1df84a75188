"""One optimisation step, as both trainings take it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from nas_core.base.errors import CandidateError, WeightsError
from nas_core.training.averaging import PolyakAverage
from nas_core.training.cuda_graphs import GraphedStep

LossOf = Callable[..., Tensor]
"""The loss of a batch, given as tensors."""


@dataclass
class StepLog:
    """The losses of an epoch's steps; nan for a step that was skipped.

    Those of a GPU are read at the end, so that no step waits for it.
    """

    found: list[float | Tensor] = field(default_factory=list)

    def read(self) -> tuple[float, int]:
        """The mean loss of the steps taken, and the number of those skipped.

        Raises:
            CandidateError: every step was skipped.
        """
        values = torch.stack([torch.as_tensor(one) for one in self.found]).tolist()
        losses = [one for one in values if not math.isnan(one)]
        num_skipped = len(values) - len(losses)
        if not losses:
            raise CandidateError(
                f"the loss or its gradient was not finite in any of {num_skipped} steps; "
                "a lower learning rate may help"
            )
        return sum(losses) / len(losses), num_skipped


@dataclass(frozen=True)
class Step:
    """Minimises a loss: a batch's gradients, clipped, change a network, which is averaged.

    Where the loss or the gradient norm is not finite the weights stay as they are.

    Attributes:
        loss_of: of a batch, whose tensors are on the device of the network.
        parameters: those whose gradient norm is clipped to `max_norm`.
        network: what is averaged.
    """

    loss_of: LossOf
    optimizer: Optimizer
    parameters: list[Parameter]
    max_norm: float
    network: nn.Module
    average: PolyakAverage

    def __call__(self, *batch: Tensor) -> float:
        """The loss; nan if the step was not taken."""
        loss = optimise(self.loss_of(*batch), self.optimizer, self.parameters, self.max_norm)
        if not math.isnan(loss):
            self.average.update_parameters(self.network)
        return loss

    def without_reading(self, *batch: Tensor) -> Tensor:
        """The same with a fused optimiser, and no wait for the device, which decides by itself."""
        loss = self.loss_of(*batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        taken = loss.detach().isfinite() & norm.isfinite()
        # With this a fused optimiser leaves all as it was, as for torch's GradScaler.
        self.optimizer.found_inf = (~taken).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.average.update_where(self.network, taken)
        return torch.where(taken, loss.detach(), torch.nan)

    def state(self) -> list[Tensor]:
        """All that it changes."""
        networks = (self.network, self.average)
        moments = (values for of_one in self.optimizer.state.values() for values in of_one.values())
        return [
            *(value for one in networks for value in (*one.parameters(), *one.buffers())),
            *(value for value in moments if isinstance(value, Tensor)),
        ]


def for_its_device(step: Step) -> Callable[..., float | Tensor]:
    """The step; on a GPU, where it does not read, one CUDA graph for batches of one shape."""
    if step.parameters[0].is_cuda:
        return GraphedStep(step.without_reading, step.state)
    return step


def optimise(
    loss: Tensor, optimizer: Optimizer, parameters: list[Parameter], max_norm: float
) -> float:
    """Backpropagate and step, unless the loss or the gradient norm is not finite.

    Returns:
        The loss; nan if the step was not taken.
    """
    optimizer.zero_grad(set_to_none=True)
    value = loss.item()
    if math.isfinite(value):
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        if torch.isfinite(norm):
            optimizer.step()
            return value
    return math.nan


def scheduled_groups(
    rates: Mapping[nn.Module, float], device: torch.device
) -> list[dict[str, Any]]:
    """Groups of an optimiser, with learning rates that a schedule changes.

    On a GPU these lie there, where a graph reads them.
    """
    return [
        {
            "params": network.parameters(),
            "lr": torch.tensor(rate, device=device) if device.type == "cuda" else rate,
        }
        for network, rate in rates.items()
    ]


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
