"""The flow nas-train: prepare the dataset and train one architecture fully."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import flow

from flows.context import Context
from flows.run_logs import say_errors_once
from flows.servers.orphans import claim
from flows.signals import repeat_lost_signals
from flows.trainings import evaluate, record_test, register, train
from nas_core.base.paths import searches_folder
from nas_core.base.project import project_dir
from nas_core.config import Settings
from nas_core.search.searched import searched_genotypes
from nas_core.space.architectures import find_architecture
from nas_core.training.record import FinalScores, Training
from tasks.dataset import prepare_dataset

say_errors_once()
repeat_lost_signals()


@dataclass(frozen=True)
class TrainingSummary:
    """A training by hand.

    Attributes:
        val: scores by name; empty if it was trained on val.
        test: None if that was not asked for.
    """

    val: dict[str, float]
    test: FinalScores | None
    weights: Path


@flow(name="nas-train", flow_run_name="train {genotype}", on_running=[claim])
def nas_train(settings: Settings, genotype: str, test: bool) -> TrainingSummary:
    """Train an architecture (a name, an id or a JSON file), and test it if asked to."""
    root = project_dir()
    label, architecture = find_architecture(genotype, searched_genotypes(searches_folder(root)))
    context = Context.check(settings, root)
    prepare_dataset(settings, root, settings.name)
    with context.training_workers(1) as workers:
        folder = train(context, workers, label, architecture)
        register(context, folder)
        scores = evaluate(context, workers, folder) if test else None
    if scores:
        record_test(context, folder, scores)
    return TrainingSummary(
        val=Training.read(folder / "training.json").val,
        test=scores,
        weights=folder / "model.safetensors",
    )
