"""Full training and evaluation of architectures, with their record in MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
from prefect import get_run_logger

from flows.context import Context
from nas_core.analysis.leaderboard import SearchMetrics, best_genotypes
from nas_core.base.errors import CandidateError, RunError
from nas_core.base.files import fill_folder, write_bytes
from nas_core.base.paths import results_folder
from nas_core.space.genotype import Genotype
from nas_core.training.evaluation import PICTURES, evaluation_files
from nas_core.training.lifecycle import restore_training
from nas_core.training.record import (
    EvaluateMetrics,
    FinalScores,
    TrainedNetwork,
    Training,
    Trainings,
    TrainMetrics,
)
from nas_core.training.side_by_side import side_by_side
from nas_core.workers.local import Workers
from tasks.results import write_evaluation_summary, write_table, write_training_summary
from tasks.search_log import flatten
from tasks.tracking.registry import RegisteredTraining, TrainingEntry, log_test, log_training
from tasks.tracking.store import patiently
from tasks.training import evaluate_architecture, train_architecture


def train_best(context: Context, *, tests: bool) -> TrainMetrics:
    """Train the best of the search and those of train.also; one of two names once, for both.

    Leaves models/, curves.csv, metrics.json, summary.json and trainings.json of the stage train.
    The last one is there only when all that it lists is.

    Args:
        tests: where one fails, score the others all the same: it may fail again and again.

    Returns:
        metrics.json: val scores by architecture.

    Raises:
        CandidateError: of those that failed. The others are in MLflow by then, and what the stage
            left before is as it was.
    """
    place = results_folder(context.root, context.settings, "train")
    search, best = _best_of_search(context)
    folders = _train_all(context, best, search, tests=tests)
    _register_all(context, folders.values(), search)
    trainings = {
        label: Training.read(folder / "training.json") for label, folder in folders.items()
    }
    (place / "trainings.json").unlink(missing_ok=True)
    fill_folder(
        place / "models",
        {f"{label}.safetensors": f / "model.safetensors" for label, f in folders.items()},
    )
    curves = [
        pd.DataFrame(training.history).assign(architecture=label)
        for label, training in trainings.items()
    ]
    no_curves = pd.DataFrame(columns=["epoch", "loss", "architecture"])
    write_table(place / "curves.csv", pd.concat(curves) if curves else no_curves)
    metrics = TrainMetrics(
        {
            label: TrainedNetwork(
                num_parameters=training.num_parameters,
                macs=training.macs,
                epochs=len(training.history),
                val=training.val,
            )
            for label, training in trainings.items()
        }
    )
    metrics.write(place / "metrics.json")
    write_training_summary(place, trainings)
    Trainings(trainings).write(place / "trainings.json")
    return metrics


def evaluate_trainings(context: Context) -> EvaluateMetrics:
    """Score what the stage train left on the test split.

    That is models/ and trainings.json, which DVC keeps; artifacts/trainings need not be there.
    Leaves classes.csv, pictures/, metrics.json and summary.json of the stage evaluate.

    Returns:
        metrics.json: test scores by architecture.
    """
    left = results_folder(context.root, context.settings, "train")
    trainings = Trainings.read(_existing(left / "trainings.json")).root
    weights = {label: _existing(left / "models" / f"{label}.safetensors") for label in trainings}
    place = results_folder(context.root, context.settings, "evaluate")
    folders = {
        label: restore_training(context.root, training, weights[label])
        for label, training in trainings.items()
    }
    scores, rows = {}, []
    pictures: dict[str, Path] = {}
    for label, test in _evaluate_all(context, folders).items():
        scores[label] = test.scores
        rows += [
            {"architecture": label, "class": key, "iou": value}
            for key, value in test.class_iou.items()
        ]
        shown = folders[label] / "pictures"
        pictures |= {f"{label}-{name}": shown / name for name in PICTURES}
    fill_folder(place / "pictures", pictures)
    write_table(place / "classes.csv", pd.DataFrame(rows, columns=["architecture", "class", "iou"]))
    metrics = EvaluateMetrics(scores)
    metrics.write(place / "metrics.json")
    write_evaluation_summary(place, trainings, metrics)
    return metrics


def train(context: Context, workers: Workers, label: str, genotype: Genotype) -> Path:
    """Train one architecture; returns the training's folder."""
    return train_architecture(workers, context.settings, context.root, label, genotype)


