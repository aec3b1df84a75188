"""The trade-off between quality and cost: which candidates no other one beats in both."""

from __future__ import annotations

import pandas as pd

COSTS = ("num_parameters", "macs", "latency_ms")
QUALITY = "quality"


def pareto_front(candidates: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The rows that no other row beats: none has as much quality for less cost, or more for as
    much. Of rows that are equal in both the first stays.

    Args:
        candidates: with the columns `quality` and `cost`; rows that lack one are left out.

    Returns:
        The rows of the front, the cheapest first, so that quality rises from row to row.
    """
    known = candidates.dropna(subset=[QUALITY, cost])
    ordered = known.sort_values([cost, QUALITY], ascending=[True, False], kind="stable")
    best_before = ordered[QUALITY].cummax().shift(fill_value=float("-inf"))
    return ordered[ordered[QUALITY] > best_before]


def pareto_fronts(candidates: pd.DataFrame) -> pd.DataFrame:
    """The fronts of quality against each of `COSTS`, one below the other.

    Returns:
        Columns `cost` (the name of the cost), `id`, `quality`, and all costs.
    """
    columns = ["id", QUALITY, *COSTS]
    fronts = [pareto_front(candidates, cost)[columns].assign(cost=cost) for cost in COSTS]
    return pd.concat(fronts, ignore_index=True)[["cost", *columns]]
