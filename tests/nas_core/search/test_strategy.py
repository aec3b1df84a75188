"""What every strategy promises; each test runs over all of them."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch

from nas_core.base.errors import RunError
from nas_core.config import SearchSettings
from nas_core.search.strategy import (
    MAX_DRAWS,
    STRATEGIES,
    Proposal,
    Result,
    Strategy,
    make_strategy,
)
from nas_core.space.decisions import DECISIONS, Decision, Space, decode, encode
from nas_core.space.genotype import Genotype

Make = Callable[[int], Strategy]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ppo", {}),
    ("ppo", {"autoregressive": False, "epochs": 2, "buffer_size": 5}),
    ("reinforce", {}),
    ("reinforce", {"autoregressive": False}),
    ("evolution", {"population_size": 6, "sample_size": 3}),
    ("pareto", {"population_size": 6}),
    ("random", {}),
]


def settings_of(name: str, **changes: Any) -> SearchSettings:
    """The settings of a strategy, with changes to its own section."""
    section = name if name in ("evolution", "pareto") else "controller"
    return SearchSettings.model_validate({"strategy": name, section: changes})


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]} {case[1]}" if case[1] else case[0])
def make(request: pytest.FixtureRequest) -> Make:
    name, changes = request.param
    if name in ("ppo", "reinforce"):
        changes = {"learning_rate": 0.01, **changes}
    return lambda seed: make_strategy(settings_of(name, **changes), seed)


def share_of_zeros(proposal: Proposal) -> float:
    """A reward that an architecture gets for choosing 0 wherever there is a choice."""
    real = [c for c, d in zip(proposal.choices, DECISIONS, strict=True) if d.num_choices > 1]
    return sum(choice == 0 for choice in real) / len(real)


def play(strategy: Strategy, num_rounds: int, size: int = 4) -> list[Any]:
    """All that a search sees of a strategy. The second candidate of a round fails."""
    seen: list[Any] = []
    for _ in range(num_rounds):
        proposals = strategy.ask(size)
        results = [
            Result(proposal, None if index == 1 else share_of_zeros(proposal), (len(seen) + index,))
            for index, proposal in enumerate(proposals)
        ]
        seen.append((proposals, strategy.tell(results)))
    return seen


def through_disk(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(first: Any, second: Any) -> None:
    """Equality, bit for bit, of nested plain values and tensors."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for left, right in zip(first, second, strict=True):
            assert_same(left, right)
    else:
        assert first == second


def test_names_are_those_of_the_settings() -> None:
    assert get_args(SearchSettings.model_fields["strategy"].annotation) == STRATEGIES
    assert {name for name, _ in CASES} == {*STRATEGIES}
    for name in STRATEGIES:
        assert make_strategy(settings_of(name), seed=0).name == name


def test_proposals_are_legal_and_their_choices_are_theirs(make: Make) -> None:
    proposals = make(3).ask(50)
    assert len(proposals) == 50
    for proposal in proposals:
        assert encode(proposal.genotype) == proposal.choices
        assert decode(proposal.choices) == proposal.genotype
        assert all(type(choice) is int for choice in proposal.choices)
    assert len({proposal.choices for proposal in proposals}) > 40


def test_same_seed_same_search(make: Make) -> None:
    assert play(make(0), 3) == play(make(0), 3)
    assert make(0).ask(4) != make(1).ask(4)


def test_global_generators_are_neither_used_nor_changed(make: Make) -> None:
    expected = play(make(5), 2)
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    before = (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate())
    assert play(make(5), 2) == expected
    after = (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate())
    assert after == before


@pytest.mark.parametrize("num_rounds", [0, 3])
def test_restored_strategy_goes_on_bit_for_bit(make: Make, num_rounds: int) -> None:
    original = make(1)
    play(original, num_rounds)
    state = through_disk(original.state_dict())
    restored = make(2)
    play(restored, 1)
    restored.load_state_dict(state)
    assert_same(restored.state_dict(), original.state_dict())
    assert play(restored, 3) == play(original, 3)
    assert_same(restored.state_dict(), original.state_dict())


def test_round_that_was_cut_off_is_proposed_again(make: Make) -> None:
    strategy = make(1)
    play(strategy, 2)
    state = strategy.state_dict()
    proposals = strategy.ask(3)
    strategy.load_state_dict(state)
    assert strategy.ask(3) == proposals


def test_state_is_a_copy(make: Make) -> None:
    strategy = make(1)
    play(strategy, 2)
    state = strategy.state_dict()
    kept = through_disk(state)
    play(strategy, 2)
    assert_same(state, kept)
    strategy.load_state_dict(state)
    play(strategy, 2)
    assert_same(state, kept)


