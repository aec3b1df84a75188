"""Polyak averaging of a network's weights and batch-norm statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class PolyakAverage(AveragedModel):
    """A running average of `model`; call `update_parameters(model)` after each step.

    The decay grows from 0.1 to `decay` as (1 + n) / (10 + n) over n updates, so that a short
    training does not end with the weights it began with (as TensorFlow's moving averages do).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(
            model,
            device=next(model.parameters()).device,
            multi_avg_fn=_warm_average(decay),
            use_buffers=True,
        )
        self.decay = decay
        self.eval()

    @torch.no_grad()
    def update_where(self, model: nn.Module, taken: Tensor) -> None:
        """`update_parameters(model)` if `taken`, up to rounding, without a wait for the device.

        Args:
            taken: bool, without dimensions, on the model's device.
        """
        n = self.n_averaged
        weight = 1.0 - ((1 + n) / (10 + n)).clamp(max=self.decay)
        weight = torch.where(n == 0, 1.0, weight) * taken
        averaged, current = (
            list(chain(network.parameters(), network.buffers())) for network in (self.module, model)
        )
        of_floats = [one.is_floating_point() for one in averaged]
        mean = [one.detach() for one, floats in zip(averaged, of_floats, strict=True) if floats]
        new = [one.detach() for one, floats in zip(current, of_floats, strict=True) if floats]
        distance = torch._foreach_sub(new, mean)
        torch._foreach_mul_(distance, weight)
        torch._foreach_add_(mean, distance)
        for counts, own, floats in zip(averaged, current, of_floats, strict=True):
            if not floats:
                counts.copy_(own)
        n += taken


def _warm_average(
    decay: float,
) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(
        averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int
    ) -> None:
        n = int(num_averaged)
        weight = 1.0 - min(decay, (1 + n) / (10 + n))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(list(averaged), list(current), weight)
        else:  # counts of batches
            torch._foreach_copy_(list(averaged), list(current))

    return update
