"""Images a second of two full trainings at once, and of the same two one after the other.

python -m benchmarks.side_by_side [--architecture NAME] [--steps N] [-p PROFILE] [-S KEY=VALUE ...]
                                  [--json]

Takes steps of the profile's full training on random pixels: in two processes at once, which share
the cores, and in one with all of them. The two ways take turns, so what else goes on on the machine
hits both alike.
"""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, Overrides, Profile, errors_in_words
from benchmarks.malloc import steps_of
from nas_core.base.project import project_dir
from nas_core.config import Settings
from nas_core.loading import load_settings
from nas_core.space.architectures import find_architecture
from nas_core.space.genotype import Genotype
from nas_core.workers.local import ProcessWorkers, Workers
from nas_core.workers.room import num_cores

NUM_TRAININGS = 2


def measure(settings: Settings, genotype: Genotype, num_steps: int) -> dict[str, Any]:
    """Images a second of both ways, and their ratio."""
    cores = num_cores()
    seconds = {1: 0.0, NUM_TRAININGS: 0.0}
    with (
        ProcessWorkers(1, math.inf, cores) as alone,
        ProcessWorkers(NUM_TRAININGS, math.inf, max(1, cores // NUM_TRAININGS)) as at_once,
    ):
        ways = [alone, at_once]
        for workers in ways:
            _take_steps(workers, settings, genotype, 0)  # builds the networks, and warms up
        for _ in range(num_steps):
            for workers in ways:
                seconds[workers.num] += _take_steps(workers, settings, genotype, 1)
            ways.reverse()
    images = NUM_TRAININGS * num_steps * settings.train.batch_size
    rates = {num: images / total for num, total in seconds.items()}
    return {
        "cores": cores,
        "images_per_second_one_after_the_other": rates[1],
        "images_per_second_at_once": rates[NUM_TRAININGS],
        "ratio": rates[NUM_TRAININGS] / rates[1],
    }


def _take_steps(workers: Workers, settings: Settings, genotype: Genotype, num: int) -> float:
    """Seconds in which each of the trainings takes so many steps."""
    started = time.perf_counter()
    with ThreadPoolExecutor(workers.num) as threads:
        calls = [
            threads.submit(workers.call, _steps, settings, genotype, num)
            for _ in range(NUM_TRAININGS)
        ]
        for call in calls:
            call.result()
    return time.perf_counter() - started


def _steps(settings: Settings, genotype: Genotype, num: int) -> None:
    steps = steps_of(settings, genotype, True)
    for _ in range(num):
        steps.step()


@errors_in_words
def main(
    architecture: Annotated[str, typer.Option(help="What is trained.")] = "arch0",
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training, each way.")] = 20,
    profile: Profile = "camvid",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Time two full trainings at once and one after the other."""
    label, genotype = find_architecture(architecture, {})
    # Threads are those of the workers.
    given = [*(overrides or []), "compute.threads=0"]
    settings = load_settings(profile, given, root=project_dir())
    figures = measure(settings, genotype, steps)
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("two trainings", "images a second", title=f"{label}, {figures['cores']} cores")
    for way in ("one after the other", "at once"):
        rate = figures[f"images_per_second_{way.replace(' ', '_')}"]
        table.add_row(way, f"{rate:.1f}")
    Console().print(table)
    Console().print(f"at once, {figures['ratio']:.2f} times as many")


if __name__ == "__main__":
    typer.run(main)
