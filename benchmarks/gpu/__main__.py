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
- winner: the best by the mean of both, three seeds of 1,000 epochs on train+val, scored once.

The same command goes on from what is in DIR: results.json, and a project's artifacts with journals
and checkpoints. Paths of the settings count from the project's folder, and neither Prefect nor
MLflow is needed. --dry-run does all of it on the CPU with small synthetic scenes in a minute.
"""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import typer
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from benchmarks.baseline import baseline_task, train_baseline
from benchmarks.command import Overrides, errors_in_words
from benchmarks.gpu_tests import VARIABLE, Outcomes
from nas_core.base.documents import Document
from nas_core.base.errors import CandidateError, GenotypeError, NasError, RunError, SettingsError
from nas_core.base.files import check_writable, read_json, write_json
from nas_core.base.paths import prepared_folder
from nas_core.base.project import project_dir
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.loading import check_distinct, load_settings
from nas_core.models.compute import Compute
from nas_core.models.encoder import encoder_weights
from nas_core.search.candidates import proxy_task, score_candidate
from nas_core.search.loop import Search
from nas_core.search.sampling import sample_architectures
from nas_core.space.architectures import ARCHITECTURES, find_architecture
from nas_core.space.genotype import Genotype
from nas_core.training.full import train_fully
from nas_core.training.record import Training
from nas_core.training.side_by_side import evaluate, side_by_side, train, training_workers
from nas_core.workers.local import ProcessWorkers, Workers
from nas_core.workers.mps import start_mps

ROOT = Path(__file__).resolve().parents[1]
RESULTS = "results.json"
LOG = "tests.log"
OUTCOMES = "tests.jsonl"
NONE_LEFT = 5  # pytest's exit status where there is no test to run
MOST_MINUTES = 7 * 24 * 60  # a timer overflows at more than some hundred years


@dataclass(frozen=True)
class Lengths:
    """How much of everything is done."""

    processes: tuple[int, ...] = (1, 4, 8, 12)
    rate_epochs: int = 6
    rate_candidates: int = 3
    tests: tuple[str, ...] = ("tests/nas_core",)
    candidates: int = 1000
    claims: tuple[str, ...] = ("arch0", "arch1", "camvid0")
    claim_seeds: int = 5
    claim_epochs: int = 400
    best: int = 10
    best_epochs: int = 200
    held_out: str = "0006R0"
    """A group of train, in CamVid a recording, that the best are scored on, too."""
    winner_seeds: int = 3
    winner_epochs: int = 1000


DRY = Lengths(
    processes=(1, 2),
    rate_epochs=3,
    rate_candidates=1,
    tests=("tests/nas_core/training/test_cuda_graphs.py",),
    candidates=2,
    claims=("arch0",),
    claim_seeds=2,
    claim_epochs=1,
    best=2,
    best_epochs=1,
    held_out="train_0000",
    winner_seeds=2,
    winner_epochs=1,
)
DRY_SETTINGS = (
    "dataset.synthetic.num_train=10",
    "dataset.synthetic.num_val=2",
    "dataset.synthetic.num_test=2",
    "dataset.synthetic.height=48",
    "dataset.synthetic.width=64",
    "encoder.weights=none",
    "search.confirm.candidates=0",
    "search.proxy.height=48",
    "search.proxy.width=64",
    "search.proxy.epochs_a=1",
    "search.proxy.epochs_b=1",
    "train.crop_height=48",
    "train.crop_width=64",
    "compute.device=cpu",
    "compute.precision=fp32",
    "compute.threads=1",
    "runner.workers=2",
)


class TimeIsUpError(Exception):
    """A step's share of the time is over; the next call goes on with it."""


@dataclass(frozen=True)
class Box:
    """What the steps share, and when the one in work has to end."""

    settings: Settings
    root: Path
    """Of the artifacts."""
    lengths: Lengths
    found: dict[str, Any]
    """By step; what a step has found so far, kept by `keep`."""
    deadline: float
    """By `time.monotonic`."""

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def keep(self) -> None:
        write_json(self.root / RESULTS, self.found)

    @contextmanager
    def ending(self, workers: Workers) -> Iterator[Workers]:
        """Closes the workers when the time is up: what they train has its checkpoint.

        Raises:
            TimeIsUpError: that happened.
        """
        timer = threading.Timer(max(0.0, self.seconds_left), workers.close)
        timer.daemon = True
        timer.start()
        try:
            with workers:
                yield workers
        except RunError:
            if self.seconds_left > 0:
                raise
            raise TimeIsUpError from None
        finally:
            timer.cancel()

    def with_settings(self, **values: Any) -> Settings:
        """The settings with others by dotted keys, `__` for the dot."""
        changed = self.settings
        for key, value in values.items():
            changed = _changed(changed, key.split("__"), value)
        return changed


