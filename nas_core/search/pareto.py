"""A search for all that is worth its cost: the selection of Deb et al., "A Fast and Elitist
Multiobjective Genetic Algorithm: NSGA-II", IEEE Trans. Evol. Comput. 6(2), 2002."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_core.config import ParetoSettings
from nas_core.search.evolution import mutate
from nas_core.search.strategy import Proposal, Result, Strategy
from nas_core.space.decisions import SPACE, Space

Floats = npt.NDArray[np.float64]


class Pareto(Strategy):
    """Quality and cost side by side, with no weight between them: NSGA-II with mutations alone.

    Until `population_size` candidates have a reward, proposals are uniform. Then each is a mutation
    of a parent, the better of two drawn from the population: of the lower front, of the larger
    crowding distance within one. After each round the population is the best of itself and the new
    candidates by the same order.

    Diagnostics of `tell`: `front_size`, the number of the population's members that no other
    dominates; `population_mean`, its mean reward.
    """

    name = "pareto"

    def __init__(self, settings: ParetoSettings, seed: int, space: Space = SPACE) -> None:
        super().__init__(space)
        self.settings = settings
        self._generator = np.random.default_rng(seed)
        self._population: list[tuple[Proposal, tuple[float, ...]]] = []
        """With what is to be small: the negative reward, and the costs."""

    def _draw(self, num: int) -> list[Proposal]:
        if len(self._population) < self.settings.population_size:
            return [self._propose(self.space.sample(self._generator)) for _ in range(num)]
        order = _order(self._values())
        place = np.empty(len(order), int)
        place[order] = range(len(order))
        return [self._child(place) for _ in range(num)]

    def _child(self, place: npt.NDArray[np.int64]) -> Proposal:
        drawn = self._generator.choice(len(place), 2, replace=False)
        parent, _ = self._population[min(drawn, key=lambda index: int(place[index]))]
        return self._propose(mutate(parent.choices, self.space, self._generator))

    def _learn(self, results: Sequence[Result]) -> dict[str, float]:
        self._population += [
            (one.proposal, (-one.reward, *map(float, one.costs)))
            for one in results
            if one.reward is not None
        ]
        kept = _order(self._values())[: self.settings.population_size]
        self._population = [self._population[index] for index in sorted(kept)]
        values = self._values()
        return {
            "front_size": float((fronts(values) == 0).sum()),
            "population_mean": float(-values[:, 0].mean()),
        }

    def _values(self) -> Floats:
        return np.array([values for _, values in self._population])

    def _state(self) -> dict[str, Any]:
        return {
            "generator": self._generator.bit_generator.state,
            "population": [(list(p.choices), list(values)) for p, values in self._population],
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._generator.bit_generator.state = state["generator"]
        population = [
            (self._propose(choices), tuple(float(value) for value in values))
            for choices, values in state["population"]
        ]
        sizes = {len(values) for _, values in population}
        if len(sizes) > 1 or not all(all(map(math.isfinite, values)) for _, values in population):
            raise ValueError("population has values that are not finite, or not as many for all")
        self._population = population


def fronts(values: Floats) -> npt.NDArray[np.int64]:
    """The front of each point, from 0: what is left undominated once the earlier fronts are gone.

    Args:
        values: (N, objectives), all to be small. A point dominates another if it is nowhere larger
            and somewhere smaller.

    Returns:
        (N,).
    """
    not_larger = np.all(values[:, None] <= values[None], axis=2)
    smaller = np.any(values[:, None] < values[None], axis=2)
    dominates: npt.NDArray[np.bool_] = np.logical_and(not_larger, smaller)
    front = np.full(len(values), -1)
    number = 0
    while np.any(front < 0):
        left = np.flatnonzero(front < 0)
        free = left[~dominates[np.ix_(left, left)].any(axis=0)]
        front[free] = number
        number += 1
    return front


def crowding(values: Floats) -> Floats:
    """The crowding distance of points of one front: how far apart its neighbours are.

    Over the objectives, the sum of the distances between the two neighbours, as shares of the
    front's range. Infinite for the ends.

    Args:
        values: (N, objectives).

    Returns:
        (N,).
    """
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if span > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def _order(values: Floats) -> npt.NDArray[np.int64]:
    """Indices of the points, the best first."""
    front = fronts(values)
    distance = np.empty(len(values))
    for number in range(front.max() + 1):
        distance[front == number] = crowding(values[front == number])
    return np.lexsort((-distance, front))