def test_round_of_failures_teaches_nothing(make: Make) -> None:
    strategy = make(1)
    play(strategy, 2)
    before = strategy.state_dict()
    assert strategy.tell([Result(proposal, None) for proposal in strategy.ask(4)]) == {}
    after = strategy.state_dict()
    # Sampling moved the generator on, what was proposed is known, and that is all.
    for state in (before, after):
        del state["generator"], state["known"]
    assert_same(after, before)


def test_diagnostics_are_finite_numbers(make: Make) -> None:
    for proposals, diagnostics in play(make(1), 3):
        rewards = [share_of_zeros(p) for index, p in enumerate(proposals) if index != 1]
        assert diagnostics["reward_mean"] == pytest.approx(np.mean(rewards))
        assert 0 <= diagnostics["known_share"] < 1
        assert all(type(value) is float for value in diagnostics.values())
        assert all(math.isfinite(value) for value in diagnostics.values())


def test_rounds_are_asked_then_told(make: Make) -> None:
    strategy = make(1)
    with pytest.raises(ValueError, match="ask first"):
        strategy.tell([])
    proposals = strategy.ask(2)
    strategy.tell([Result(proposal, 0.5) for proposal in proposals])
    with pytest.raises(ValueError, match="ask first"):
        strategy.tell([Result(proposal, 0.5) for proposal in proposals])


def test_rounds_are_told_in_the_order_in_which_they_were_asked_for(make: Make) -> None:
    strategy = make(1)
    first, second = strategy.ask(2), strategy.ask(3)
    assert strategy.open_rounds == [first, second]
    with pytest.raises(ValueError, match="one result for each proposal"):
        strategy.tell([Result(proposal, 0.5) for proposal in second])
    strategy.tell([Result(proposal, 0.5) for proposal in first])
    assert strategy.open_rounds == [second]
    strategy.tell([Result(proposal, 0.5) for proposal in second])
    assert strategy.open_rounds == []


def play_ahead(strategy: Strategy, num_rounds: int, ahead: int) -> list[Any]:
    """As `play`, but `ahead` rounds are proposed before the one before them is learned from."""
    seen: list[Any] = []
    for _ in range(num_rounds):
        while len(strategy.open_rounds) <= ahead:
            strategy.ask(4)
        proposals = strategy.open_rounds[0]
        results = [
            Result(proposal, None if index == 1 else share_of_zeros(proposal))
            for index, proposal in enumerate(proposals)
        ]
        seen.append((proposals, strategy.tell(results)))
    return seen


def test_open_rounds_are_part_of_the_state(make: Make) -> None:
    original = make(1)
    play_ahead(original, 3, ahead=2)
    restored = make(2)
    play(restored, 1)
    restored.load_state_dict(through_disk(original.state_dict()))
    assert restored.open_rounds == original.open_rounds
    assert len(restored.open_rounds) == 2
    assert play_ahead(restored, 4, ahead=2) == play_ahead(original, 4, ahead=2)
    assert_same(restored.state_dict(), original.state_dict())


@pytest.mark.parametrize("name", ["ppo", "reinforce", "evolution"])
def test_strategies_learn_from_older_proposals_too(name: str) -> None:
    changes = {} if name == "evolution" else {"learning_rate": 0.06, "epochs": 2}
    gains = []
    for seed in range(3):  # a kind of CPU rounds as it does, and one seed may be unlucky there
        strategy = make_strategy(settings_of(name, **changes), seed)
        rounds = play_ahead(strategy, 36, ahead=4)
        first, last = (
            np.mean([share_of_zeros(p) for proposals, _ in part for p in proposals])
            for part in (rounds[:6], rounds[-6:])
        )
        gains.append(last - first)
    assert np.mean(gains) > 0.1


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results[:-1],
        lambda results: results[::-1],
        lambda results: [*results, results[0]],
    ],
    ids=["one is missing", "another order", "one too many"],
)
def test_results_are_those_of_the_round(
    make: Make, change: Callable[[Sequence[Result]], Sequence[Result]]
) -> None:
    strategy = make(1)
    results = [Result(proposal, 0.5) for proposal in strategy.ask(3)]
    with pytest.raises(ValueError, match="one result for each proposal"):
        strategy.tell(change(results))
    strategy.tell(results)


@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_reward_is_finite_or_none(reward: float) -> None:
    (proposal,) = make_strategy(settings_of("random"), seed=0).ask(1)
    with pytest.raises(ValueError, match="None"):
        Result(proposal, reward)


def test_state_of_another_strategy_is_refused(make: Make) -> None:
    strategy = make(1)
    for name in STRATEGIES:
        if name != strategy.name:
            state = make_strategy(settings_of(name), seed=1).state_dict()
            with pytest.raises(RunError, match=f"strategy {name}, not {strategy.name}"):
                strategy.load_state_dict(state)