def _changed(settings: Any, keys: list[str], value: Any) -> Any:
    if len(keys) > 1:
        value = _changed(getattr(settings, keys[0]), keys[1:], value)
    return settings.model_copy(update={keys[0]: value})


def run_tests(box: Box) -> None:
    """The library's tests that have no outcome yet; why one failed is in tests.log."""
    path = box.root / OUTCOMES
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu_tests"]
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
    data = PreparedData.open(prepared_folder(root, settings))
    result = train_fully(
        data,
        ARCHITECTURES["arch0"],
        encoder_weights(settings, root),
        settings.network,
        settings.train,
        Compute.from_settings(settings.compute),
        seed=seed,
        checkpoint=folder / "checkpoint.pt",
    )
    size = settings.train.batch_size
    images = sum(len(data.split(name)) for name in settings.train.splits.split("+"))
    seconds = statistics.median(row["seconds"] for row in result.history[1:-1])
    return (images // size * size or images) / seconds


def _score_all(
    box: Box, workers: Workers, genotypes: list[Genotype], to_the_end: bool, number: int
) -> None:
    """Train these candidates one after the other, each process in another order."""
    shared = workers.share(proxy_task, box.settings, box.root)
    thresholds = [0.0 if to_the_end else math.inf] * box.settings.search.proxy.num_validations
    turn = number % len(genotypes)
    for genotype in (*genotypes[turn:], *genotypes[:turn]):
        workers.call(score_candidate, shared, box.settings, genotype, thresholds)


def run_search(box: Box, name: str, **values: Any) -> None:
    """A search of `Lengths.candidates`, and its best."""
    settings = box.with_settings(search__num_candidates=box.lengths.candidates, **values)
    with Search.open(settings, box.root) as search:
        try:
            with box.ending(search.workers):
                search.run()
        finally:
            best = search.ranked[: box.lengths.best]
            box.found[name] = {
                "candidates": len(search.candidates),
                "confirmations": len(search.journal.confirmations),
                "best": [
                    {"id": one.record.id, "reward": one.reward, "genotype": one.record.genotype}
                    for one in best
                ],
            }


def train_claims(box: Box) -> None:
    """The architectures whose scores are claimed, decided beforehand."""
    lengths = box.lengths
    networks = {name: find_architecture(name, {})[1] for name in lengths.claims}
    _train_all(box, "claims", networks, "train+val", lengths.claim_epochs, lengths.claim_seeds)


def train_best(box: Box) -> None:
    """The best of both searches."""
    _train_all(box, "best", _best_of_searches(box), "train", box.lengths.best_epochs, 1)


def train_held_out(box: Box) -> None:
    """The same without the recording `Lengths.held_out`, in the place of test; not if it lacks."""
    group = box.lengths.held_out
    data = PreparedData.open(prepared_folder(box.root, box.settings))
    if group not in data.split("train").groups:
        box.found["held-out"] = {"trainings": [], "failed": [], "planned": 0}
        return
    name = f"{box.settings.name}-without-{group}".lower()
    settings = box.with_settings(name=name, dataset__held_out=(group,))
    prepare(settings.dataset, box.root, prepared_folder(box.root, settings))
    own = replace(box, settings=settings)
    _train_all(own, "held-out", _best_of_searches(box), "train", box.lengths.best_epochs, 1)


def train_winner(box: Box) -> None:
    """The best of these by val and the recording, for as long as it may gain by it."""
    winner = decided(box.found)
    networks = {winner: _best_of_searches(box)[winner]}
    lengths = box.lengths
    _train_all(box, "winner", networks, "train+val", lengths.winner_epochs, lengths.winner_seeds)


def decided(found: dict[str, Any]) -> str:
    """The id of the network whose mean of val and of what was held out is highest.

    One that lacks either score, as its training failed, is left out where others have both.
    """
    val: dict[str, float] = {row["id"]: row["val"] for row in found["best"]["trainings"]}
    held_out: dict[str, float] = {row["id"]: row["test"] for row in found["held-out"]["trainings"]}
    means = {one: (val[one] + held_out[one]) / 2 for one in val.keys() & held_out.keys()} or val
    return max(sorted(means), key=lambda one: means[one])


def _best_of_searches(box: Box) -> dict[str, Genotype]:
    rows = [row for name in SEARCHES for row in box.found[name]["best"]]
    return {row["id"]: Genotype.from_dict(row["genotype"]) for row in rows}


def _train_all(
    box: Box, step: str, networks: dict[str, Genotype], splits: str, epochs: int, num_seeds: int
) -> None:
    """Train each with each seed; those that have a split for it are scored on test, once.

    They are trained on val too, or a recording takes the place of test: then that is no look.

    One that fails stands among the failed, and is not tried again once the others are done.

    Raises:
        CandidateError: all of them fail.
    """
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    box.found[step] = {
        "trainings": rows,
        "failed": failed,
        "planned": len(networks) * num_seeds,
        "epochs": epochs,
    }
    settings = box.with_settings(train__splits=splits, train__epochs=epochs)
    compute = Compute.from_settings(settings.compute)

    def job(seed: int, label: str, genotype: Genotype) -> dict[str, Any]:
        own = settings.model_copy(update={"seed": seed})
        row: dict[str, Any] = {"label": label, "id": genotype.id, "seed": seed}
        try:
            folder = train(workers, own, box.root, label, genotype)
            if splits == "train" and not settings.dataset.held_out:
                return row | {"val": Training.read(folder / "training.json").val["mean_iou"]}
            return row | {"test": evaluate(workers, own, box.root, label, folder).mean_iou}
        except CandidateError as error:
            return row | {"reason": str(error)}

    jobs = [
        (label, partial(job, seed, label, genotype))
        for seed in range(num_seeds)
        for label, genotype in networks.items()
    ]
    with box.ending(training_workers(settings, compute, len(jobs))) as workers:
        for _, row in side_by_side(workers, jobs):
            (failed if "reason" in row else rows).append(row)
            box.keep()
    if not rows:
        raise CandidateError(f"all trainings failed; the first: {failed[0]['reason']}")


SEARCHES = ("search", "search-two-repeats")
STEPS: dict[str, tuple[float, Callable[[Box], None]]] = {
    "tests": (0.1, run_tests),
    "rates": (0.2, measure_rates),
    "search": (0.25, partial(run_search, name="search")),
    "search-two-repeats": (
        0.15,
        partial(run_search, name="search-two-repeats", search__proxy__sep_repeats=2),
    ),
    "claims": (0.2, train_claims),
    "best": (0.04, train_best),
    "held-out": (0.03, train_held_out),
    "winner": (0.03, train_winner),
}
"""In order, with each one's share of the time."""
AFTER = {"best": SEARCHES, "held-out": SEARCHES, "winner": ("best", "held-out")}
"""Steps that wait until others are done."""


class _Found(BaseModel):
    """A part of results.json; what else stands there is for its reader alone."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Best(_Found):
    id: str
    genotype: dict[str, Any]

    @field_validator("genotype")
    @classmethod
    def is_network(cls, genotype: dict[str, Any]) -> dict[str, Any]:
        try:
            Genotype.from_dict(genotype)
        except GenotypeError as error:
            raise ValueError(str(error)) from None
        return genotype


class _Searched(_Found):
    best: list[_Best]


class _Scored(_Found):
    id: str
    val: float


class _Trained(_Found):
    trainings: list[dict[str, Any]]
    planned: int


class _Tested(_Found):
    id: str
    test: float


class _HeldOut(_Found):
    trainings: list[_Tested]
    planned: int


class _Decided(_Found):
    trainings: list[_Scored] = Field(min_length=1)
    planned: int


class Results(Document):
    """results.json, as far as it is gone on from."""

    remedy: ClassVar[str] = "restore it from a copy, or give --out another folder"

    done: list[Literal[tuple(STEPS)]]  # type: ignore[valid-type]  # the names of STEPS
    tests: dict[str, Any] | None = None
    rates: dict[str, Any] | None = None
    search: _Searched | None = None
    search_two_repeats: _Searched | None = Field(None, alias="search-two-repeats")
    claims: _Trained | None = None
    best: _Decided | None = None
    held_out: _HeldOut | None = Field(None, alias="held-out")
    winner: _Trained | None = None

    @model_validator(mode="after")
    def has_what_is_done(self) -> Self:
        for name in self.done:
            if getattr(self, name.replace("-", "_")) is None:
                raise ValueError(f"{name} is done, and nothing of it is there")
        return self


def read_results(out: Path) -> dict[str, Any]:
    """What a folder holds of an earlier call, by step; nothing is done if that is new.

    Raises:
        RunError: results.json is malformed, or the folder cannot be written.
        OSError: the outcomes of the tests cannot be read.
    """
    check_writable(out, "give --out another place")
    Outcomes.read(out / OUTCOMES)
    path = out / RESULTS
    if not path.exists():
        return {"done": []}
    Results.read(path)
    found: dict[str, Any] = read_json(path)
    return found


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
    settings = _changed(settings, ["dataset", "path"], str(project / settings.dataset.path))
    path = project / settings.encoder.weights
    return _changed(settings, ["encoder", "weights"], str(path)) if path.is_file() else settings


if __name__ == "__main__":
    typer.run(main)
