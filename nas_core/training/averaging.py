"""Polyak averaging of a network's weights and batch-norm statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def polyak_average(model: nn.Module, decay: float) -> AveragedModel:
    """A running average of `model`; call `update_parameters(model)` after each step.

    The decay grows from 0.1 to `decay` as (1 + n) / (10 + n) over n updates, so that a short
    training does not end with the weights it began with (as TensorFlow's moving averages do).
    """
    average = AveragedModel(model, multi_avg_fn=_warm_average(decay), use_buffers=True)
    average.eval()
    return average


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
