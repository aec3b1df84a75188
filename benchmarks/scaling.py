"""How many candidates an hour two workers train beside one, as processes and on Ray.

python -m benchmarks.scaling [-p PROFILE] [-S KEY=VALUE ...] [--pairs N] [--json]

Sampled architectures within search.constraints are trained on the proxy task without early
stopping, each of them twice: with one worker one after the other, with two at the same time. So
neither waits for the other at the end, and the figures are of the training alone, without Prefect
and MLflow. The four ways take turns, each architecture the other way round: what else goes on on
the machine hits all alike. compute.threads is 1 unless set.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.command import AsJson, errors_in_words
from nas_core.base.paths import prepared_folder
from nas_core.base.project import project_dir
from nas_core.config import RunnerSettings, Settings
from nas_core.data.preparing import prepare
from nas_core.loading import load_settings
from nas_core.models.compute import Compute
from nas_core.search.candidates import proxy_task, score_candidate
from nas_core.search.sampling import sample_architectures
from nas_core.space.genotype import Genotype
from nas_core.training.proxy_task import num_validations
from nas_core.workers.local import ProcessWorkers, Workers
from nas_core.workers.ray_cluster import RayWorkers

NUM_WORKERS = 2


def measure(settings: Settings, root: Path, num_pairs: int) -> dict[str, Any]:
    """Candidates an hour by kind of worker and their number.

    Raises:
        NasError: the data or weights cannot be used, or too few samples are within the limit.
    """
    threads = settings.compute.threads
    data = prepare(settings.dataset, root, prepared_folder(root, settings))
    genotypes = sample_architectures(settings, root, data, num_pairs)
    seconds: dict[tuple[str, int], float] = defaultdict(float)
    runner = RunnerSettings(kind="ray", workers=NUM_WORKERS)
    with (
        ProcessWorkers(NUM_WORKERS, runner.time_limit, threads) as processes,
        RayWorkers(runner, threads) as on_ray,
    ):
        kinds = {"process": processes, "ray": on_ray}
        first = next(iter(genotypes.values()))
        for workers in kinds.values():
            # Each worker imports, and reads what all share.
            _train_pair(workers, settings, root, first, NUM_WORKERS, epochs_b=False)
        turns = [(kind, num) for kind in kinds for num in (1, NUM_WORKERS)]
        for genotype in track(genotypes.values(), "training", console=Console(stderr=True)):
            for kind, num in turns:
                seconds[kind, num] += _train_pair(kinds[kind], settings, root, genotype, num)
            turns.reverse()
    rates = {turn: 3600 * 2 * num_pairs / total for turn, total in seconds.items()}
    return {
        "device": Compute.from_settings(settings.compute).describe(),
        "num_candidates": 2 * num_pairs,
        **{
            kind: {
                "candidates_per_hour_1": rates[kind, 1],
                "candidates_per_hour_2": rates[kind, NUM_WORKERS],
                "ratio": rates[kind, NUM_WORKERS] / rates[kind, 1],
            }
            for kind in kinds
        },
    }


def _train_pair(
    workers: Workers,
    settings: Settings,
    root: Path,
    genotype: Genotype,
    num: int,
    epochs_b: bool = True,
) -> float:
    """Seconds in which `num` of the workers train an architecture twice."""
    thresholds = [0.0 if epochs_b else float("inf")] * num_validations(settings.search.proxy)
    shared = workers.share(proxy_task, settings, root)
    started = time.perf_counter()
    with ThreadPoolExecutor(num) as threads:
        pair = [
            threads.submit(workers.call, score_candidate, shared, settings, genotype, thresholds)
            for _ in range(2)
        ]
        for future in pair:
            future.result()
    return time.perf_counter() - started


@errors_in_words
def main(
    profile: Annotated[str, typer.Option("-p", "--profile")] = "camvid",
    overrides: Annotated[list[str] | None, typer.Option("-S", help="key=value.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Architectures; each is trained twice.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Train candidates with one and with two workers, as processes and on Ray."""
    root = project_dir()
    settings = load_settings(profile, ["compute.threads=1", *(overrides or [])], root=root)
    figures = measure(settings, root, pairs)
    if as_json:
        print(json.dumps(figures))
        return
    title = f"candidates an hour, {figures['num_candidates']} each, {figures['device']}"
    table = Table(title=title)
    for column in ("workers", "one", "two", "ratio"):
        table.add_column(column, justify="left" if column == "workers" else "right")
    for kind in ("process", "ray"):
        row = figures[kind]
        one, two = row["candidates_per_hour_1"], row["candidates_per_hour_2"]
        table.add_row(kind, f"{one:.0f}", f"{two:.0f}", f"{row['ratio']:.2f}")
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    typer.run(main)
