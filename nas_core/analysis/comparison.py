"""Search strategies side by side: at equal numbers of candidates and at equal training time.

Training time is what the proxy task took for the candidates, as their journals have it. Sampling,
learning and record keeping are not part of it, and a repeat costs nothing. It is time of the clock:
searches that ran under different loads compare unfairly by it, and fairly by number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd
from pydantic import JsonValue

from nas_core.analysis.uncertainty import Spread, spread
from nas_core.base.documents import Document
from nas_core.base.errors import RunError, SettingsError
from nas_core.config import Settings, StrategyName
from nas_core.loading import check_once, validate_settings
from nas_core.search.journal import Record

# What can be compared, and its search.strategy. ppo-independent is ppo with the authors'
# controller, whose decisions are independent of each other.
STRATEGIES = {"ppo": "ppo", "ppo-independent": "ppo", **{n: n for n in get_args(StrategyName)}}
# It looks for more than the best.
_BY_NAME_ONLY = {"pareto"}
SEEDS = (0, 1)
# The running mean is over this many candidates with a reward.
WINDOW = 20
# The last quarter of fewer is empty.
LEAST_CANDIDATES = 4

FIGURES = ("best_reward", "mean_reward", "last_quarter_reward")


@dataclass(frozen=True)
class PlannedSearch:
    """One search of a comparison, and the settings that it is run with."""

    strategy: str
    seed: int
    settings: Settings


@dataclass(frozen=True)
class ComparedSearch:
    """One search of a comparison, and its journal's records in order.

    Attributes:
        name: of the search's folder.
    """

    strategy: str
    seed: int
    name: str
    records: Sequence[Record]


class SearchFigures(Document):
    """Figures of a search up to some candidate; None where no candidate has a reward."""

    num_candidates: int
    num_failed: int
    num_stopped_early: int
    num_repeats: int
    best_reward: float | None
    mean_reward: float | None
    last_quarter_reward: float | None


class SearchReport(Document):
    """One search of a comparison."""

    strategy: str
    seed: int
    search: str
    """Name of its folder."""
    training_seconds: float
    equal_candidates: SearchFigures
    equal_time: SearchFigures


class StrategyReport(Document):
    """`FIGURES` of a strategy over its seeds; None where no search has one."""

    seeds: list[int]
    equal_candidates: dict[str, Spread | None]
    equal_time: dict[str, Spread | None]


class ComparisonFigures(Document):
    """What a comparison found."""

    num_candidates: int
    budget_seconds: float
    """The least training time of a search, which each could spend."""
    searches: list[SearchReport]
    strategies: dict[str, StrategyReport]


class ComparedSettings(Document):
    """What the searches of a comparison have in common."""

    name: str
    data_hash: str
    search: dict[str, JsonValue]


class ComparisonReport(ComparisonFigures, ComparedSettings):
    """compare.json."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        curves: a row for each candidate of each search. Columns: strategy, seed, candidate,
            training_seconds (until its end, with all before it), id, reward (NaN if it failed),
            best_reward so far, mean_reward of the last `WINDOW` with a reward.
    """

    curves: pd.DataFrame
    figures: ComparisonFigures


def plan_searches(
    settings: Settings,
    strategies: Sequence[str] = (),
    seeds: Sequence[int] = (),
    *,
    confirming: bool = False,
) -> list[PlannedSearch]:
    """The searches of a comparison, seed by seed, so that a part of them compares all strategies.

    Args:
        strategies: keys of `STRATEGIES`; all but pareto if empty.
        seeds: `SEEDS` if empty.
        confirming: whether the searches end with confirming their best.

    Raises:
        SettingsError: a strategy is unknown, something is given twice, a seed is out of range, or
            there are too few candidates to compare.
    """
    strategies, seeds = tuple(strategies) or _all(), tuple(seeds) or SEEDS
    for strategy in strategies:
        if strategy not in STRATEGIES:
            raise SettingsError(f"strategy {strategy!r}: there are {', '.join(STRATEGIES)}")
    check_once("strategy", strategies)
    check_once("seed", seeds)
    search = settings.search
    if {"ppo", "ppo-independent"} <= {*strategies} and not search.controller.autoregressive:
        raise SettingsError(
            "search.controller.autoregressive = False: then ppo and ppo-independent are the same "
            "search; leave one of them out, or the setting as it is"
        )
    # Within the first batch nothing has been learned.
    least = max(LEAST_CANDIDATES, search.batch_size + 1)
    if search.num_candidates < least:
        raise SettingsError(
            f"search.num_candidates = {search.num_candidates}: a comparison needs {least} or more "
            f"with batches of {search.batch_size}"
        )
    return [
        PlannedSearch(strategy, seed, _settings_of(settings, strategy, seed, confirming))
        for seed in seeds
        for strategy in strategies
    ]


def _all() -> tuple[str, ...]:
    return tuple(name for name in STRATEGIES if name not in _BY_NAME_ONLY)


def compare_searches(searches: Sequence[ComparedSearch], num_candidates: int) -> Comparison:
    """Compare the first `num_candidates` candidates of searches on the same data.

    Raises:
        RunError: a search has fewer candidates.
    """
    kept = [_first(search.records, num_candidates) for search in searches]
    for search, records in zip(searches, kept, strict=True):
        if (found := len(_candidates(records))) < num_candidates:
            raise RunError(
                f"{search.name} has {found} of {num_candidates} candidates: run the search to its "
                "end first"
            )
    curves = [_curve(search, records) for search, records in zip(searches, kept, strict=True)]
    budget = min(float(curve["training_seconds"].iloc[-1]) for curve in curves)
    rows: list[SearchReport] = []
    for search, records, curve in zip(searches, kept, curves, strict=True):
        num_within = int((curve["training_seconds"] <= budget).sum())
        rows.append(
            SearchReport(
                strategy=search.strategy,
                seed=search.seed,
                search=search.name,
                training_seconds=float(curve["training_seconds"].iloc[-1]),
                equal_candidates=_figures(records),
                equal_time=_figures(_first(records, num_within)),
            )
        )
    strategies = {
        strategy: _over_seeds([row for row in rows if row.strategy == strategy])
        for strategy in dict.fromkeys(search.strategy for search in searches)
    }
    figures = ComparisonFigures(
        num_candidates=num_candidates, budget_seconds=budget, searches=rows, strategies=strategies
    )
    return Comparison(pd.concat(curves, ignore_index=True), figures)


def bands(curves: pd.DataFrame, column: str, seconds: Sequence[float]) -> pd.DataFrame:
    """Mean, min and max over the seeds of a column of the curves at points in training time.

    Between two candidates a search has the value of the earlier one. NaN until every seed of the
    strategy has a value.

    Returns:
        Columns strategy, training_seconds, mean, min, max; a row a strategy and point.
    """
    grid = np.asarray(seconds, dtype=float)
    tables = []
    for strategy, of_strategy in curves.groupby("strategy", sort=False):
        values = np.stack([_at(grid, curve, column) for _, curve in of_strategy.groupby("seed")])
        tables.append(
            pd.DataFrame(
                {
                    "strategy": strategy,
                    "training_seconds": grid,
                    "mean": values.mean(axis=0),
                    "min": values.min(axis=0),
                    "max": values.max(axis=0),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _settings_of(settings: Settings, strategy: str, seed: int, confirming: bool) -> Settings:
    values = settings.model_dump(mode="json")
    values["seed"] = seed
    values["search"]["strategy"] = STRATEGIES[strategy]
    if strategy == "ppo-independent":
        values["search"]["controller"]["autoregressive"] = False
    if not confirming:
        # It is the searches that are compared, and confirming comes after them.
        values["search"]["confirm"]["candidates"] = 0
    return validate_settings(values, source="nas compare")


def _candidates(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.candidate is not None]


def _first(records: Sequence[Record], num_candidates: int) -> list[Record]:
    """The records up to the candidate of that number."""
    ends = [
        place
        for place, record in enumerate(records, start=1)
        if record.candidate is not None and record.candidate <= num_candidates
    ]
    return list(records[: ends[-1]]) if ends else []


def _curve(search: ComparedSearch, records: Sequence[Record]) -> pd.DataFrame:
    candidates = _candidates(records)
    rewards = pd.Series([record.reward for record in candidates], dtype="float64")
    seconds = pd.Series([math.fsum(record.seconds.values()) for record in candidates])
    running = rewards.dropna().rolling(WINDOW, min_periods=1).mean()
    return pd.DataFrame(
        {
            "strategy": search.strategy,
            "seed": search.seed,
            "candidate": [record.candidate for record in candidates],
            "training_seconds": seconds.cumsum(),
            "id": [record.id for record in candidates],
            "reward": rewards,
            # A failed candidate leaves both as they are.
            "best_reward": rewards.cummax().ffill(),
            "mean_reward": running.reindex(rewards.index).ffill(),
        }
    )


def _figures(records: Sequence[Record]) -> SearchFigures:
    statuses = [record.status for record in records]
    rewards = [record.reward for record in _candidates(records) if record.reward is not None]
    last_quarter = rewards[len(rewards) - math.ceil(len(rewards) / 4) :]
    return SearchFigures(
        num_candidates=len(_candidates(records)),
        num_failed=statuses.count("failed"),
        num_stopped_early=statuses.count("stopped early"),
        num_repeats=statuses.count("repeat"),
        best_reward=max(rewards, default=None),
        mean_reward=_mean(rewards),
        last_quarter_reward=_mean(last_quarter),
    )


def _over_seeds(rows: Sequence[SearchReport]) -> StrategyReport:
    return StrategyReport(
        seeds=[row.seed for row in rows],
        equal_candidates=_spreads([row.equal_candidates for row in rows]),
        equal_time=_spreads([row.equal_time for row in rows]),
    )


def _spreads(rows: Sequence[SearchFigures]) -> dict[str, Spread | None]:
    known = {
        figure: [value for row in rows if (value := getattr(row, figure)) is not None]
        for figure in FIGURES
    }
    return {figure: spread(values) if values else None for figure, values in known.items()}


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _at(grid: np.ndarray, curve: pd.DataFrame, column: str) -> np.ndarray:
    """The column's value of the last candidate that had ended at each point; else NaN."""
    ended = np.searchsorted(curve["training_seconds"].to_numpy(), grid, side="right")
    return np.concatenate([[math.nan], curve[column].to_numpy()])[ended]
