"""Random search, the baseline that every strategy has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nas_core.search.strategy import Proposal, Result, Strategy
from nas_core.space.decisions import SPACE, Space


class RandomSearch(Strategy):
    """Proposes uniformly and never learns."""

    name = "random"

    def __init__(self, seed: int, space: Space = SPACE) -> None:
        super().__init__(space)
        self._generator = np.random.default_rng(seed)

    def _draw(self, num: int) -> list[Proposal]:
        return [self._propose(self.space.sample(self._generator)) for _ in range(num)]

    def _learn(self, results: Sequence[Result]) -> dict[str, float]:
        return {}

    def _state(self) -> dict[str, Any]:
        return {"generator": self._generator.bit_generator.state}

    def _load(self, state: dict[str, Any]) -> None:
        self._generator.bit_generator.state = state["generator"]