@pytest.mark.parametrize("count", [-1, 4, True, 1.0, "1", None])
def test_state_whose_counts_are_none_is_refused(count: object) -> None:
    strategy = make_strategy(settings_of("random"), seed=0)
    strategy.ask(3)
    state = strategy.state_dict()
    with pytest.raises(RunError, match="is malformed"):
        strategy.load_state_dict(state | {"num_started": count})
    if count == 4:
        return  # of draws it says nothing
    (opened,) = state["open"]
    for key in ("num_refused", "num_known"):
        with pytest.raises(RunError, match="is malformed"):
            strategy.load_state_dict(state | {"open": [opened | {key: count}]})


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_state_of_the_other_form_of_controller_is_refused(name: str) -> None:
    state = make_strategy(settings_of(name, autoregressive=False), seed=1).state_dict()
    with pytest.raises(RunError, match="autoregressive=False"):
        make_strategy(settings_of(name), seed=1).load_state_dict(state)


@pytest.mark.parametrize("autoregressive", [True, False])
@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_learns(name: str, autoregressive: bool) -> None:
    settings = settings_of(
        name, learning_rate=0.02, epochs=2, buffer_size=16, autoregressive=autoregressive
    )
    uniform = make_strategy(settings_of("random"), seed=0).ask(200)
    by_chance = np.mean([share_of_zeros(proposal) for proposal in uniform])
    strategy = make_strategy(settings, seed=0)
    for _ in range(12):
        proposals = strategy.ask(16)
        strategy.tell([Result(proposal, share_of_zeros(proposal)) for proposal in proposals])
    learned = np.mean([share_of_zeros(proposal) for proposal in strategy.ask(50)])
    assert learned > by_chance + 0.2


def test_evolution_learns() -> None:
    strategy = make_strategy(settings_of("evolution"), seed=0)
    first = np.mean([share_of_zeros(proposal) for proposal, _ in iterate(strategy, 24)])
    last = np.mean([share_of_zeros(proposal) for proposal, _ in iterate(strategy, 200)][-24:])
    assert last > first + 0.15


def iterate(strategy: Strategy, num: int) -> list[tuple[Proposal, dict[str, float]]]:
    """Candidates one by one, and what was learned from each."""
    seen = []
    for _ in range(num):
        (proposal,) = strategy.ask(1)
        seen.append((proposal, strategy.tell([Result(proposal, share_of_zeros(proposal))])))
    return seen


def test_child_differs_from_its_parent_as_a_network() -> None:
    strategy = make_strategy(settings_of("evolution", population_size=2, sample_size=2), seed=0)
    (best, other) = strategy.ask(2)
    strategy.tell([Result(best, 0.9), Result(other, 0.1)])
    children = strategy.ask(40)
    assert best.genotype.id not in {child.genotype.id for child in children}
    num_changes = [
        sum(a != b for a, b in zip(child.choices, best.choices, strict=True)) for child in children
    ]
    # The others drew a change that made no difference before.
    assert num_changes.count(1) > 20


def test_population_forgets_the_oldest() -> None:
    strategy = make_strategy(settings_of("evolution", population_size=2, sample_size=2), seed=0)
    strategy.tell([Result(proposal, 0.9) for proposal in strategy.ask(2)])
    second = strategy.tell([Result(proposal, 0.2) for proposal in strategy.ask(1)])
    third = strategy.tell([Result(proposal, 0.4) for proposal in strategy.ask(1)])
    assert second["population_mean"] == pytest.approx((0.9 + 0.2) / 2)
    assert third["population_mean"] == pytest.approx((0.2 + 0.4) / 2)


def too_many_skips(genotype: Genotype) -> str | None:
    """Refuses about a third of all."""
    skips = sum(template.op1 == 5 or template.op2 == 5 for template in genotype.templates)
    return "max_skips" if skips > 1 else None


def test_what_is_refused_is_drawn_again(make: Make) -> None:
    strategy = make(0)
    shares = []
    for _ in range(4):
        proposals = strategy.ask(10, too_many_skips)
        assert len(proposals) == 10
        assert not any(too_many_skips(proposal.genotype) for proposal in proposals)
        results = [Result(proposal, share_of_zeros(proposal)) for proposal in proposals]
        shares.append(strategy.tell(results)["refused_share"])
    assert 0 < max(shares) < 1


def test_refusals_are_the_same_again(make: Make) -> None:
    assert make(0).ask(10, too_many_skips) == make(0).ask(10, too_many_skips)


