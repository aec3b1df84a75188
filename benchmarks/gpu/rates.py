"""The tests, and what the machine trains in an hour."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.baseline import baseline_task, train_baseline
from benchmarks.gpu.box import Box, TimeIsUpError
from benchmarks.gpu.outcomes import VARIABLE, Outcomes
from nas_core.base.errors import CandidateError, RunError
from nas_core.base.paths import prepared_folder
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.models.compute import Compute
from nas_core.search.candidates import proxy_task, score_candidate
from nas_core.search.sampling import sample_architectures
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.genotype import Genotype
from nas_core.training.full import train_fully
from nas_core.training.full_task import FullTask
from nas_core.training.proxy_task import num_validations
from nas_core.training.side_by_side import side_by_side
from nas_core.workers.local import ProcessWorkers, Workers
from nas_core.workers.mps import start_mps

ROOT = Path(__file__).resolve().parents[2]
LOG = "tests.log"
OUTCOMES = "tests.jsonl"
NONE_LEFT = 5  # pytest's exit status where there is no test to run


def run_tests(box: Box) -> None:
    """The library's tests that have no outcome yet; why one failed is in tests.log."""
    path = box.root / OUTCOMES
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu.outcomes"]
    try:
        with (box.root / LOG).open("a") as log:
            done = subprocess.run(
                [*command, *box.lengths.tests],
                cwd=ROOT,
                env=os.environ | {VARIABLE: str(path)},
                stdout=log,
                stderr=log,
                timeout=max(1.0, box.seconds_left),
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise TimeIsUpError from None
    finally:
        box.found["tests"] = Outcomes.read(path).summary()
    box.found["tests"]["exit"] = 0 if done.returncode == NONE_LEFT else done.returncode


def measure_rates(box: Box) -> None:
    """Of so many processes at a time, one number of them after the other.

    Only epochs count in which all of them train: neither the first, which captures the network,
    nor the last, which ends at another time in each.
    """
    data = PreparedData.open(prepared_folder(box.root, box.settings))
    sampled = sample_architectures(box.settings, box.root, data, box.lengths.rate_candidates)
    genotypes = list(sampled.values())
    rates: dict[str, Any] = box.found.setdefault("rates", {})
    if "baseline_candidates_per_hour" not in rates:
        with _processes(box, 1) as workers:
            hours = workers.call(_baseline, box.settings, box.root, genotypes)
        rates["baseline_candidates_per_hour"] = len(genotypes) / hours
        box.keep()
    for num in box.lengths.processes:
        if str(num) in rates:
            continue
        with _processes(box, num) as workers:
            full = _in_each(workers, partial(_train_arch0, box, workers))
            for to_the_end in (False, True):  # first, each imports and reads
                started = time.perf_counter()
                _in_each(workers, partial(_score_all, box, workers, genotypes, to_the_end))
                seconds = time.perf_counter() - started
        rates[str(num)] = {
            "images_per_second": sum(full),
            "candidates_per_hour": 3600 * num * len(genotypes) / seconds,
        }
        box.keep()


@contextmanager
def _processes(box: Box, num: int) -> Iterator[Workers]:
    """Processes that share a GPU, with MPS if there are several."""
    on_gpu = Compute.from_settings(box.settings.compute).device.type == "cuda"
    mps = start_mps()[0] if on_gpu and num > 1 else None
    shared = num if on_gpu else 0
    workers = ProcessWorkers(num, 3600, box.settings.compute.threads, num_on_a_gpu=shared, mps=mps)
    with box.ending(workers):
        yield workers


def _in_each(workers: Workers, job: Callable[[int], Any]) -> list[Any]:
    """What the job returns for each worker's number; all are in work at the same time.

    The first that fails ends all: a rate of the others alone is none.
    """

    def whole(number: int) -> Any:
        try:
            return job(number)
        except CandidateError as error:
            raise RunError(str(error)) from error

    jobs = [(number, partial(whole, number)) for number in range(workers.num)]
    return [result for _, result in side_by_side(workers, jobs)]


def _baseline(settings: Settings, root: Path, genotypes: list[Genotype]) -> float:
    """Hours that the straightforward loop takes for these candidates."""
    task = baseline_task(settings, root)
    started = time.perf_counter()
    for genotype in genotypes:
        train_baseline(task, genotype, seed=settings.seed)
    return (time.perf_counter() - started) / 3600


def _train_arch0(box: Box, workers: Workers, number: int) -> float:
    epochs = box.lengths.rate_epochs
    settings = box.with_settings(train__epochs=epochs, train__splits="train+val")
    with tempfile.TemporaryDirectory(dir=box.root) as folder:
        return workers.call(_images_per_second, settings, box.root, Path(folder), number)


def _images_per_second(settings: Settings, root: Path, folder: Path, seed: int) -> float:
    """Of a full training in one process."""
    task = FullTask.open(settings, root)
    checkpoint = folder / "checkpoint.pt"
    result = train_fully(task, ARCHITECTURES["arch0"], seed=seed, checkpoint=checkpoint)
    size = settings.train.batch_size
    images = sum(len(task.data.split(name)) for name in settings.train.splits.split("+"))
    seconds = statistics.median(row["seconds"] for row in result.history[1:-1])
    return (images // size * size or images) / seconds


def _score_all(
    box: Box, workers: Workers, genotypes: list[Genotype], to_the_end: bool, number: int
) -> None:
    """Train these candidates one after the other, each process in another order."""
    shared = workers.share(proxy_task, box.settings, box.root)
    thresholds = [0.0 if to_the_end else math.inf] * num_validations(box.settings.search.proxy)
    turn = number % len(genotypes)
    for genotype in (*genotypes[turn:], *genotypes[:turn]):
        workers.call(score_candidate, shared, box.settings, genotype, thresholds)
