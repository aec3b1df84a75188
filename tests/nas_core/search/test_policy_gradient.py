from __future__ import annotations

import copy
import math

import pytest
import torch

from nas_core.config import ControllerSettings, SearchSettings
from nas_core.search.policy_gradient import PolicyGradient
from nas_core.search.strategy import Result, make_strategy
from nas_core.space import DECISIONS

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


@BOTH
def test_baseline_is_a_moving_average_of_rewards(name: str) -> None:
    strategy = make(name, baseline_decay=0.9)
    assert tell(strategy, None, None) == {}
    assert tell(strategy, 0.2, None, 0.4)["baseline"] == pytest.approx(0.3)
    expected = 0.9 * (0.9 * 0.3 + 0.1 * 0.8) + 0.1 * 0.1
    assert tell(strategy, 0.8, 0.1, None)["baseline"] == pytest.approx(expected)


@BOTH
def test_diagnostics(name: str) -> None:
    diagnostics = tell(make(name, epochs=1), 0.2, 0.4)
    kinds = {decision.kind for decision in DECISIONS}
    expected = {"reward_mean", "refused_share", "baseline", "gradient_norm"}
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
    strategy = make(name, epochs=1, max_gradient_norm=1e9)
    controller = copy.deepcopy(strategy.controller)
    proposals = strategy.ask(4)
    rewards = [0.2, None, 0.9, 0.1]
    diagnostics = strategy.tell([Result(*pair) for pair in zip(proposals, rewards, strict=True)])

    known = [(p, r) for p, r in zip(proposals, rewards, strict=True) if r is not None]
    log_probs, _ = controller.evaluate(torch.tensor([p.choices for p, _ in known]))
    advantages = torch.tensor([r - 0.4 for _, r in known])
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


@BOTH
def test_entropy_weight_keeps_the_entropy_up(name: str) -> None:
    ends = []
    for weight in (0.0, 1.0):
        strategy = make(name, learning_rate=0.01, entropy_weight=weight)
        for _ in range(8):
            proposals = strategy.ask(8)
            diagnostics = strategy.tell(
                [Result(p, sum(c == 0 for c in p.choices) / 44) for p in proposals]
            )
        ends.append(diagnostics["entropy/op"])
    assert ends[1] > ends[0]
    assert ends[1] == pytest.approx(math.log(6), abs=0.05)
