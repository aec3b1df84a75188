"""How many candidates an hour the proxy task scores, beside a straightforward loop.

python -m benchmarks.proxy [-p PROFILE] [-S KEY=VALUE ...] [--sampled N] [--no-baseline] [--json]

Trains both architectures of the paper and a few sampled ones within search.constraints as a search
would, without early stopping, on the dataset of the settings; and the same ones with the loop of
benchmarks/baseline.py, in one process with compute.threads threads, by default one a core. The two
take turns, in processes of their own: what else goes on on the machine hits both alike.

With -S runner.workers=2 each architecture is trained in two processes at the same time, which share
the cores, and takes half of the time that both took: two different ones would wait for each other
at the end.

CPU seconds are those of all threads; with one thread they tell the two apart even where other work
holds the CPU.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.baseline import baseline_task, train_baseline
from benchmarks.command import AsJson, Overrides, Profile, errors_in_words
from benchmarks.memory import peak_gib
from nas_core.base.paths import prepared_folder
from nas_core.base.project import project_dir
from nas_core.config import Settings
from nas_core.data.preparing import prepare
from nas_core.loading import load_settings
from nas_core.models.compute import Compute
from nas_core.search.candidates import proxy_task
from nas_core.search.sampling import sample_architectures
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.genotype import Genotype
from nas_core.training.proxy import train_candidate
from nas_core.workers.local import ProcessWorkers

T = TypeVar("T")
Kind = Literal["project", "baseline"]
PREFIXES: dict[Kind, str] = {"project": "", "baseline": "baseline_"}
"""Of the figures of each."""


def measure(settings: Settings, root: Path, num_sampled: int, compare: bool) -> dict[str, Any]:
    """Time a search's set-up and each candidate, with the baseline's if `compare`.

    Raises:
        NasError: the data or weights cannot be used, or too few samples are within the limit.
    """
    limit, threads = settings.runner.time_limit, settings.compute.threads
    num = {"project": settings.runner.workers or 1, "baseline": 1}
    kinds: list[Kind] = ["project", "baseline"] if compare else ["project"]
    figures: dict[str, Any] = {"workers": num["project"]}
    candidates: list[dict[str, Any]] = []
    with (
        ProcessWorkers(num["project"], limit, threads) as ours,
        ProcessWorkers(1, limit, threads) as theirs,
    ):
        workers = {"project": ours, "baseline": theirs}
        # Begun while this process is small: a child's peak of memory starts at its parent's.
        _in_each(ours, os.getpid)
        if compare:
            # Huge pages, which nas_core asks for, are the project's: the baseline goes without.
            wanted = os.environ["THP_MEM_ALLOC_ENABLE"]
            os.environ["THP_MEM_ALLOC_ENABLE"] = "0"
            _in_each(theirs, os.getpid)
            os.environ["THP_MEM_ALLOC_ENABLE"] = wanted
        data = prepare(settings.dataset, root, prepared_folder(root, settings))
        paper = {name: ARCHITECTURES[name] for name in ("arch0", "arch1")}
        architectures = paper | sample_architectures(settings, root, data, num_sampled)
        for kind in kinds:
            seconds = _in_each(workers[kind], _set_up, kind, settings, root)
            figures[f"{PREFIXES[kind]}set_up_seconds"] = max(seconds)
        figures["device"] = ours.call(_describe, settings)
        for name, genotype in track(
            architectures.items(), "training", console=Console(stderr=True)
        ):
            row: dict[str, Any] = {"name": name}
            for kind in kinds:
                started = time.perf_counter()
                trained = _in_each(workers[kind], _train, kind, settings, root, genotype)
                found = {
                    "seconds": (time.perf_counter() - started) / num[kind],
                    "cpu_seconds": float(np.mean([each["cpu_seconds"] for each in trained])),
                    "reward": trained[0]["reward"],
                    "peak_gib": sum(each["peak_gib"] for each in trained),
                }
                row |= {f"{PREFIXES[kind]}{key}": value for key, value in found.items()}
            candidates.append(row)
            kinds.reverse()
    return figures | _summary(candidates, compare) | {"candidates": candidates}


def _in_each(workers: ProcessWorkers, function: Callable[..., T], *args: Any) -> list[T]:
    """What `function` returns in each of the workers, which carry it out at the same time."""
    with ThreadPoolExecutor(workers.num) as threads:
        calls = [threads.submit(workers.call, function, *args) for _ in range(workers.num)]
        return [call.result() for call in calls]


def _set_up(kind: Kind, settings: Settings, root: Path) -> float:
    """Seconds that the task of these settings takes to build; it is kept for `_train`."""
    started = time.perf_counter()
    if kind == "project":
        proxy_task(settings, root)
    else:
        baseline_task(settings, root)
    return time.perf_counter() - started


def _train(kind: Kind, settings: Settings, root: Path, genotype: Genotype) -> dict[str, float]:
    """CPU seconds of one candidate, its reward, and this process's peak memory."""
    cpu = time.process_time()
    if kind == "project":
        scores = train_candidate(proxy_task(settings, root), genotype, seed=settings.seed).scores
    else:
        scores = train_baseline(baseline_task(settings, root), genotype, seed=settings.seed).scores
    return {
        "cpu_seconds": time.process_time() - cpu,
        "reward": scores[-1],
        "peak_gib": peak_gib(),
    }


