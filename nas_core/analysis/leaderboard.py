"""A search's candidates, best first."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from nas_core.errors import RunError
from nas_core.genotype import Genotype
from nas_core.search.journal import Journal, Record
from nas_core.search.latencies import LATENCY_FILE, read_latencies, with_latencies

METRICS = ("mean_iou", "frequency_weighted_iou", "mean_accuracy")
COUNTS = ("rank", "candidate", "num_parameters", "macs")


def leaderboard(candidates: Iterable[Record]) -> pd.DataFrame:
    """A row for each trained candidate, by reward; equal ones by age, failed ones at the end.

    Columns: rank (missing if failed), candidate, id, status, reward, quality, mean_iou,
    frequency_weighted_iou, mean_accuracy, num_parameters, macs, latency_ms, seconds (all of its
    training), genotype (JSON in the paper's encoding).
    """
    rows = sorted(candidates, key=_order)
    table = pd.DataFrame(
        {
            "rank": [rank if row.is_scored else None for rank, row in enumerate(rows, start=1)],
            "candidate": [row.candidate for row in rows],
            "id": [row.id for row in rows],
            "status": [row.status for row in rows],
            "reward": [row.reward for row in rows],
            "quality": [row.quality for row in rows],
            **{metric: [row.metrics.get(metric) for row in rows] for metric in METRICS},
            "num_parameters": [row.num_parameters for row in rows],
            "macs": [row.macs for row in rows],
            "latency_ms": [row.latency_ms for row in rows],
            "seconds": [math.fsum(row.seconds.values()) for row in rows],
            "genotype": [json.dumps(row.genotype) for row in rows],
        }
    )
    floats = ("reward", "quality", *METRICS, "latency_ms", "seconds")
    texts = ("id", "status", "genotype")
    return table.astype(
        dict.fromkeys(COUNTS, "Int64")
        | dict.fromkeys(floats, "float64")
        | dict.fromkeys(texts, "str")
    )


def read_search(searches: Path, name: str | None = None) -> tuple[str, list[Record]]:
    """The name and the trained candidates of a search; it may be running.

    Args:
        searches: the folder of all searches.
        name: of the search's folder; the one that was written to last if None.

    Raises:
        RunError: there is none, or none of this name, or its journal or latencies cannot be read.
    """
    journals = {path.parent.name: path for path in _journals(searches)}
    if not journals:
        raise RunError(f"{searches}: no search yet; start one with `nas search`")
    if name is None:
        name = max(journals, key=lambda known: journals[known].stat().st_mtime)
    if name not in journals:
        raise RunError(f"{searches}: no search {name!r}; there are: {', '.join(journals)}")
    latencies = read_latencies(journals[name].parent / LATENCY_FILE)
    return name, with_latencies(Journal.read(journals[name]).candidates, latencies)


def searched_genotypes(searches: Path) -> dict[str, Genotype]:
    """Every architecture that a search trained, by id.

    Raises:
        RunError: a journal cannot be read.
        GenotypeError: a journal holds what is not in the search space.
    """
    return {
        record.id: Genotype.from_dict(record.genotype, f"{path}, record {record.index}")
        for path in _journals(searches)
        for record in Journal.read(path).candidates
    }


def _journals(searches: Path) -> list[Path]:
    return sorted(searches.glob("*/journal.jsonl"))


def _order(record: Record) -> tuple[float, int]:
    reward = -math.inf if record.reward is None else record.reward
    return -reward, record.index
