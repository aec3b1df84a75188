from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from nas_core.search.controller import Controller
from nas_core.space.decisions import DECISIONS, Decision

FORMS = pytest.mark.parametrize("autoregressive", [True, False])
TINY = (
    Decision("op", 3, 0),
    Decision("op", 3, 0),
    Decision("input", 2, 0),
    Decision("stride", 2, 0),
    Decision("input", 3, 1),
    Decision("stride", 1, 1),
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sharp_controller(autoregressive: bool) -> Controller:
    """A controller for the decisions `TINY` with weights so large that it has preferences."""
    controller = Controller(seeded(0), autoregressive, decisions=TINY).double()
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.mul_(5)
    return controller


def all_choices() -> torch.Tensor:
    ranges = [range(decision.num_choices) for decision in TINY]
    return torch.tensor(list(itertools.product(*ranges)))


def test_size() -> None:
    controller = Controller(seeded(0))
    # A layer an op, agg, template, repeats, stride, and one for each input: 2 * (2 + ... + 8).
    num_rows = 6 + 2 + 3 + 4 + 2 + 70
    shapes = {name: tuple(value.shape) for name, value in controller.named_parameters()}
    assert shapes["head.weight"] == shapes["embedding.weight"] == (num_rows, 100)
    assert shapes["head.bias"] == (num_rows,)
    assert shapes["first_input"] == (100,)
    assert {n: s for n, s in shapes.items() if n.startswith("lstm.weight")} == {
        f"lstm.weight_{side}_l{layer}": (400, 100) for side in ("ih", "hh") for layer in (0, 1)
    }
    independent = dict(Controller(seeded(0), autoregressive=False).named_parameters())
    assert set(shapes) - set(independent) == {"embedding.weight"}


@FORMS
def test_initial_weights_are_uniform_and_from_the_generator(autoregressive: bool) -> None:
    before = torch.get_rng_state()
    controller = Controller(seeded(1), autoregressive)
    assert torch.equal(torch.get_rng_state(), before)
    again = Controller(seeded(1), autoregressive)
    other = Controller(seeded(2), autoregressive)
    for parameter, same, different in zip(
        controller.parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(parameter, same)
        assert not torch.equal(parameter, different)
        assert -0.1 <= parameter.min() < -0.08
        assert 0.08 < parameter.max() <= 0.1
        assert abs(parameter.mean()) < 0.03


@FORMS
def test_probabilities_of_all_sequences_sum_to_one(autoregressive: bool) -> None:
    log_probs, _ = sharp_controller(autoregressive).evaluate(all_choices())
    probabilities = log_probs.sum(dim=1).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-9)
    assert probabilities.max() > 3 * probabilities.min()


@FORMS
def test_entropies_are_those_of_the_sequences(autoregressive: bool) -> None:
    """By the chain rule, the expected sum of the decisions' entropies is the joint entropy."""
    log_probs, entropies = sharp_controller(autoregressive).evaluate(all_choices())
    joint = log_probs.sum(dim=1)
    expected = -(joint.exp() * joint).sum()
    assert (joint.exp() * entropies.sum(dim=1)).sum().item() == pytest.approx(expected.item())


@FORMS
def test_samples_have_the_probabilities_that_are_evaluated(autoregressive: bool) -> None:
    controller = sharp_controller(autoregressive)
    num = 4_000
    choices, _ = controller.sample(num, seeded(3))
    sequences, counts = choices.unique(dim=0, return_counts=True)
    with torch.no_grad():
        expected = controller.evaluate(sequences)[0].sum(dim=1).exp().numpy()
    deviation = np.sqrt(expected * (1 - expected) / num)
    assert (np.abs(counts.numpy() / num - expected) < 5 * deviation + 1e-4).all()


@FORMS
def test_log_probs_of_samples_are_those_evaluated(autoregressive: bool) -> None:
    controller = Controller(seeded(0), autoregressive)
    choices, log_probs = controller.sample(20, seeded(1))
    assert choices.shape == log_probs.shape == (20, len(DECISIONS))
    assert choices.dtype == torch.int64
    evaluated, entropies = controller.evaluate(choices)
    torch.testing.assert_close(evaluated.detach(), log_probs, rtol=1e-5, atol=1e-5)
    assert entropies.shape == (20, len(DECISIONS))
    most = torch.tensor([decision.num_choices for decision in DECISIONS]).log()
    assert (entropies <= most + 1e-5).all()


@FORMS
def test_stride_is_certain_where_stride_2_is_not_allowed(autoregressive: bool) -> None:
    controller = Controller(seeded(0), autoregressive)
    choices, log_probs = controller.sample(10, seeded(1))
    _, entropies = controller.evaluate(choices)
    certain = [decision.num_choices == 1 for decision in DECISIONS]
    assert sum(certain) == 4
    assert (choices[:, certain] == 0).all()
    assert (log_probs[:, certain] == 0).all()
    assert (entropies[:, certain] == 0).all()
    assert (log_probs[:, [not c for c in certain]] < 0).all()


@FORMS
@pytest.mark.parametrize("position", [0, 9, 30])
def test_a_decision_acts_on_later_ones_only_if_autoregressive(
    autoregressive: bool, position: int
) -> None:
    controller = Controller(seeded(0), autoregressive)
    choices, _ = controller.sample(1, seeded(1))
    others = choices.clone()
    others[0, position] = 1 - others[0, position].clamp(max=1)
    with torch.no_grad():
        change = (controller.evaluate(choices)[0] - controller.evaluate(others)[0])[0].abs()
    assert (change[:position] < 1e-6).all()
    assert change[position] > 1e-5
    acts = (change[position + 1 :] > 1e-6).any()
    assert acts == autoregressive


@FORMS
def test_every_parameter_gets_a_finite_gradient(autoregressive: bool) -> None:
    controller = Controller(seeded(0), autoregressive)
    log_probs, entropies = controller.evaluate(controller.sample(8, seeded(1))[0])
    (log_probs.sum() + entropies.sum()).backward()
    for name, parameter in controller.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
