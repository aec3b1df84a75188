"""What each stage leaves for the next one, for DVC and for people: small tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from nas_core.analysis.fronts import pareto_front, pareto_fronts
from nas_core.analysis.leaderboard import SearchMetrics, leaderboard
from nas_core.base.files import write_atomically, write_json
from nas_core.base.paths import results_folder
from nas_core.config import Settings
from nas_core.search.journal import Confirmation, Record
from nas_core.training.record import EvaluateMetrics, Training

# How each cost is shown: its name with the unit, and the unit's size.
COST_AXES = {
    "num_parameters": ("parameters (thousands)", 1e3),
    "macs": ("multiply-accumulates (G)", 1e9),
    "latency_ms": ("latency (ms)", 1.0),
}


SUMMARY = "summary.json"
"""What DVC compares: a few numbers of a stage under names that are the same in every search."""
_RANKS = ("best", "second", "third")


def write_search_results(
    root: Path,
    settings: Settings,
    folder: Path,
    candidates: Sequence[Record],
    confirmations: Sequence[Confirmation] = (),
) -> SearchMetrics:
    """What the stage search leaves: its tables and picture, metrics.json and summary.json.

    progress.csv has the one reward of each candidate that the strategy learned from, all others the
    mean where there are several; see `leaderboard`.

    Returns:
        metrics.json.
    """
    place = results_folder(root, settings, "search")
    table = leaderboard(candidates, confirmations)
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
    # The quality of one that stopped early is that of a shorter training.
    finished = table[table["status"] == "finished"]
    write_table(place / "pareto.csv", pareto_fronts(finished))
    picture = pareto_picture(finished)
    write_atomically(place / "pareto.png", lambda temporary: picture.savefig(temporary, dpi=120))
    metrics = SearchMetrics(
        search=folder.name,
        num_candidates=len(candidates),
        # Every proposal has an index; those that are no candidates were answered from the journal.
        num_repeats=candidates[-1].index + 1 - len(candidates) if candidates else 0,
        num_failed=sum(record.status == "failed" for record in candidates),
        num_stopped_early=sum(record.status == "stopped early" for record in candidates),
        num_confirmed=int((table["seeds"] > 1).sum()),
        best_reward=float(table["reward"].iloc[0]) if scored else None,
        best_reward_error=_number(table["reward_error"].iloc[0]) if scored else None,
        mean_reward=float(rewards.mean()) if scored else None,
        best=str(table["id"].iloc[0]) if scored else None,
    )
    metrics.write(place / "metrics.json")
    best = table["reward"].dropna().head(2)
    ranked = zip(_RANKS, best, strict=False)
    write_json(place / SUMMARY, {rank: {"reward": float(reward)} for rank, reward in ranked})
    return metrics


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def write_training_summary(place: Path, trainings: Mapping[str, Training]) -> None:
    """summary.json of the stage train: parameters and val mIoU of each.

    Args:
        trainings: by label, the best of the search first.
    """
    summary = {
        role: {"parameters": training.num_parameters}
        | ({"val_miou": training.val["mean_iou"]} if "mean_iou" in training.val else {})
        for role, training in zip(_roles(trainings), trainings.values(), strict=True)
    }
    write_json(place / SUMMARY, summary)


def write_evaluation_summary(
    place: Path, trainings: Mapping[str, Training], metrics: EvaluateMetrics
) -> None:
    """summary.json of the stage evaluate: test mIoU of each."""
    summary = {
        role: {"test_miou": metrics.root[label].mean_iou}
        for role, label in zip(_roles(trainings), trainings, strict=True)
    }
    write_json(place / SUMMARY, summary)


def _roles(trainings: Mapping[str, Training]) -> Iterator[str]:
    """Names that stay: those of architectures, and ranks for what has its id alone."""
    rank = 0
    for label, training in trainings.items():
        if label != training.id:
            yield label
        else:
            yield _RANKS[rank] if rank < len(_RANKS) else f"rank{rank + 1}"
            rank += 1


def pareto_picture(finished: pd.DataFrame) -> Figure:
    """Quality against each cost: all candidates, and the front with the ids of its members."""
    figure = Figure(figsize=(4.5 * len(COST_AXES), 4), layout="constrained")
    panels = figure.subplots(1, len(COST_AXES), sharey=True)
    fronts = {cost: pareto_front(finished, cost) for cost in COST_AXES}
    for panel, (cost, (label, unit)) in zip(panels, COST_AXES.items(), strict=True):
        front = fronts[cost]
        panel.scatter(finished[cost] / unit, finished["quality"], s=14, color="0.7")
        panel.step(front[cost] / unit, front["quality"], where="post", color="tab:blue")
        panel.scatter(front[cost] / unit, front["quality"], s=24, color="tab:blue")
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("quality on meta-val")
    figure.draw_without_rendering()  # the places of labels are known from here on
    for panel, (cost, (_, unit)) in zip(panels, COST_AXES.items(), strict=True):
        _write_ids(panel, fronts[cost]["id"], fronts[cost][cost] / unit, fronts[cost]["quality"])
    return figure


def _write_ids(panel: Axes, ids: pd.Series, costs: pd.Series, qualities: pd.Series) -> None:
    """Beside each point, the best first; not where another id stands. pareto.csv has all."""
    written: list[Bbox] = []
    points = sorted(zip(ids, costs, qualities, strict=True), key=lambda point: -point[2])
    for identifier, cost, quality in points:
        text = panel.annotate(
            identifier[:6], (cost, quality), (3, -9), textcoords="offset points", fontsize=7
        )
        box = text.get_window_extent()
        if any(box.overlaps(other) for other in written):
            text.remove()
        else:
            written.append(box)


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
