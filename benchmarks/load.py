"""Thousands of candidates through Prefect and MLflow, with stand-ins for training and costs.

python -m benchmarks.load [--candidates 2000] [--json]

Shows whether time and memory a candidate grow with the length of a search, and how long the
leaderboard and going on with the search take at its end. It works in a folder of its own, on
SQLite, with a temporary Prefect server unless PREFECT_API_URL names another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import yaml

from benchmarks.command import AsJson, errors_in_words
from nas_core.base.files import json_bytes
from nas_core.base.project import project_dir
from nas_core.config import ConstraintSettings, Settings
from nas_core.loading import load_settings
from nas_core.search import loop
from nas_core.search.candidates import Outcome
from nas_core.search.journal import Record
from nas_core.search.loop import Observer
from nas_core.search.rewards import CandidateCost
from nas_core.space.genotype import Genotype
from nas_core.training.proxy_task import ProxyTask

ROOT = Path(__file__).resolve().parents[1]
PARAMS = {
    "name": "load",
    "dataset": {
        "kind": "synthetic",
        "path": "raw",
        "synthetic": {"num_train": 4, "num_val": 2, "num_test": 2, "height": 32, "width": 32},
    },
    "encoder": {"weights": "none"},
    "network": {"agg_size": 8, "sep_repeats": 1},
    "search": {
        "proxy": {"height": 32, "width": 32, "agg_size": 8},
        "confirm": {"candidates": 0},
    },
    "compute": {"device": "cpu", "precision": "fp32", "threads": 1},
    "runner": {"workers": 1},
}
PARTS = 10


def stand_in(
    shared_task: Callable[[], ProxyTask],
    settings: Settings,
    genotype: Genotype,
    thresholds: Sequence[float],
) -> tuple[Outcome, dict[str, bytes]]:
    """In place of `score_candidate`: a score from the id, and files of the usual size."""
    score = int(hashlib.sha256(genotype.id.encode()).hexdigest()[:6], 16) / 16**6
    outcome = Outcome(
        scores=(score,) * len(thresholds),
        metrics={"mean_iou": score, "skipped_steps": 0.0},
        seconds={"stage_a": 0.0},
        stopped_early=False,
    )
    files = {
        "genotype": json_bytes(genotype.to_dict()),
        "losses": json_bytes({"a": [1.0] * 5, "b": [0.5] * 2}),
        "confusion_matrix": json_bytes(genotype.to_dict()),
        "weights": bytes(10**6),
    }
    return outcome, files


class StandInCosts:
    """In place of `Costs`, which builds and times a network: numbers from the id."""

    def __init__(self, *about: Any) -> None:
        pass

    def check_limits(self, limits: ConstraintSettings) -> None:
        pass

    def of(self, genotype: Genotype, *, latency: bool) -> CandidateCost:
        number = int(genotype.id[:4], 16)
        return CandidateCost(100_000 + number, 10**8 + number, None)

    def latency(self, genotype: Genotype) -> float:
        return 10 + int(genotype.id[:4], 16) / 10**4

    def refusal(self, genotype: Genotype, limits: ConstraintSettings) -> str | None:
        return None


class Clock(Observer):
    """Reads the clocks and the memory at each record."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cpu: list[float] = []
        self.memory: list[float] = []

    def on_record(self, record: Record) -> None:
        self.times.append(time.perf_counter())
        self.cpu.append(time.process_time())
        self.memory.append(psutil.Process().memory_info().rss / 2**20)


def measure(num_candidates: int) -> dict[str, float]:
    """Seconds and memory of a search of that length, in the current folder's project."""
    from prefect import flow

    from flows.context import Context
    from flows.search import nas_search, run_search

    loop.score_candidate = stand_in
    loop.Costs = StandInCosts  # type: ignore[misc,assignment]
    changes = {"num_candidates": num_candidates, "strategy": "random"}
    root = project_dir()
    settings = load_settings(sections={"search": changes}, root=root)

    @flow(name="load")
    def search(*observers: Observer) -> None:
        context = Context.check(settings, root)
        with context.open_search() as opened:
            run_search(context, opened, observers)

    nas_search(stage="prepare")
    clock = Clock()
    search(clock)
    started = time.perf_counter()
    search()
    resume = time.perf_counter() - started
    return {
        "candidates": len(clock.times),
        **_start_and_end("seconds", list(map(_difference, pairwise(clock.times)))),
        **_start_and_end("cpu_seconds", list(map(_difference, pairwise(clock.cpu)))),
        **_start_and_end("memory_mib", clock.memory),
        "resume_seconds": resume,
        "leaderboard_seconds": _leaderboard(),
    }


def _difference(pair: tuple[float, float]) -> float:
    return pair[1] - pair[0]


def _start_and_end(name: str, values: Sequence[float]) -> dict[str, float]:
    """Means over the second tenth, when all is warm, and over the last one."""
    part = max(1, len(values) // PARTS)
    start, end = statistics.mean(values[part : 2 * part]), statistics.mean(values[-part:])
    return {f"{name}_at_the_start": start, f"{name}_at_the_end": end, f"{name}_ratio": end / start}


def _leaderboard() -> float:
    """Of the whole command, imports included."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "from flows.cli.main import main; main()", "leaderboard"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


@contextmanager
def _project() -> Iterator[None]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        (Path(folder) / "params.yaml").write_text(yaml.safe_dump(PARAMS))
        os.environ["NAS_PROJECT_DIR"] = folder
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if "PREFECT_API_URL" not in os.environ:
            os.environ["PREFECT_HOME"] = f"{folder}/prefect"
        os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
        os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
        from flows.servers.prefect_server import for_command

        with for_command():
            yield


@errors_in_words
def main(
    candidates: Annotated[int, typer.Option(min=20, help="Length of the search.")] = 2000,
    as_json: AsJson = False,
) -> None:
    """Measure a long search without training."""
    with _project(), redirect_stdout(sys.stderr):
        figures = measure(candidates)
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):<28}{value:10.3f}")


if __name__ == "__main__":
    typer.run(main)
