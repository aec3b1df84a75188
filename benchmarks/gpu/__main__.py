"""All that wants a GPU, for one that is there for minutes: tests, rates, then the long trainings.

python -m benchmarks.gpu --minutes 9 --out DIR [-p PROFILE] [-S KEY=VALUE ...] [--dry-run]

In this order, each in a share of the time, and what one leaves over is the next one's:

- tests: the library's own, on this machine, those that want a GPU first;
- rates: images a second of full trainings of arch0, and candidates an hour of the proxy task, with
  1, 4, 8 and 12 processes at a time, beside the straightforward loop of benchmarks/baseline.py;
- search, search-two-repeats: 1,000 candidates each, by the settings and with
  search.proxy.sep_repeats=2;
- claims: arch0, arch1 and camvid0 with five seeds, 400 epochs on train+val, scored once;
- best: the ten best of both searches, 200 epochs on train, scored on val;
- held-out: the same without a recording of train, on which they are scored, if the data have it;
- teacher: the best by the mean of both with a wider head, 400 epochs, without that recording;
- taught: the best with that teacher and without, two seeds each, 200 epochs, scored on both;
- winner: the best, taught if that was better, three seeds of 1,000 epochs on train+val, scored
  once.

The same command goes on from what is in DIR: results.json, and a project's artifacts with journals
and checkpoints. Paths of the settings count from the project's folder, and neither Prefect nor
MLflow is needed. --dry-run does all of it on the CPU with small synthetic scenes in a minute.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.command import Overrides, errors_in_words
from benchmarks.gpu.box import DRY, DRY_SETTINGS, RESULTS, Box, Lengths, TimeIsUpError, changed_at
from benchmarks.gpu.campaign import (
    SEARCHES,
    run_search,
    train_best,
    train_claims,
    train_held_out,
    train_taught,
    train_teacher,
    train_winner,
)
from benchmarks.gpu.rates import measure_rates, run_tests
from benchmarks.gpu.results import read_results
from nas_core.base.errors import NasError, SettingsError
from nas_core.base.paths import prepared_folder
from nas_core.base.project import project_dir
from nas_core.config import Settings
from nas_core.data.preparing import prepare
from nas_core.loading import check_distinct, load_settings
from nas_core.models.compute import Compute

MOST_MINUTES = 7 * 24 * 60  # a timer overflows at more than some hundred years

STEPS: dict[str, tuple[float, Callable[[Box], None]]] = {
    "tests": (0.1, run_tests),
    "rates": (0.2, measure_rates),
    "search": (0.25, partial(run_search, name="search")),
    "search-two-repeats": (
        0.15,
        partial(run_search, name="search-two-repeats", search__proxy__sep_repeats=2),
    ),
    "claims": (0.2, train_claims),
    "best": (0.03, train_best),
    "held-out": (0.02, train_held_out),
    "teacher": (0.01, train_teacher),
    "taught": (0.02, train_taught),
    "winner": (0.02, train_winner),
}
"""In order, with each one's share of the time."""
AFTER = {
    "best": SEARCHES,
    "held-out": SEARCHES,
    "teacher": ("best", "held-out"),
    "taught": ("teacher",),
    "winner": ("taught",),
}
"""Steps that wait until others are done."""


def run(
    settings: Settings, out: Path, found: dict[str, Any], lengths: Lengths, minutes: float
) -> None:
    """Go on with all steps, as far as the time goes, from what is `found`, which it fills.

    A step that fails takes no time from the others; the next call tries it again.

    Raises:
        NasError: the device cannot be used, or a step failed: the first of them.
    """
    deadline, errors = time.monotonic(), list[NasError]()
    found["device"] = Compute.from_settings(settings.compute).describe()
    found["torch"] = torch.__version__
    for name, (share, step) in STEPS.items():
        deadline += 60 * minutes * share
        box = Box(settings, out, lengths, found, deadline)
        if name in found["done"] or not {*AFTER.get(name, ())} <= {*found["done"]}:
            continue
        try:
            step(box)
            found["done"].append(name)
            _tell(f"{name}: done")
        except TimeIsUpError:
            _tell(f"{name}: its time is up, the same command goes on")
        except NasError as error:
            _tell(f"{name}: failed: {error}")
            errors.append(error)
        finally:
            box.keep()
    if errors:
        raise errors[0]


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@errors_in_words
def main(
    out: Annotated[Path, typer.Option(help="Folder that the same command goes on from.")],
    minutes: Annotated[
        float, typer.Option(min=0.1, max=MOST_MINUTES, help="For all steps together.")
    ] = 9,
    profile: Annotated[str | None, typer.Option("--profile", "-p")] = None,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option(help="Everything, small, on the CPU.")] = False,
) -> None:
    """Use a GPU that is lent for minutes."""
    project = project_dir()
    given = overrides or []
    check_distinct("-S", [text.partition("=")[0].strip() for text in given])
    if dry_run and profile is not None:
        raise SettingsError("--dry-run has settings of its own: leave --profile out")
    profile = "synthetic" if dry_run else profile or "camvid"
    settings = load_settings(profile, [*(DRY_SETTINGS if dry_run else ()), *given], root=project)
    found = read_results(out)  # before any work
    out.mkdir(parents=True, exist_ok=True)
    prepare(settings.dataset, project, prepared_folder(out, settings))
    settings = _with_whole_paths(settings, project)
    try:
        with _sigterm_raises():
            run(settings, out.resolve(), found, DRY if dry_run else Lengths(), minutes)
    finally:
        for name in STEPS:
            print(f"{name}: {_line(found.get(name))}")
        print(f"all of it is in {out / RESULTS}")


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Whoever lends a GPU may end the command so: the workers and MPS are to end with it."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _line(found: dict[str, Any] | None) -> str:
    """A step in a line: what it has found, without the networks."""
    if found is None:
        return "not begun"
    if "trainings" in found:
        failed = f", {len(found['failed'])} failed" if found.get("failed") else ""
        return f"{len(found['trainings'])} of {found['planned']} trainings{failed}"
    return json.dumps({key: value for key, value in found.items() if key != "best"})


def _with_whole_paths(settings: Settings, project: Path) -> Settings:
    """Data and the encoder's file by their whole paths: the artifacts have a root of their own."""
    settings = changed_at(settings, ["dataset", "path"], str(project / settings.dataset.path))
    path = project / settings.encoder.weights
    return changed_at(settings, ["encoder", "weights"], str(path)) if path.is_file() else settings


if __name__ == "__main__":
    typer.run(main)
