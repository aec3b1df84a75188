from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nas_core.config import ControllerSettings
from nas_core.search.controller import Controller
from nas_core.search.ppo import PPO, clipped_surrogate_loss
from nas_core.search.strategy import Result
from nas_core.space.decisions import DECISIONS

Rows = Sequence[Sequence[float]]


def numpy_loss(
    log_probs: Rows, old_log_probs: Rows, advantages: Sequence[float], clip: float
) -> float:
    """The surrogate of the PPO paper, one decision after the other."""
    total = 0.0
    for new_row, old_row, advantage in zip(log_probs, old_log_probs, advantages, strict=True):
        for new, old in zip(new_row, old_row, strict=True):
            ratio = np.exp(np.float64(new) - np.float64(old))
            if advantage >= 0:
                total += min(ratio, 1 + clip) * advantage
            else:
                total += max(ratio, 1 - clip) * advantage
    return -total / len(advantages)


def rollout_log_probs(controller: Controller, choices: torch.Tensor) -> list[list[float]]:
    with torch.no_grad():
        return controller.evaluate(choices)[0].tolist()


def play_round(
    strategy: PPO, rewards: Sequence[float | None]
) -> tuple[torch.Tensor, dict[str, float]]:
    """The choices of a round, and its diagnostics."""
    proposals = strategy.ask(len(rewards))
    diagnostics = strategy.tell([Result(*pair) for pair in zip(proposals, rewards, strict=True)])
    return torch.tensor([proposal.choices for proposal in proposals]), diagnostics


