"""What each stage leaves for the next one, for DVC and for people: small tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nas_core.config import Settings
from nas_core.files import write_atomically, write_json
from nas_core.paths import results_folder
from nas_core.search.journal import Record
from nas_core.search.leaderboard import leaderboard


def write_search_results(
    root: Path, settings: Settings, folder: Path, candidates: Sequence[Record]
) -> dict[str, Any]:
    """candidates.parquet, progress.csv and metrics.json of the stage search.

    Returns:
        The content of metrics.json.
    """
    place = results_folder(root, settings, "search")
    table = leaderboard(candidates)
    write_table(place / "candidates.parquet", table)
    scored = [record for record in candidates if record.reward is not None]
    rewards = pd.Series([record.reward for record in scored], dtype=float)
    progress = pd.DataFrame(
        {
            "candidate": [record.candidate for record in scored],
            "reward": rewards,
            "best_reward": rewards.cummax(),
        }
    )
    write_table(place / "progress.csv", progress)
    metrics = {
        "search": folder.name,
        "num_candidates": len(candidates),
        "num_failed": sum(record.status == "failed" for record in candidates),
        "num_stopped_early": sum(record.status == "stopped early" for record in candidates),
        "best_reward": float(rewards.max()) if scored else None,
        "mean_reward": float(rewards.mean()) if scored else None,
        "best": str(table["id"].iloc[0]) if scored else None,
    }
    write_json(place / "metrics.json", metrics)
    return metrics


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table whose format is the suffix of `path`: .parquet, .csv or .json."""

    def write(temporary: Path) -> None:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        elif path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_json(temporary, orient="records", indent=1)

    write_atomically(path, write)
