"""The flow nas-train: prepare the dataset and train one architecture fully."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.context import Context
from flows.logs import hide_tracebacks_of_user_errors
from flows.servers.orphans import claim
from flows.signals import repeat_lost_signals
from flows.trainings import evaluate, register, train
from nas_core.analysis.leaderboard import searched_genotypes
from nas_core.base.paths import searches_folder
from nas_core.config import Settings, project_dir
from nas_core.space.architectures import find_architecture
from nas_core.training.record import read_training
from tasks.dataset import prepare_dataset

hide_tracebacks_of_user_errors()
repeat_lost_signals()


@flow(name="nas-train", flow_run_name="train {genotype}", on_running=[claim])
def nas_train(settings: Settings, genotype: str, test: bool) -> dict[str, Any]:
    """Train an architecture (a name, an id or a JSON file), and test it if asked to.

    Returns:
        The scores on `val` and `test` (empty if there are none) and the path of the weights.
    """
    root = project_dir()
    label, architecture = find_architecture(genotype, searched_genotypes(searches_folder(root)))
    context = Context.check(settings, root)
    prepare_dataset(settings, root, settings.name)
    folder = train(context, label, architecture)
    register(context, folder)
    return {
        "val": read_training(folder / "training.json")["val"],
        "test": dict(evaluate(context, folder)) if test else {},
        "weights": str(folder / "model.safetensors"),
    }
