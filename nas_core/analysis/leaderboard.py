"""A search's candidates, best first."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import pandas as pd
from pyarrow.lib import ArrowException
from pydantic import Field

from nas_core.base.documents import Document
from nas_core.base.errors import RunError, first_line, shown, some_of
from nas_core.search.journal import Confirmation, Journal, Record
from nas_core.search.latencies import LATENCY_FILE, read_latencies, with_latencies
from nas_core.search.ranking import ranking
from nas_core.search.searched import journals, readable
from nas_core.space.genotype import Genotype

log = logging.getLogger(__name__)

# pandas believes what a Parquet file says of its columns, and fails where that is damaged.
UNREADABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, ArrowException)
METRICS = ("mean_iou", "frequency_weighted_iou", "mean_accuracy")
COUNTS = ("rank", "candidate", "num_parameters", "macs")
SEEDS = ("seeds", "failed_seeds")
SHOWN = {"id", "status", "reward", "mean_iou", "seconds", "genotype", *COUNTS}
"""The columns that readers rely on."""


class SearchMetrics(Document):
    """metrics.json of the stage search; rewards are None if no candidate has one."""

    remedy = "run the stage search again"

    search: Annotated[str, Field(pattern=r"^[^/]+$")]
    """Name of its folder."""
    num_candidates: int
    num_repeats: int | None = None
    """Older ones lack it."""
    num_failed: int
    num_stopped_early: int
    num_confirmed: int | None = None
    """Older ones lack it."""
    best_reward: float | None
    """The mean, if the best is confirmed."""
    best_reward_error: float | None = None
    """The mean's standard error."""
    mean_reward: float | None
    best: str | None
    """Id of the best candidate."""


def leaderboard(
    candidates: Iterable[Record], confirmations: Iterable[Confirmation] = ()
) -> pd.DataFrame:
    """A row for each trained candidate, in the order of `ranking`: confirmed ones, others, failed.

    Columns: rank (missing if failed), candidate, id, status, reward, reward_error (its standard
    error, missing for a single one), seeds (rewards that it is the mean of), failed_seeds (that
    were to confirm it), quality, mean_iou, frequency_weighted_iou, mean_accuracy (means as the
    reward), num_parameters, macs, latency_ms, seconds (all of its training on the proxy task),
    genotype (JSON in the paper's encoding).
    """
    confirmations = list(confirmations)
    ranked = ranking(candidates, confirmations)
    rows = [one.record for one in ranked]
    seconds: dict[str, float] = {}
    for run in confirmations:
        seconds[run.confirms] = seconds.get(run.confirms, 0.0) + math.fsum(run.seconds.values())
    table = pd.DataFrame(
        {
            "rank": [rank if row.is_scored else None for rank, row in enumerate(rows, start=1)],
            "candidate": [row.candidate for row in rows],
            "id": [row.id for row in rows],
            "status": [row.status for row in rows],
            "reward": [one.reward for one in ranked],
            "reward_error": [one.reward_error for one in ranked],
            "seeds": [len(one.runs) for one in ranked],
            "failed_seeds": [one.num_failed_runs for one in ranked],
            "quality": [one.quality for one in ranked],
            **{metric: [one.metric(metric) for one in ranked] for metric in METRICS},
            "num_parameters": [row.num_parameters for row in rows],
            "macs": [row.macs for row in rows],
            "latency_ms": [row.latency_ms for row in rows],
            "seconds": [math.fsum(row.seconds.values()) + seconds.get(row.id, 0.0) for row in rows],
            "genotype": [json.dumps(row.genotype) for row in rows],
        }
    )
    floats = ("reward", "reward_error", "quality", *METRICS, "latency_ms", "seconds")
    texts = ("id", "status", "genotype")
    return table.astype(
        dict.fromkeys((*COUNTS, *SEEDS), "Int64")
        | dict.fromkeys(floats, "float64")
        | dict.fromkeys(texts, "str")
    )


def read_leaderboard(path: Path) -> pd.DataFrame:
    """The content of a candidates.parquet, which is a `leaderboard`.

    Raises:
        RunError: the file cannot be read, or is none.
    """
    try:
        table = pd.read_parquet(path)
    except UNREADABLE as error:
        raise RunError(f"{path} cannot be read: {first_line(error)}") from None
    if missing := SHOWN - {*table.columns}:
        raise RunError(f"{path} lacks {', '.join(sorted(missing))}: run the stage search again")
    return table


def best_genotypes(path: Path, num: int) -> dict[str, Genotype]:
    """The first `num` architectures of a candidates.parquet, by id.

    Raises:
        RunError: it cannot be read, or every candidate failed.
        GenotypeError: it holds one that is malformed.
    """
    table = read_leaderboard(path)
    best = table[table["reward"].notna()].head(num)
    if best.empty:
        raise RunError(f"{path}: every candidate failed, so there is none to train")
    genotypes = [parse_genotype(text, str(path)) for text in best["genotype"]]
    return {found.id: found for found in genotypes}


def parse_genotype(text: str, source: str) -> Genotype:
    """A cell of the column genotype of a `leaderboard`.

    Raises:
        RunError: it is not JSON.
        GenotypeError: it is malformed.
    """
    try:
        return Genotype.from_dict(json.loads(text), source)
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{source}: a genotype is not JSON: {first_line(error)}") from None


def read_search(searches: Path, name: str | None = None) -> tuple[str, list[Record]]:
    """The name and the trained candidates of a search; it may be running.

    Args:
        searches: the folder of all searches.
        name: of the search's folder; if None, the one that was written to last, of those whose
            journal can be read.

    Raises:
        RunError: there is none, or none of this name, or its journal or latencies cannot be read.
    """
    path, journal = _find_search(searches, name)
    return path.parent.name, _with_latencies(path, journal)


def read_ranking(searches: Path, name: str | None = None) -> tuple[str, pd.DataFrame]:
    """As `read_search`: the name of a search and its `leaderboard`."""
    path, journal = _find_search(searches, name)
    return path.parent.name, leaderboard(_with_latencies(path, journal), journal.confirmations)


def _with_latencies(path: Path, journal: Journal) -> list[Record]:
    return with_latencies(journal.candidates, read_latencies(path.parent / LATENCY_FILE))


def _find_search(searches: Path, name: str | None) -> tuple[Path, Journal]:
    paths = {path.parent.name: path for path in journals(searches)}
    if not paths:
        raise RunError(f"{searches}: no search yet; start one with `nas search`")
    if name is None:
        latest = sorted(paths.values(), key=lambda path: path.stat().st_mtime, reverse=True)
        found = next(readable(latest), None)
        if found is None:
            raise RunError(
                f"{searches}: no journal.jsonl there can be read; start a search with `nas search`"
            )
        return found
    if name not in paths:
        raise RunError(f"{searches}: no search {shown(name)}; there are: {some_of(paths)}")
    return paths[name], Journal.read(paths[name])
