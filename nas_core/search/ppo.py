"""PPO with a clipped surrogate: Schulman et al., arXiv 1707.06347, equation 7."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nas_core.config import ControllerSettings
from nas_core.models.state import check_tensor
from nas_core.search.policy_gradient import PolicyGradient, Rollouts
from nas_core.space.decisions import SPACE, Space


class PPO(PolicyGradient):
    """`epochs` steps a round, each on all of the last `buffer_size` candidates with a reward, or on
    the round's own if they are more.

    Each decision is an action with a ratio of its own, and the advantage of its candidate: one
    that has become much more or less likely than when it was sampled stops pushing, the others go
    on. With one ratio for the whole candidate, a product of dozens, all would stop after a step or
    two. Advantages are ranks, see `PolicyGradient`, and those of the buffer are made anew in each
    round: a candidate that later ones have passed pushes less.

    Diagnostics beside those of `PolicyGradient`, over the buffer, before the last step:
    `approx_kl`, the mean over candidates of the sum over decisions of (ratio - 1) - log(ratio),
    which estimates the divergence from the policies that sampled the buffer (Schulman,
    "Approximating KL divergence", 2020), in nats; `clip_fraction`, the share of the decisions with
    a choice whose ratio is outside 1 +/- clip.
    """

    name = "ppo"

    def __init__(self, settings: ControllerSettings, seed: int, space: Space = SPACE) -> None:
        super().__init__(settings, seed, space)
        self._buffer: Rollouts | None = None
        self._with_choice = [decision.num_choices > 1 for decision in self.controller.decisions]

    def _update(self, new: Rollouts) -> dict[str, float]:
        joined = [new] if self._buffer is None else [self._buffer, new]
        size = max(self.settings.buffer_size, len(new.rewards))
        buffer = Rollouts(*(torch.cat(parts)[-size:] for parts in zip(*joined, strict=True)))
        self._buffer = buffer
        advantages = self._advantages(buffer.rewards)
        for _ in range(self.settings.epochs):
            log_probs, entropies = self.controller.evaluate(buffer.choices)
            log_ratio = log_probs - buffer.log_probs
            loss = clipped_surrogate_loss(log_ratio, advantages, self.settings.clip)
            diagnostics = self._step(loss, entropies)
        log_ratio = log_ratio.detach()
        off = log_ratio.exp() - 1
        diagnostics["approx_kl"] = (off - log_ratio).sum(dim=1).mean().item()
        clipped = (off.abs() > self.settings.clip)[:, self._with_choice]
        diagnostics["clip_fraction"] = clipped.double().mean().item()
        return diagnostics

    def _state(self) -> dict[str, Any]:
        buffer = None if self._buffer is None else self._buffer._asdict()
        return {**super()._state(), "buffer": buffer}

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        buffer = state["buffer"]
        self._buffer = None if buffer is None else self._checked(Rollouts(**buffer))

    def _checked(self, buffer: Rollouts) -> Rollouts:
        size = (len(buffer.rewards), len(self.controller.decisions))
        check_tensor("choices", buffer.choices, torch.empty(size, dtype=torch.int64))
        check_tensor("log_probs", buffer.log_probs, torch.empty(size))
        check_tensor("rewards", buffer.rewards, self._rewards.new_empty(size[0]))
        for choices in buffer.choices.tolist():
            self._propose(choices)
        return buffer


def clipped_surrogate_loss(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """-min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A), summed over decisions, mean over N.

    Args:
        log_ratio: (N, decisions).
        advantages: (N,), of the candidates.
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    of_each = advantages[:, None]
    return -torch.minimum(ratio * of_each, clipped * of_each).sum(dim=1).mean()
