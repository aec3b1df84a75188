"""Dataset preparation."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from nas_core.base.paths import prepared_folder
from nas_core.config import Settings
from nas_core.data.preparing import prepare


@task(name="prepare dataset", task_run_name="prepare {name}", cache_policy=NO_CACHE)
def prepare_dataset(settings: Settings, root: Path, name: str) -> Path:
    """Check the dataset and decode it once into memory-mapped arrays; returns their folder."""
    folder = prepared_folder(root, settings)
    logger = get_run_logger()
    data = prepare(settings.dataset, root, folder, logger=logger)
    sizes = ", ".join(f"{len(split)} {name}" for name, split in data.splits.items())
    logger.info(
        "%s: %s images of %s, %d classes, data hash %s",
        name, sizes, data.extent, data.num_classes, data.data_hash[:12],
    )  # fmt: skip
    if data.tile:
        logger.info("%d tiles are left out, nearly all void", data.num_void)
    if data.final_split != "test":
        logger.info("%s has no test split: final networks are scored on %s", name, data.final_split)
    return folder
