from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nas_core.config import ControllerSettings, SearchSettings
from nas_core.search.policy_gradient import PolicyGradient, normal_scores
from nas_core.search.strategy import Result, make_strategy
from nas_core.space.decisions import DECISIONS

BOTH = pytest.mark.parametrize("name", ["ppo", "reinforce"])


def make(name: str, **changes: float) -> PolicyGradient:
    strategy = make_strategy(
        SearchSettings(strategy=name, controller=ControllerSettings(**changes)), seed=0
    )
    assert isinstance(strategy, PolicyGradient)
    return strategy


def tell(strategy: PolicyGradient, *rewards: float | None) -> dict[str, float]:
    proposals = strategy.ask(len(rewards))
    return strategy.tell([Result(*pair) for pair in zip(proposals, rewards, strict=True)])


REWARDS = st.lists(st.sampled_from([-1.5, 0.0, 0.25, 0.3, 0.9]), min_size=1, max_size=12)


@given(rewards=REWARDS)
def test_normal_scores_are_those_of_scipy(rewards: list[float]) -> None:
    among = torch.tensor(rewards, dtype=torch.float64)
    positions = (stats.rankdata(rewards) - 0.5) / len(rewards)
    expected = torch.from_numpy(stats.norm.ppf(positions))
    torch.testing.assert_close(normal_scores(among, among), expected)
    torch.testing.assert_close(normal_scores(among[-2:], among), expected[-2:])


@given(rewards=REWARDS)
def test_normal_scores_are_the_same_after_any_rising_map(rewards: list[float]) -> None:
    among = torch.tensor(rewards, dtype=torch.float64)
    scores = normal_scores(among, among)
    assert torch.equal(normal_scores(among.exp(), among.exp()), scores)


@BOTH
def test_advantages_are_ranks_among_all_rewards_so_far(name: str) -> None:
    """Failures have none, and the state has them."""
    strategy = make(name)
    tell(strategy, 0.2, None, 0.4)
    tell(strategy, None, None)
    tell(strategy, 0.8, 0.1, None)
    again = make(name)
    again.load_state_dict(strategy.state_dict())
    positions = np.array([0.5, 1.5, 2.5, 3.5]) / 4
    for one in (strategy, again):
        advantages = one._advantages(torch.tensor([0.1, 0.2, 0.4, 0.8], dtype=torch.float64))
        np.testing.assert_allclose(advantages, stats.norm.ppf(positions), rtol=1e-6)


@BOTH
def test_rewards_of_another_scale_teach_the_same(name: str) -> None:
    ends = []
    for scale in (1, 1000):
        strategy = make(name)
        tell(strategy, 0.1 * scale, 0.9 * scale, 0.5 * scale)
        ends.append([proposal.choices for proposal in strategy.ask(20)])
    assert ends[0] == ends[1]


@BOTH
def test_diagnostics(name: str) -> None:
    diagnostics = tell(make(name, epochs=1), 0.2, 0.4)
    kinds = {decision.kind for decision in DECISIONS}
    expected = {"reward_mean", "refused_share", "known_share", "gradient_norm"}
    expected |= {f"entropy/{kind}" for kind in kinds}
    if name == "ppo":
        expected |= {"approx_kl", "clip_fraction"}
    assert set(diagnostics) == expected
    # Weights start so small that all choices are about equally likely.
    num_choices = {"op": 6, "agg": 2, "template": 3, "repeats": 4, "stride": 2}
    for kind, num in num_choices.items():
        assert diagnostics[f"entropy/{kind}"] == pytest.approx(math.log(num), abs=0.05)
    inputs = [math.log(d.num_choices) for d in DECISIONS if d.kind == "input"]
    assert diagnostics["entropy/input"] == pytest.approx(sum(inputs) / len(inputs), abs=0.05)


@BOTH
def test_first_step_is_the_policy_gradient_of_those_with_a_reward(name: str) -> None:
    strategy = make(name, epochs=1, max_gradient_norm=1e6)
    controller = copy.deepcopy(strategy.controller)
    proposals = strategy.ask(4)
    rewards = [0.2, None, 0.9, 0.1]
    diagnostics = strategy.tell([Result(*pair) for pair in zip(proposals, rewards, strict=True)])

    known = [(p, r) for p, r in zip(proposals, rewards, strict=True) if r is not None]
    log_probs, _ = controller.evaluate(torch.tensor([p.choices for p, _ in known]))
    assert [r for _, r in known] == [0.2, 0.9, 0.1]
    advantages = torch.tensor([0.0, stats.norm.ppf(5 / 6), stats.norm.ppf(1 / 6)]).float()
    (-(advantages * log_probs.sum(dim=1)).mean()).backward()
    squares = 0.0
    for trained, reference in zip(
        strategy.controller.parameters(), controller.parameters(), strict=True
    ):
        gradient = strategy._optimizer.state[trained]["exp_avg"] / 0.1
        torch.testing.assert_close(gradient, reference.grad, rtol=1e-3, atol=1e-6)
        squares += reference.grad.square().sum().item()
    assert diagnostics["gradient_norm"] == pytest.approx(math.sqrt(squares), rel=1e-4)


@BOTH
def test_gradients_are_clipped(name: str) -> None:
    strategy = make(name, epochs=1, max_gradient_norm=1e-3)
    assert tell(strategy, 0.1, 0.9)["gradient_norm"] > 1e-3
    moments = [state["exp_avg"] / 0.1 for state in strategy._optimizer.state.values()]
    norm = math.sqrt(sum(moment.square().sum().item() for moment in moments))
    assert norm == pytest.approx(1e-3, rel=1e-2)
