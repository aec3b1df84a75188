"""Whether the networks that a search finds are better than those of a random one, trained fully.

python -m benchmarks.search_pays [--strategy NAME ...] [--seed N ...] [--train-seed N ...]
                                 [-p PROFILE] [-S KEY=VALUE ...] [--json]

Searches with each strategy and seed, as `nas search` does, trains the train.top best of each search
fully on train with each training seed, and scores them on val and on the recordings of
dataset.held_out, which must be given: so the test split is not used. What is there is taken as it
is, so an interrupted comparison goes on. The searches and trainings are those of `nas search` with
these settings, in the same folders.

A network's score is its mean over the training seeds. A strategy is compared with random search
over their networks: the difference of the means, Welch's t interval of it, and a permutation test
of all arrangements (Fisher, The Design of Experiments, 1935, section 21). Networks of one search
are not independent of each other, so with few searches both are too sure of themselves.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, Overrides, Profile, errors_in_words
from nas_core.analysis.comparison import PlannedSearch, plan_searches
from nas_core.analysis.uncertainty import seeds_difference
from nas_core.base.errors import SettingsError
from nas_core.base.paths import prepared_folder
from nas_core.base.project import project_dir
from nas_core.base.setting_types import MAX_SEED
from nas_core.config import Settings
from nas_core.data.preparing import prepare
from nas_core.loading import check_distinct, load_settings
from nas_core.models.compute import Compute
from nas_core.search.loop import Search
from nas_core.search.progress import Progress
from nas_core.space.genotype import Genotype
from nas_core.training.record import Training
from nas_core.training.side_by_side import evaluate, side_by_side, train, training_workers
from nas_core.workers.local import Workers

BASELINE = "random"
STRATEGIES = ("ppo", "evolution", BASELINE)
SCORES = ("val", "held_out")

Row = dict[str, Any]


def found_networks(planned: PlannedSearch, root: Path) -> list[Row]:
    """A row for each of the train.top best of a search: strategy, seed, id, genotype, reward."""
    print(f"{planned.strategy}, seed {planned.seed}", file=sys.stderr)
    with Search.open(planned.settings, root) as search:
        search.run([Progress()])
        ranked = [one for one in search.ranked if one.reward is not None]
    return [
        {
            "strategy": planned.strategy,
            "seed": planned.seed,
            "id": one.record.id,
            "genotype": one.record.genotype,
            "num_parameters": one.record.num_parameters,
            "macs": one.record.macs,
            "reward": one.reward,
        }
        for one in ranked[: planned.settings.train.top]
    ]


def scores_of(
    workers: Workers, settings: Settings, root: Path, genotype: Genotype, seed: int
) -> dict[str, float]:
    """`SCORES` of one full training."""
    settings = settings.model_copy(update={"seed": seed})
    folder = train(workers, settings, root, genotype.id, genotype)
    held_out = evaluate(workers, settings, root, genotype.id, folder)
    val = Training.read(folder / "training.json").val["mean_iou"]
    return {"val": val, "held_out": held_out.mean_iou}


def trained(rows: Sequence[Row], settings: Settings, root: Path, seeds: Sequence[int]) -> list[Row]:
    """The rows with the scores of each training seed, a list for each of `SCORES`."""
    genotypes = {row["id"]: Genotype.from_dict(row["genotype"]) for row in rows}
    runs = [(genotype, seed) for seed in seeds for genotype in genotypes.values()]
    compute = Compute.from_settings(settings.compute)
    with training_workers(settings, compute, len(runs)) as workers:
        jobs = [
            (genotype.id, partial(scores_of, workers, settings, root, genotype, seed))
            for genotype, seed in runs
        ]
        found: dict[str, list[dict[str, float]]] = {}
        for id_, scores in side_by_side(workers, jobs):
            found.setdefault(id_, []).append(scores)
    return [
        {**row, **{score: [one[score] for one in found[row["id"]]] for score in SCORES}}
        for row in rows
    ]


def differences(rows: Sequence[Row]) -> list[Row]:
    """Each strategy against `BASELINE`, on each score: difference, interval, p."""
    from scipy.stats import permutation_test  # takes a second to import

    compared = []
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        if strategy == BASELINE:
            continue
        for score in SCORES:
            means = [
                [fmean(row[score]) for row in rows if row["strategy"] == name]
                for name in (strategy, BASELINE)
            ]
            test = permutation_test(means, lambda a, b: fmean(a) - fmean(b))
            compared.append(
                {
                    "strategy": strategy,
                    "score": score,
                    "difference": fmean(means[0]) - fmean(means[1]),
                    "interval": seeds_difference(*means),
                    "p": float(test.pvalue),
                }
            )
    return compared


@errors_in_words
def main(
    strategy: Annotated[
        list[str] | None,
        typer.Option(help=f"Beside {BASELINE}; by default {', '.join(STRATEGIES[:-1])}."),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, max=MAX_SEED, help="Of a search; by default 0 1.")
    ] = None,
    train_seed: Annotated[
        list[int] | None,
        typer.Option(min=0, max=MAX_SEED, help="Of a full training; by default 0 1."),
    ] = None,
    profile: Profile = "camvid",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Search with each strategy, train what each found, and compare it with a random search's."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    root = project_dir()
    settings = load_settings(profile, overrides or [], root=root)
    if not settings.dataset.held_out:
        raise SettingsError(
            "dataset.held_out: name one or more recordings of train to score on, so that the test "
            "split is not used"
        )
    if settings.train.splits != "train":
        raise SettingsError("train.splits: networks are compared on val, so train without it")
    if settings.train.top < 1:
        raise SettingsError("train.top: how many networks of a search are trained? 1 or more")
    train_seeds = [0, 1] if train_seed is None else train_seed
    check_distinct("--train-seed", train_seeds)
    check_distinct("--strategy", strategy or ())
    strategies = dict.fromkeys([*(strategy or STRATEGIES), BASELINE])
    planned = plan_searches(settings, [*strategies], seed or (), confirming=True)
    prepare(settings.dataset, root, prepared_folder(root, settings))
    rows = [row for one in planned for row in found_networks(one, root)]
    rows = trained(rows, settings, root, train_seeds)
    compared = differences(rows)
    if as_json:
        print(json.dumps({"networks": rows, "differences": compared}, indent=1))
    else:
        _show(rows, compared)


def _show(rows: Sequence[Row], compared: Sequence[Row]) -> None:
    networks = Table("strategy", "seed", "network", "parameters", "reward", *SCORES)
    for row in rows:
        networks.add_row(
            row["strategy"],
            str(row["seed"]),
            row["id"],
            f"{row['num_parameters']:,}",
            f"{row['reward']:.4f}",
            *(" ".join(f"{value:.4f}" for value in row[score]) for score in SCORES),
        )
    table = Table("strategy", "score", f"above {BASELINE}", "95 % interval", "p")
    for row in compared:
        interval = row["interval"]
        table.add_row(
            row["strategy"],
            row["score"],
            f"{row['difference']:+.4f}",
            "-" if interval is None else f"{interval[0]:+.4f}, {interval[1]:+.4f}",
            f"{row['p']:.3f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(networks)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
