"""Regularised evolution: Real et al., "Regularized Evolution for Image Classifier Architecture
Search", arXiv 1802.01548."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nas_core.config import EvolutionSettings
from nas_core.search.strategy import Proposal, Result, Strategy
from nas_core.space.decisions import SPACE, Space


class Evolution(Strategy):
    """The population is the last `population_size` candidates with a reward: the oldest dies.

    Until it is full, proposals are uniform. Then each is a mutation of a parent, the best of
    `sample_size` drawn from the population.

    Diagnostics of `tell`: `population_mean`, the mean reward of the population.
    """

    name = "evolution"

    def __init__(self, settings: EvolutionSettings, seed: int, space: Space = SPACE) -> None:
        super().__init__(space)
        self.settings = settings
        self._generator = np.random.default_rng(seed)
        self._population: list[tuple[Proposal, float]] = []

    def _draw(self, num: int) -> list[Proposal]:
        return [self._draw_one() for _ in range(num)]

    def _draw_one(self) -> Proposal:
        if len(self._population) < self.settings.population_size:
            return self._propose(self.space.sample(self._generator))
        drawn = self._generator.choice(
            len(self._population), self.settings.sample_size, replace=False
        )
        parent, _ = max((self._population[index] for index in drawn), key=lambda member: member[1])
        return self._propose(mutate(parent.choices, self.space, self._generator))

    def _learn(self, results: Sequence[Result]) -> dict[str, float]:
        scored = [(r.proposal, r.reward) for r in results if r.reward is not None]
        self._population = (self._population + scored)[-self.settings.population_size :]
        rewards = [reward for _, reward in self._population]
        return {"population_mean": sum(rewards) / len(rewards)}

    def _state(self) -> dict[str, Any]:
        return {
            "generator": self._generator.bit_generator.state,
            "population": [(list(p.choices), reward) for p, reward in self._population],
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._generator.bit_generator.state = state["generator"]
        population = [(self._propose(choices), float(r)) for choices, r in state["population"]]
        if not all(math.isfinite(reward) for _, reward in population):
            raise ValueError("population has a reward that is not finite")
        self._population = population


def mutate(choices: Sequence[int], space: Space, generator: np.random.Generator) -> tuple[int, ...]:
    """Choices that make another network.

    One decision is changed, and then another, until the network is another: many changes, such as
    that of an unused template, make no difference.
    """
    # The others have one choice.
    mutable = [index for index, one in enumerate(space.decisions) if one.num_choices > 1]
    parent = space.decode(choices).id
    child = list(choices)
    while space.decode(child).id == parent:
        index = int(generator.choice(mutable))
        # Another one than the present, all others with the same probability.
        other = int(generator.integers(space.decisions[index].num_choices - 1))
        child[index] = other + (other >= child[index])
    return tuple(child)
