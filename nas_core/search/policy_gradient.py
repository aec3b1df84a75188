"""What PPO and REINFORCE share: the controller, the advantages, the optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas_core.base.errors import RunError
from nas_core.config import ControllerSettings
from nas_core.models.state import check_tensor
from nas_core.search.controller import Controller
from nas_core.search.strategy import Proposal, Result, Strategy
from nas_core.space.decisions import SPACE, Space


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

    The advantage of a candidate is the normal score of its reward's rank among all rewards so far,
    those of its own round included; see `normal_scores`. Rewards of networks lie close together
    above and far apart below: against a mean, a few bad ones would move the controller more than
    all that tells good from better. Ranks have the same spread in every search, at its beginning
    as at its end.

    Diagnostics of `tell`: `entropy/KIND`, the mean entropy in nats of the decisions of a kind
    (those with a choice); `gradient_norm` before clipping; see the subclasses for more. They are
    those of the last epoch, before its step.
    """

    def __init__(self, settings: ControllerSettings, seed: int, space: Space = SPACE) -> None:
        super().__init__(space)
        self.settings = settings
        self._generator = torch.Generator().manual_seed(seed)
        self.controller = Controller(self._generator, settings.autoregressive, space.decisions)
        self._optimizer = torch.optim.Adam(self.controller.parameters(), lr=settings.learning_rate)
        self._rewards = torch.empty(0, dtype=torch.float64)

    @abstractmethod
    def _update(self, new: Rollouts) -> dict[str, float]:
        """Learn from the round's rollouts; returns diagnostics."""

    def _draw(self, num: int) -> list[Proposal]:
        choices, log_probs = self.controller.sample(num, self._generator)
        # Where some are refused or known, the true probabilities of the others are larger by one
        # factor for all, which changes so slowly that it is left out.
        drawn = zip(choices.tolist(), log_probs.tolist(), strict=True)
        return [self._propose(*proposal) for proposal in drawn]

    def _given(self, choices: Sequence[int]) -> Proposal:
        with torch.no_grad():
            log_probs, _ = self.controller.evaluate(torch.tensor([list(choices)]))
        return self._propose(choices, log_probs[0].tolist())

    def _learn(self, results: Sequence[Result]) -> dict[str, float]:
        known = [result.proposal for result in results if result.reward is not None]
        values = [result.reward for result in results if result.reward is not None]
        new = Rollouts(
            torch.tensor([proposal.choices for proposal in known]),
            torch.tensor([proposal.log_probs for proposal in known]),
            torch.tensor(values, dtype=torch.float64),
        )
        self._rewards = torch.cat([self._rewards, new.rewards])
        return self._update(new)

    def _advantages(self, rewards: Tensor) -> Tensor:
        return normal_scores(rewards, self._rewards).float()

    def _step(self, loss: Tensor, entropies: Tensor) -> dict[str, float]:
        """One step of Adam on `loss`; `entropies` (N, decisions) are for the diagnostics."""
        self._optimizer.zero_grad()
        loss.backward()
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
            "rewards": self._rewards,
        }

    def _load(self, state: dict[str, Any]) -> None:
        if state["autoregressive"] != self.settings.autoregressive:
            raise RunError(
                f"the state is of a controller with autoregressive={state['autoregressive']}: go "
                "on with the setting that the search began with, or begin a new one"
            )
        for name, wanted in self.controller.state_dict().items():
            check_tensor(name, state["controller"][name], wanted)
        self.controller.load_state_dict(state["controller"])
        self._load_optimizer(state["optimizer"])
        self._generator.set_state(state["generator"])
        rewards = state["rewards"]
        check_tensor("rewards", rewards, self._rewards.new_empty(len(rewards)))
        self._rewards = rewards

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Adam takes any numbers and settings, and would fail or go astray at its next step."""
        settings = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict(state)
        if self._optimizer.state_dict()["param_groups"] != settings:
            raise ValueError("optimizer has other settings")
        for parameter, averages in self._optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                check_tensor(name, averages[name], parameter)
            check_tensor("step", averages["step"], torch.tensor(1.0))
            if averages["exp_avg_sq"].min() < 0 or averages["step"] < 1:
                raise ValueError("optimizer has a negative mean of squares, or count of steps")


def normal_scores(values: Tensor, among: Tensor) -> Tensor:
    """The standard normal quantile of the share of `among` that is less than each value.

    Those equal to it count half, itself among them: so N different values have Hazen's plotting
    positions (i - 0.5) / N, i = 1, ..., N.

    Args:
        values: (M,), each of them in `among`.
        among: (N,).
    """
    among = among.sort().values
    less = torch.searchsorted(among, values)
    not_greater = torch.searchsorted(among, values, right=True)
    scores: Tensor = torch.special.ndtri((less + not_greater).double() / (2 * len(among)))
    return scores