def _describe(settings: Settings) -> str:
    return Compute.from_settings(settings.compute).describe()


def _summary(candidates: list[dict[str, Any]], compare: bool) -> dict[str, float]:
    """Figures over all candidates; takes the peaks of memory out of their rows."""

    def per_hour(key: str) -> float:
        return 3600 / float(np.mean([row[key] for row in candidates]))

    figures = {
        "candidates_per_hour": per_hour("seconds"),
        "peak_gib": max(row.pop("peak_gib") for row in candidates),
    }
    if compare:
        differences = [row["reward"] - row["baseline_reward"] for row in candidates]
        theirs = per_hour("baseline_seconds")
        figures |= {
            "baseline_candidates_per_hour": theirs,
            "ratio": figures["candidates_per_hour"] / theirs,
            "cpu_ratio": per_hour("cpu_seconds") / per_hour("baseline_cpu_seconds"),
            "mean_reward_difference": float(np.mean(differences)),
            "mean_absolute_reward_difference": float(np.mean(np.abs(differences))),
            "baseline_peak_gib": max(row.pop("baseline_peak_gib") for row in candidates),
        }
    return figures


@errors_in_words
def main(
    profile: Profile = "camvid",
    overrides: Overrides = None,
    sampled: Annotated[int, typer.Option(min=0, help="Random architectures beside the two.")] = 4,
    compare: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Train with the simple loop too.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Time the proxy task on the dataset of a profile."""
    root = project_dir()
    settings = load_settings(profile, overrides or [], root=root)
    figures = measure(settings, root, sampled, compare)
    if as_json:
        print(json.dumps(figures))
    else:
        _show(figures, compare)


def _title(figures: dict[str, Any]) -> str:
    workers = "a worker" if figures["workers"] == 1 else f"{figures['workers']} workers, each"
    return f"{workers} on {figures['device']}"


def _show(figures: dict[str, Any], compare: bool) -> None:
    console = Console()
    table = Table("candidate", "seconds", "reward", title=_title(figures))
    if compare:
        for column in ("baseline seconds", "baseline reward", "ratio"):
            table.add_column(column)
    for row in figures["candidates"]:
        cells = [row["name"], f"{row['seconds']:.1f}", f"{row['reward']:.4f}"]
        if compare:
            seconds = row["baseline_seconds"]
            cells += [f"{seconds:.1f}", f"{row['baseline_reward']:.4f}"]
            cells.append(f"{seconds / row['seconds']:.2f}")
        table.add_row(*cells)
    console.print(table)

    summary = Table("", "project", box=None)
    lines = [
        ("set-up, once a search", "set_up_seconds", "{:.1f} s"),
        ("candidates an hour", "candidates_per_hour", "{:.0f}"),
        ("peak memory", "peak_gib", "{:.2f} GiB"),
    ]
    if compare:
        summary.add_column("baseline")
    for label, key, form in lines:
        keys = [key, f"baseline_{key}"] if compare else [key]
        summary.add_row(label, *(form.format(figures[k]) for k in keys))
    console.print(summary)
    if compare:
        console.print(
            f"{figures['ratio']:.2f} times the candidates an hour "
            f"({figures['cpu_ratio']:.2f} by CPU time); rewards differ by "
            f"{figures['mean_absolute_reward_difference']:.4f} on average, "
            f"their mean by {figures['mean_reward_difference']:+.4f}"
        )


if __name__ == "__main__":
    typer.run(main)