def _train_all(
    context: Context, best: Mapping[str, Genotype], search: str | None, *, tests: bool
) -> dict[str, Path]:
    """The folders of the trainings by label. One network by two names is trained once.

    Raises:
        CandidateError: see `train_best`.
    """
    architectures = {**best, **context.architectures}
    first: dict[str, str] = {}
    for label, genotype in architectures.items():
        first.setdefault(genotype.id, label)
    folders: dict[str, Path] = {}
    try:
        with context.training_workers(len(first)) as workers:

            def job(label: str) -> Path:
                # The search chose the best: nobody can leave out one of them.
                with naming(label, "" if label in best else "or take it out of train.also"):
                    return train(context, workers, label, architectures[label])

            jobs = [(label, partial(job, label)) for label in first.values()]
            for label, folder in side_by_side(workers, jobs):
                folders[label] = folder
            # What has another name is complete by now.
            return {label: folders.get(label) or job(label) for label in architectures}
    except CandidateError:
        _register_all(context, folders.values(), search)
        if tests:
            _evaluate_all(context, folders)
        raise


def _register_all(context: Context, folders: Iterable[Path], search: str | None) -> None:
    for folder in dict.fromkeys(folders):
        register(context, folder, search=search)


def _evaluate_all(context: Context, folders: Mapping[str, Path]) -> dict[str, FinalScores]:
    """Score trainings, each once, and record them; returns the scores by label."""
    labels: dict[Path, str] = {}
    for label, folder in folders.items():
        labels.setdefault(folder, label)
    tests: dict[Path, FinalScores] = {}
    with context.training_workers(len(labels)) as workers:

        def job(folder: Path) -> FinalScores:
            with naming(labels[folder], ""):
                return evaluate(context, workers, folder)

        jobs = [(folder, partial(job, folder)) for folder in labels]
        for folder, test in side_by_side(workers, jobs):
            record_test(context, folder, test)
            tests[folder] = test
    return {label: tests[folder] for label, folder in folders.items()}


def register(context: Context, folder: Path, search: str | None = None) -> RegisteredTraining:
    """Record a training in MLflow and register its model; again, it changes nothing.

    Args:
        search: folder name of the search that chose the architecture.
    """
    training = Training.read(folder / "training.json")
    settings = context.settings
    tracker, logger = context.tracker, get_run_logger()
    parent = patiently(lambda: tracker.search_run(search), logger) if search else None
    included = {"dataset", "encoder", "network", "train", "seed"}
    drawing = folder / "architecture.svg"
    if not drawing.exists():
        write_bytes(drawing, context.draw(Genotype.load(folder / "genotype.json")))
    entry = TrainingEntry(
        name=training.label,
        identity=f"{training.label}-{training.identity}",
        weights=folder / "model.safetensors",
        num_parameters=training.num_parameters,
        macs=training.macs,
        seed=training.seed,
        started=training.started,
        finished=training.finished,
        params=flatten(settings.model_dump(mode="json", include=included)),
        history=training.history,
        val=training.val,
        splits=training.splits,
        drawing=drawing,
        files=[folder / "genotype.json"],
        parent=parent,
    )
    return patiently(lambda: log_training(tracker, entry, f"nas-{settings.name}"), logger)


def evaluate(context: Context, workers: Workers, folder: Path) -> FinalScores:
    """Score a training on the test split and draw pictures, unless that is done."""
    label = Training.read(folder / "training.json").label
    return evaluate_architecture(workers, context.settings, context.root, label, folder)


def record_test(context: Context, folder: Path, test: FinalScores) -> None:
    """Record in MLflow what `evaluate` gave; again, it changes nothing."""
    run_id = register(context, folder).run_id
    patiently(
        lambda: log_test(
            context.tracker,
            run_id,
            test.scores.model_dump(),
            test.class_iou,
            evaluation_files(folder),
            split=context.data.final_split,
        ),
        get_run_logger(),
    )


@contextmanager
def naming(what: str, otherwise: str) -> Iterator[None]:
    """Says of a failed training which one it was, in the log at once: others may go on for long.

    Args:
        otherwise: how the command can do without it; empty where it cannot.
    """
    try:
        yield
    except CandidateError as error:
        advice = f"; {otherwise}" if otherwise else ""
        named = CandidateError(f"{what}: {error}{advice}")
        get_run_logger().error(str(named))
        raise named from None


def _existing(path: Path) -> Path:
    if not path.exists():
        raise RunError(f"{path} is missing: run `nas search --stage train` first, or `dvc pull` it")
    return path


def _best_of_search(context: Context) -> tuple[str | None, dict[str, Genotype]]:
    """The search's folder name, and its best architectures by id."""
    num_best = context.settings.train.top
    if num_best == 0:
        return None, {}
    place = results_folder(context.root, context.settings, "search")
    path = place / "candidates.parquet"
    if not path.exists():
        raise RunError(f"{path} is missing: run `nas search --stage search` first")
    return SearchMetrics.read(place / "metrics.json").search, best_genotypes(path, num_best)
