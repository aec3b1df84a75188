"""PPO with a clipped surrogate: Schulman et al., arXiv 1707.06347, equation 7."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nas_core.config import ControllerSettings
from nas_core.search.policy_gradient import PolicyGradient, Rollouts


class PPO(PolicyGradient):
    """`epochs` steps a round, each on all of the last `buffer_size` candidates with a reward.

    A whole candidate is one action, so that the ratio is that of the probabilities of all its
    decisions together: candidates that have become much more or less likely than when they were
    sampled stop pushing.

    Diagnostics beside those of `PolicyGradient`, over the buffer, before the last step:
    `approx_kl`, the mean of (ratio - 1) - log(ratio), which estimates the divergence from the
    policies that sampled the buffer (Schulman, "Approximating KL divergence", 2020), in nats;
    `clip_fraction`, the share of candidates whose ratio is outside 1 +/- clip.
    """

    name = "ppo"

    def __init__(self, settings: ControllerSettings, seed: int) -> None:
        super().__init__(settings, seed)
        self._buffer: Rollouts | None = None

    def _update(self, new: Rollouts, baseline: float) -> dict[str, float]:
        joined = [new] if self._buffer is None else [self._buffer, new]
        size = self.settings.buffer_size
        buffer = Rollouts(*(torch.cat(parts)[-size:] for parts in zip(*joined, strict=True)))
        self._buffer = buffer
        advantages = (buffer.rewards - baseline).float()
        for _ in range(self.settings.epochs):
            log_probs, entropies = self.controller.evaluate(buffer.choices)
            log_ratio = log_probs.sum(dim=1) - buffer.log_probs
            loss = clipped_surrogate_loss(log_ratio, advantages, self.settings.clip)
            diagnostics = self._step(loss, entropies)
        log_ratio = log_ratio.detach()
        off = log_ratio.exp() - 1
        diagnostics["approx_kl"] = (off - log_ratio).mean().item()
        diagnostics["clip_fraction"] = (off.abs() > self.settings.clip).double().mean().item()
        return diagnostics

    def _state(self) -> dict[str, Any]:
        buffer = None if self._buffer is None else self._buffer._asdict()
        return {**super()._state(), "buffer": buffer}

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        buffer = state["buffer"]
        self._buffer = None if buffer is None else Rollouts(**buffer)


def clipped_surrogate_loss(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """-mean(min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A)), both inputs (N,)."""
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()
