"""What PPO and REINFORCE share: the controller, the reward baseline, the optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas_core.config import ControllerSettings
from nas_core.errors import RunError
from nas_core.search.controller import Controller
from nas_core.search.strategy import Proposal, Result, Strategy


class Rollouts(NamedTuple):
    """Candidates with a reward, as the controller sampled them."""

    choices: Tensor
    """(N, decisions), int64."""
    log_probs: Tensor
    """(N, decisions): of each choice, when it was sampled."""
    rewards: Tensor
    """(N,), float64."""


class PolicyGradient(Strategy):
    """A controller that learns from rewards, by Adam with clipped gradients.

    The baseline is an exponential moving average of all rewards in the order of the proposals. It
    starts at the mean of the first round, and a round's rewards enter it before they are
    compared with it. The advantage of a candidate is its reward less the present baseline.

    Diagnostics of `tell`: `baseline`; `entropy/KIND`, the mean entropy in nats of the decisions of
    a kind (those with a choice); `gradient_norm` before clipping; see the subclasses for more.
    All but the baseline are those of the last epoch, before its step.
    """

    def __init__(self, settings: ControllerSettings, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self._generator = torch.Generator().manual_seed(seed)
        self.controller = Controller(self._generator, settings.autoregressive)
        self._optimizer = torch.optim.Adam(self.controller.parameters(), lr=settings.learning_rate)
        self._baseline: float | None = None

    @abstractmethod
    def _update(self, new: Rollouts, baseline: float) -> dict[str, float]:
        """Learn from the round's rollouts; returns diagnostics."""

    def _draw(self, num: int) -> list[Proposal]:
        choices, log_probs = self.controller.sample(num, self._generator)
        # Where limits refuse some, the true probabilities are larger by one factor for all, which
        # changes so slowly that it is left out.
        drawn = zip(choices.tolist(), log_probs.tolist(), strict=True)
        return [Proposal.from_choices(*proposal) for proposal in drawn]

    def _learn(self, results: Sequence[Result]) -> dict[str, float]:
        known = [result.proposal for result in results if result.reward is not None]
        values = [result.reward for result in results if result.reward is not None]
        self._baseline = _move_baseline(self._baseline, values, self.settings.baseline_decay)
        new = Rollouts(
            torch.tensor([proposal.choices for proposal in known]),
            torch.tensor([proposal.log_probs for proposal in known]),
            torch.tensor(values, dtype=torch.float64),
        )
        return {"baseline": self._baseline, **self._update(new, self._baseline)}

    def _step(self, loss: Tensor, entropies: Tensor) -> dict[str, float]:
        """One step of Adam on `loss`, less the weighted entropy (N, decisions) of a genotype."""
        self._optimizer.zero_grad()
        (loss - self.settings.entropy_weight * entropies.sum(dim=1).mean()).backward()
        norm = nn.utils.clip_grad_norm_(
            self.controller.parameters(), self.settings.max_gradient_norm
        )
        self._optimizer.step()
        return {**self._entropy_by_kind(entropies.detach()), "gradient_norm": norm.item()}

    def _entropy_by_kind(self, entropies: Tensor) -> dict[str, float]:
        positions: dict[str, list[int]] = {}
        for position, decision in enumerate(self.controller.decisions):
            if decision.num_choices > 1:
                positions.setdefault(decision.kind, []).append(position)
        return {
            f"entropy/{kind}": entropies[:, columns].mean().item()
            for kind, columns in positions.items()
        }

    def _state(self) -> dict[str, Any]:
        return {
            "autoregressive": self.settings.autoregressive,
            "controller": dict(self.controller.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "baseline": self._baseline,
        }

    def _load(self, state: dict[str, Any]) -> None:
        if state["autoregressive"] != self.settings.autoregressive:
            raise RunError(
                f"the state is of a controller with autoregressive={state['autoregressive']}: go "
                "on with the setting that the search began with, or begin a new one"
            )
        self.controller.load_state_dict(state["controller"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self._baseline = state["baseline"]


def _move_baseline(baseline: float | None, rewards: Sequence[float], decay: float) -> float:
    if baseline is None:
        return sum(rewards) / len(rewards)
    for reward in rewards:
        baseline = decay * baseline + (1 - decay) * reward
    return baseline
