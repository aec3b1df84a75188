"""NSGA-II's selection, and the strategy on a space where every network is known."""

import numpy as np
import pytest
from pydantic import ValidationError

from benchmarks.pareto import hypervolume
from nas_core.config import EvolutionSettings, ParetoSettings, SearchSettings
from nas_core.search.evolution import Evolution
from nas_core.search.pareto import Pareto, crowding, fronts
from nas_core.search.strategy import Proposal, Result, Strategy
from nas_core.space.decisions import Decision, Space

KNOWN = Space(
    tuple(Decision("op", 4, edge) for edge in range(8)),
    lambda choices: type("Network", (), {"id": str(tuple(choices))})(),
)


def test_fronts_are_peeled_one_by_one() -> None:
    values = np.array([[0, 3], [1, 1], [3, 0], [1, 3], [2, 2], [3, 3], [1, 1]], float)
    assert fronts(values).tolist() == [0, 0, 0, 1, 1, 2, 0]


def test_crowding_is_the_share_of_the_range_between_neighbours() -> None:
    values = np.array([[0, 8], [1, 6], [4, 2], [8, 0]], float)
    assert crowding(values).tolist() == [np.inf, 4 / 8 + 6 / 8, 7 / 8 + 6 / 8, np.inf]
    assert crowding(np.array([[1.0, 5.0], [1.0, 7.0]])).tolist() == [np.inf, np.inf]


def quality(proposal: Proposal) -> float:
    """Each choice is worth more the dearer it is, and the less the more are dear."""
    return float(np.sqrt(np.array(proposal.choices) @ [1, 3, 1, 2, 1, 1, 3, 1]))


def cost(proposal: Proposal) -> float:
    return float(np.array(proposal.choices) @ [2, 1, 3, 1, 2, 3, 1, 2])


def searched(strategy: Strategy, weight: float) -> float:
    points = []
    for _ in range(25):
        proposals = strategy.ask(4)
        points += [(cost(one), quality(one)) for one in proposals]
        strategy.tell(
            [Result(one, quality(one) - weight * cost(one), (cost(one),)) for one in proposals]
        )
    return hypervolume(points, 45.0, 0.0)


def test_it_finds_a_wider_front_than_a_weighted_reward() -> None:
    """At equal numbers of networks, over ten seeds, whatever the weight of cost."""
    found = [searched(Pareto(ParetoSettings(), seed, KNOWN), 0.0) for seed in range(10)]
    for weight in (0.0, 0.1):
        weighted = [
            searched(Evolution(EvolutionSettings(), seed, KNOWN), weight) for seed in range(10)
        ]
        assert np.mean(found) > np.mean(weighted)


def test_the_population_keeps_the_ends_and_no_dominated_one() -> None:
    strategy = Pareto(ParetoSettings(population_size=3), 0, KNOWN)
    values = [(0.9, 9.0), (0.1, 1.0), (0.5, 5.0), (0.2, 6.0)]
    results = [Result(p, *(v[0], (v[1],))) for p, v in zip(strategy.ask(4), values, strict=True)]
    assert strategy.tell(results)["front_size"] == 3
    kept = [(-reward, dear) for reward, dear in strategy._values()]
    assert kept == [(0.9, 9.0), (0.1, 1.0), (0.5, 5.0)]


def test_costs_count_once() -> None:
    with pytest.raises(ValidationError, match=r"pareto\.costs"):
        SearchSettings.model_validate({"strategy": "pareto", "reward": {"cost": "macs"}})
    with pytest.raises(ValidationError, match="given twice"):
        ParetoSettings.model_validate({"costs": ["macs", "macs"]})
