"""Full training of one architecture, and its evaluation, as tasks of Prefect."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from nas_core.config import Settings
from nas_core.space.genotype import Genotype
from nas_core.training import side_by_side
from nas_core.training.record import FinalScores
from nas_core.workers.local import Workers
from tasks.progress_bars import TrainingProgress
from tasks.tracking.provenance import git_commit


@task(
    name="train architecture",
    task_run_name="train {label}",
    cache_policy=NO_CACHE,
    cache_result_in_memory=False,
)
def train_architecture(
    workers: Workers, settings: Settings, root: Path, label: str, architecture: Genotype
) -> Path:
    logger = get_run_logger()
    progress = TrainingProgress(logger, label, architecture.id, settings.train.epochs)
    return side_by_side.train(
        workers,
        settings,
        root,
        label,
        architecture,
        commit=git_commit(root),
        logger=logger,
        on_epoch=progress.on_epoch,
    )


@task(
    name="evaluate architecture",
    task_run_name="test {label}",
    cache_policy=NO_CACHE,
    cache_result_in_memory=False,
)
def evaluate_architecture(
    workers: Workers, settings: Settings, root: Path, label: str, folder: Path
) -> FinalScores:
    return side_by_side.evaluate(workers, settings, root, label, folder, logger=get_run_logger())
