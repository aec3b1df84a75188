"""How wide a front of quality and parameters each strategy finds, trained on the proxy task.

python -m benchmarks.pareto_search [--seed N ...] [-p PROFILE] [-S KEY=VALUE ...] [--json]

Searches as `nas search` does, without confirming, with `WAYS` and each seed, in the same folders:
what is there is taken as it is, so an interrupted comparison goes on. A front is of quality, the
score on meta-val without any cost, and parameters. Its hypervolume is the area that it dominates
up to the least quality and the most parameters of all searches, as a share of what all of them
together dominate; benchmarks.pareto asks the same where all networks are known.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, Overrides, Profile, errors_in_words
from benchmarks.pareto import hypervolume
from nas_core.analysis.comparison import SEEDS
from nas_core.base.paths import prepared_folder
from nas_core.base.project import project_dir
from nas_core.base.setting_types import MAX_SEED
from nas_core.config import Settings
from nas_core.data.preparing import prepare
from nas_core.loading import check_distinct, load_settings
from nas_core.search.loop import Search
from nas_core.search.progress import Progress

WAYS = {
    "pareto": ["search.strategy=pareto", "search.pareto.costs=[parameters]"],
    "evolution, cost in the reward": ["search.strategy=evolution", "search.reward.cost=parameters"],
    "evolution, quality alone": ["search.strategy=evolution", "search.reward.cost=none"],
    "random": ["search.strategy=random", "search.reward.cost=none"],
}
"""Settings by the name of a way to search."""

Points = list[tuple[float, float]]


def found_points(settings: Settings) -> Points:
    """Parameters and quality of each candidate of a search that has a score."""
    root = project_dir()
    with Search.open(settings, root) as search:
        search.run([Progress()])
        candidates = search.journal.candidates[: settings.search.num_candidates]
    return [
        (float(one.num_parameters), one.quality) for one in candidates if one.quality is not None
    ]


def shares(found: Mapping[tuple[str, int], Points]) -> list[dict[str, Any]]:
    """A row for each way: the hypervolume of its searches, by seed, and their mean."""
    whole = [point for points in found.values() for point in points]
    bounds = max(cost for cost, _ in whole), min(quality for _, quality in whole)
    most = hypervolume(whole, *bounds)
    rows: dict[str, dict[int, float]] = {}
    for (way, seed), points in found.items():
        rows.setdefault(way, {})[seed] = hypervolume(points, *bounds) / most
    return [
        {"way": way, "hypervolume": fmean(by_seed.values()), "by_seed": by_seed}
        for way, by_seed in rows.items()
    ]


@errors_in_words
def main(
    seed: Annotated[
        list[int] | None, typer.Option(min=0, max=MAX_SEED, help="By default 0 1.")
    ] = None,
    profile: Profile = "camvid",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Search in each way and with each seed, and compare the fronts."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    root = project_dir()
    seeds = SEEDS if seed is None else seed
    check_distinct("--seed", seeds)
    given = [*(overrides or ()), "search.confirm.candidates=0"]
    planned = {
        (way, one): load_settings(profile, [*given, *changes, f"seed={one}"], root=root)
        for one in seeds
        for way, changes in WAYS.items()
    }
    settings = next(iter(planned.values()))
    prepare(settings.dataset, root, prepared_folder(root, settings))
    found: dict[tuple[str, int], Points] = {}
    for (way, one), settings in planned.items():
        print(f"{way}, seed {one}", file=sys.stderr)
        found[way, one] = found_points(settings)
    rows = shares(found)
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        _show(rows, seeds)


def _show(rows: Sequence[dict[str, Any]], seeds: Sequence[int]) -> None:
    table = Table("way", "hypervolume, %", *(f"seed {one}" for one in seeds))
    for row in rows:
        shown = (row["hypervolume"], *(row["by_seed"][one] for one in seeds))
        table.add_row(row["way"], *(f"{100 * value:.1f}" for value in shown))
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    typer.run(main)