def test_limits_that_nothing_meets(make: Make) -> None:
    strategy = make(0)
    asked: list[Genotype] = []

    def refuse(genotype: Genotype) -> str:
        asked.append(genotype)
        return "max_macs" if len(asked) % 3 else "max_parameters"

    with pytest.raises(RunError, match=r"of 200 proposals 0 were within.*; max_macs refused most"):
        strategy.ask(2, refuse)
    assert len(asked) == 200
    # The round is not open: looser limits go on.
    assert len(strategy.ask(2)) == 2


@dataclass(frozen=True)
class Small:
    """A network of 3 * 3 choices; the last of its three decisions makes no difference."""

    choices: tuple[int, ...]

    @property
    def id(self) -> str:
        return str(self.choices[:2])


NUM_SMALL = 9
SMALL = Space(
    tuple(Decision("op", 3, index) for index in range(3)),
    lambda choices: cast(Genotype, Small(tuple(choices))),
)


@pytest.fixture(params=STRATEGIES)
def make_small(request: pytest.FixtureRequest) -> Callable[[int], Strategy]:
    """Of a space with few networks, as a strategy that has nearly converged sees one."""
    changes = {"population_size": 2, "sample_size": 1} if request.param == "evolution" else {}
    return lambda seed: make_strategy(settings_of(request.param, **changes), seed, SMALL)


def explore(strategy: Strategy, num_rounds: int, size: int) -> list[list[str]]:
    """The ids of each round. The first of a round fails."""
    seen = []
    for _ in range(num_rounds):
        proposals = strategy.ask(size)
        seen.append([proposal.genotype.id for proposal in proposals])
        rewards = [None, *(float(proposal.choices[0]) for proposal in proposals[1:])]
        strategy.tell([Result(*pair) for pair in zip(proposals, rewards, strict=True)])
    return seen


def test_what_was_proposed_before_is_drawn_again(make_small: Callable[[int], Strategy]) -> None:
    """Whether its training failed, or its round is open."""
    strategy = make_small(0)
    first, second = explore(strategy, 2, size=2)
    third = [proposal.genotype.id for _ in range(2) for proposal in strategy.ask(2)]
    assert len({*first, *second, *third}) == 8


def test_when_nothing_new_is_left_a_round_repeats(make_small: Callable[[int], Strategy]) -> None:
    strategy = make_small(0)
    (seen,) = explore(strategy, 1, size=NUM_SMALL)
    assert len(set(seen)) == NUM_SMALL
    proposals = strategy.ask(4)
    assert {proposal.genotype.id for proposal in proposals} <= {*seen}
    shares = strategy.tell([Result(proposal, 0.5) for proposal in proposals])
    # All draws but the four that stood.
    draws = 4 * MAX_DRAWS + 4
    assert shares["known_share"] == pytest.approx(draws / (draws + 4))


@pytest.mark.parametrize("num_rounds", [1, 2, 4])
def test_restored_strategy_knows_what_it_proposed(
    make_small: Callable[[int], Strategy], num_rounds: int
) -> None:
    original = make_small(1)
    explore(original, num_rounds, size=2)
    original.ask(1)
    restored = make_small(2)
    restored.load_state_dict(through_disk(original.state_dict()))
    for strategy in (original, restored):
        strategy.tell([Result(proposal, 0.5) for proposal in strategy.open_rounds[0]])
    assert explore(restored, 3, size=2) == explore(original, 3, size=2)
    assert_same(restored.state_dict(), original.state_dict())


def test_known_networks_count_toward_no_limit() -> None:
    """The share of refused draws is of the new ones, and a known one is not asked about again."""
    strategy = make_strategy(settings_of("random"), 0, SMALL)
    asked: list[str] = []

    def refuse(genotype: Genotype) -> str | None:
        asked.append(genotype.id)
        return "max_macs" if genotype.id.startswith("(0") else None

    proposals = strategy.ask(6, refuse)
    kept = {proposal.genotype.id for proposal in proposals}
    assert len(kept) == 6 and not [name for name in kept if name.startswith("(0")]
    assert all(asked.count(name) == 1 for name in kept)
    num_refused = len(asked) - 6
    shares = strategy.tell([Result(proposal, 0.5) for proposal in proposals])
    assert shares["refused_share"] == pytest.approx(num_refused / (num_refused + 6))
    assert shares["known_share"] > 0


def test_where_all_that_is_new_is_refused_a_round_repeats(
    make_small: Callable[[int], Strategy],
) -> None:
    """As of a controller that has converged beside a limit."""
    strategy = make_small(0)
    (seen,) = explore(strategy, 1, size=4)
    proposals = strategy.ask(3, lambda genotype: "max_macs")
    assert {proposal.genotype.id for proposal in proposals} <= {*seen}
    restored = make_small(1)
    restored.load_state_dict(through_disk(strategy.state_dict()))
    assert restored.open_rounds == strategy.open_rounds == [proposals]
