"""The candidates of a search, best first: by the mean of their rewards where there are several.

Without torch, which takes seconds to import.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from nas_core.search.journal import Confirmation, Record


@dataclass(frozen=True)
class Ranked:
    """A candidate, and what further trainings with other seeds made of it."""

    record: Record
    runs: tuple[Record | Confirmation, ...]
    """Those with a reward: its own, if it has one, and those that confirm it."""
    num_failed_runs: int
    """Of those that were to confirm it."""
    reward_error: float | None
    """Standard error of `reward`; None for a single one, of which none is known."""

    @property
    def is_confirmed(self) -> bool:
        return len(self.runs) > 1

    @property
    def reward(self) -> float | None:
        """The mean over the runs; None if there is none."""
        return _mean(run.reward for run in self.runs)

    @property
    def quality(self) -> float | None:
        return _mean(run.scores[-1] if run.scores else None for run in self.runs)

    def metric(self, name: str) -> float | None:
        return _mean(run.metrics.get(name) for run in self.runs)


def ranking(candidates: Iterable[Record], confirmations: Iterable[Confirmation]) -> list[Ranked]:
    """All candidates, the best first and those that failed last.

    Confirmed ones are before all others: they were the best by the one reward that each has, and
    where a mean and a single reward are compared, luck wins. Equal ones are in the order of age.

    The standard error is the standard deviation of one network's rewards, pooled over all that are
    confirmed, by the root of the number of rewards: that of a candidate's own two or three rewards
    says too little.
    """
    of_candidate: dict[str, list[Confirmation]] = {}
    for one in confirmations:
        of_candidate.setdefault(one.confirms, []).append(one)
    own = {record.index: record for record in candidates}
    runs = {
        index: tuple(
            run for run in (record, *of_candidate.get(record.id, ())) if run.reward is not None
        )
        for index, record in own.items()
    }
    deviation = _deviation([[run.reward for run in of_one] for of_one in runs.values()])
    ranked = [
        Ranked(
            record,
            runs[index],
            sum(one.status == "failed" for one in of_candidate.get(record.id, ())),
            deviation / math.sqrt(len(runs[index])) if len(runs[index]) > 1 else None,
        )
        for index, record in own.items()
    ]
    return sorted(ranked, key=_order)


def _deviation(rewards: Sequence[Sequence[float | None]]) -> float:
    """Of one candidate's rewards, pooled; 0 if none has several."""
    squares, freedom = 0.0, 0
    for values in rewards:
        known = [value for value in values if value is not None]
        if len(known) > 1:
            mean = fmean(known)
            squares += math.fsum((value - mean) ** 2 for value in known)
            freedom += len(known) - 1
    return math.sqrt(squares / freedom) if freedom else 0.0


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _order(one: Ranked) -> tuple[bool, float, int]:
    reward = -math.inf if one.reward is None else one.reward
    return not one.is_confirmed, -reward, one.record.index