def gradients_of_step(strategy: PPO, earlier: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What the last step of Adam got, from its first moments before (`earlier`) and after."""
    moments = first_moments(strategy)
    decay = strategy._optimizer.param_groups[0]["betas"][0]
    return [
        (after - decay * before) / (1 - decay)
        for before, after in zip(earlier, moments, strict=True)
    ]


def first_moments(strategy: PPO) -> list[torch.Tensor]:
    state = strategy._optimizer.state
    return [state[p]["exp_avg"].double().clone() for p in strategy.controller.parameters()]


def rows_of(num: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(-1, 1), min_size=num, max_size=num)


@given(
    rows=st.lists(st.tuples(rows_of(3), rows_of(3), st.floats(-1, 1)), min_size=1, max_size=8),
    clip=st.floats(0.01, 0.9),
)
def test_loss_is_that_of_numpy(
    rows: list[tuple[list[float], list[float], float]], clip: float
) -> None:
    log_ratio, old, advantages = (list(column) for column in zip(*rows, strict=True))
    new = (np.array(log_ratio) + np.array(old)).tolist()
    loss = clipped_surrogate_loss(
        torch.tensor(new, dtype=torch.float64) - torch.tensor(old, dtype=torch.float64),
        torch.tensor(advantages, dtype=torch.float64),
        clip,
    )
    assert loss.item() == pytest.approx(numpy_loss(new, old, advantages, clip), abs=1e-12)


def test_gradient_of_the_loss_in_each_case() -> None:
    """d loss / d log ratio is -ratio * A / N, or 0 where clipping has taken hold."""
    ratio = np.array([1.0, 1.0, 1.05, 1.3, 1.3, 0.7, 0.7])
    advantage = np.array([2.0, -2.0, 2.0, 2.0, -2.0, 2.0, -2.0])
    pushes = np.array([True, True, True, False, True, True, False])
    log_ratio = torch.tensor(np.log(ratio))[:, None].requires_grad_()
    clipped_surrogate_loss(log_ratio, torch.tensor(advantage), clip=0.1).backward()
    expected = -ratio * advantage * pushes / len(ratio)
    np.testing.assert_allclose(log_ratio.grad.numpy()[:, 0], expected, atol=1e-12)


def test_a_decision_that_is_clipped_does_not_stop_the_others() -> None:
    log_ratio = torch.tensor([[0.5, 0.0]], requires_grad=True)
    clipped_surrogate_loss(log_ratio, torch.tensor([2.0]), clip=0.1).backward()
    assert log_ratio.grad.tolist() == [[0.0, -2.0]]


def test_update_follows_the_gradient_of_the_numpy_loss() -> None:
    """Two rounds; in the second, candidates of the first are learned from off policy."""
    clip = 0.02
    settings_ = ControllerSettings(learning_rate=0.003, epochs=1, max_gradient_norm=1e6, clip=clip)
    strategy = PPO(settings_, seed=3)
    rewards = [0.2, 0.9, 0.4, 0.1]
    first = copy.deepcopy(strategy.controller)
    choices, diagnostics = play_round(strategy, rewards)
    assert diagnostics["clip_fraction"] == 0
    assert diagnostics["approx_kl"] == pytest.approx(0, abs=1e-6)

    second = copy.deepcopy(strategy.controller).double()
    moments = first_moments(strategy)
    more_rewards = [0.7, 0.3, 0.5]
    more_choices, diagnostics = play_round(strategy, more_rewards)

    buffer = torch.cat([choices, more_choices])
    old = rollout_log_probs(first, choices) + rollout_log_probs(second, more_choices)
    # Those of the first round too are ranks among all.
    positions = (stats.rankdata(rewards + more_rewards) - 0.5) / 7
    advantages = stats.norm.ppf(positions).tolist()

    def loss_of(controller: Controller) -> float:
        return numpy_loss(rollout_log_probs(controller, buffer), old, advantages, clip)

    gradients = gradients_of_step(strategy, moments)
    generator = torch.Generator().manual_seed(0)
    for parameter, gradient in zip(second.parameters(), gradients, strict=True):
        # Along a random direction and the gradient's own, central differences.
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        for direction in (noise / noise.norm(), gradient / gradient.norm()):
            values = []
            kept = parameter.detach().clone()
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter.copy_(kept + step * direction)
                values.append(loss_of(second))
            with torch.no_grad():
                parameter.copy_(kept)
            slope = (values[0] - values[1]) / 2e-5
            assert (gradient * direction).sum().item() == pytest.approx(slope, rel=2e-3, abs=2e-5)

    log_ratio = np.array(rollout_log_probs(second, buffer)) - np.array(old)
    ratio = np.exp(log_ratio)
    with_choice = [decision.num_choices > 1 for decision in DECISIONS]
    clipped = float(np.mean(np.abs(ratio - 1)[:, with_choice] > clip))
    assert 0 < clipped < 1, "the case must have some of both"
    assert diagnostics["clip_fraction"] == pytest.approx(clipped)
    divergence = (ratio - 1 - log_ratio).sum(axis=1).mean()
    assert diagnostics["approx_kl"] == pytest.approx(divergence, rel=1e-2)
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    assert diagnostics["gradient_norm"] == pytest.approx(norm, rel=1e-3)


def test_buffer_holds_the_last_candidates_with_a_reward() -> None:
    strategy = PPO(ControllerSettings(learning_rate=0.01, buffer_size=5), seed=0)
    assert strategy.state_dict()["buffer"] is None
    behind: list[tuple[torch.Tensor, list[float], float]] = []
    for rewards in ([0.1, None, 0.2], [None, None], [0.3, 0.4, 0.5, None], [0.6]):
        policy = copy.deepcopy(strategy.controller)
        choices, _ = play_round(strategy, rewards)
        log_probs = rollout_log_probs(policy, choices)
        behind += [
            (choice, log_prob, reward)
            for choice, log_prob, reward in zip(choices, log_probs, rewards, strict=True)
            if reward is not None
        ]
        buffer = strategy.state_dict()["buffer"]
        expected = behind[-5:]
        assert torch.equal(buffer["choices"], torch.stack([row[0] for row in expected]))
        sampled_with = torch.tensor([row[1] for row in expected])
        torch.testing.assert_close(buffer["log_probs"], sampled_with, rtol=1e-5, atol=1e-4)
        assert buffer["rewards"].tolist() == [row[2] for row in expected]


def test_epochs_are_steps_of_an_update() -> None:
    for epochs in (1, 3):
        strategy = PPO(ControllerSettings(epochs=epochs), seed=0)
        play_round(strategy, [0.1, 0.2])
        steps = {int(state["step"]) for state in strategy._optimizer.state.values()}
        assert steps == {epochs}


def test_more_epochs_move_away_from_the_policy_that_sampled() -> None:
    strategy = PPO(ControllerSettings(epochs=8, learning_rate=0.003), seed=0)
    _, diagnostics = play_round(strategy, [0.1, 0.9, 0.2, 0.8])
    assert diagnostics["approx_kl"] > 1e-4
    assert diagnostics["clip_fraction"] > 0
