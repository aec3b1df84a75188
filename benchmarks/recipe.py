"""What each part of the full-training recipe is worth, on val.

python -m benchmarks.recipe [--variant NAME ...] [--architecture NAME] [--seed N ...]
                            [--hold-out NAME] [-p PROFILE] [-S KEY=VALUE ...] [--json]

Trains one architecture on the train split, once with the recipe of the settings and once with each
variant, which differs from it in one respect, and scores it on val; the test split is not used.
Images of val may come from the same recordings as those of train. With --hold-out, what is trained
on is train and val without a recording, and what is scored is that recording: images whose names
begin with NAME, for instance 0001TP of CamVid.
-S gives a shortened recipe. Trainings lie in artifacts/recipe: what is there is not trained again,
and one that was interrupted goes on from its last epoch.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, Overrides, Profile, errors_in_words, kept
from nas_core.base.errors import SettingsError
from nas_core.base.files import digest_of, write_json
from nas_core.base.paths import artifacts_folder, prepared_folder
from nas_core.base.project import project_dir
from nas_core.base.setting_types import MAX_SEED
from nas_core.config import Settings, TrainSettings
from nas_core.data.prepared import PreparedData, Split, pictures_of
from nas_core.data.preparing import prepare
from nas_core.loading import check_distinct, load_settings
from nas_core.space.architectures import find_architecture
from nas_core.space.genotype import Genotype
from nas_core.training.full import train_fully
from nas_core.training.full_task import FullTask

RECIPE = "recipe"


def variants(recipe: TrainSettings) -> dict[str, TrainSettings]:
    """The recipe, and what differs from it in one respect, by name."""
    changes: dict[str, dict[str, Any]] = {
        RECIPE: {},
        "no class weighting": {"class_weighting": False},
        "no averaging": {"averaging": 0.0},
        "no jitter": {"jitter": 0.0},
        "more jitter": {"jitter": 0.7},
        "fixed scale": {"min_scale": 1.0, "max_scale": 1.0},
        "half the rates": _rates(recipe, 0.5),
        "twice the rates": _rates(recipe, 2.0),
        "one rate": {"learning_rate_encoder": recipe.learning_rate},
        "encoder at a tenth": {"learning_rate_encoder": recipe.learning_rate / 10},
        "half the batch": {"batch_size": recipe.batch_size // 2},
        "weight decay 0.01": {"weight_decay": 0.01},
    }
    found = {name: recipe.model_copy(update=change) for name, change in changes.items()}
    return {name: one for name, one in found.items() if name == RECIPE or one != recipe}


def _rates(recipe: TrainSettings, factor: float) -> dict[str, float]:
    names = ("learning_rate", "learning_rate_encoder")
    return {name: getattr(recipe, name) * factor for name in names}


def without(data: PreparedData, recording: str) -> PreparedData:
    """The data with a recording as its val split, and the rest of train and val to train on.

    Raises:
        SettingsError: no image is of that recording, or all are.
    """
    splits = [data.split("train"), data.split("val")]
    names = tuple(name for split in splits for name in split.names)
    held_out = np.array([name.startswith(recording) for name in names])
    if held_out.all() or not held_out.any():
        raise SettingsError(
            f"--hold-out {recording}: {held_out.sum()} of {len(names)} names begin with that"
        )
    images = pictures_of([image for split in splits for image in split.images])
    masks = pictures_of([mask for split in splits for mask in split.masks])
    groups = tuple(group for split in splits for group in split.groups)
    joined = Split(images, masks, names, groups)
    train, val = (joined.rows(np.flatnonzero(rows)) for rows in (~held_out, held_out))
    return dataclasses.replace(
        data,
        splits={"train": train, "val": val},
        label_shares=_label_shares(train, data.num_classes),
        data_hash=digest_of(data.data_hash, "without", recording),
        content_hash=digest_of(data.content_hash, "without", recording),
    )


def _label_shares(split: Split, num_classes: int) -> np.ndarray:
    counts = np.zeros(num_classes, np.int64)
    for mask in split.masks:
        counts += np.bincount(mask.ravel(), minlength=num_classes)[:num_classes]
    shares: np.ndarray = counts / counts.sum()
    return shares


KEPT = ("val_mean_iou", "val_class_iou", "seconds")


def score(
    settings: Settings,
    root: Path,
    data: PreparedData,
    label: str,
    genotype: Genotype,
    variant: str,
    seed: int,
) -> dict[str, Any]:
    """One training's row: variant, seed, val_mean_iou, val IoU by class, seconds."""
    own = settings.model_copy(update={"train": variants(settings.train)[variant]})
    task = FullTask.open(own, root)
    identity = task.identity(genotype, seed)
    folder = artifacts_folder(root) / "recipe" / f"{label}-{identity}"
    outcome = folder / "outcome.json"
    if not outcome.exists():
        folder.mkdir(parents=True, exist_ok=True)
        result = train_fully(
            task,
            genotype,
            seed=seed,
            checkpoint=folder / "checkpoint.pt",
            on_epoch=lambda row: print(
                f"{variant}, seed {seed}: epoch {row['epoch']:.0f}, loss {row['loss']:.4f}, "
                f"{row['seconds']:.0f} s",
                file=sys.stderr,
            ),
        )
        assert result.val is not None, "checked by main"
        write_json(
            outcome,
            {
                "val_mean_iou": result.val.metrics()["mean_iou"],
                "val_class_iou": dict(zip(data.classes, result.val.iou.tolist(), strict=True)),
                "seconds": sum(row["seconds"] for row in result.history),
            },
        )
        (folder / "checkpoint.pt").unlink()
    return {"variant": variant, "seed": seed, **kept(outcome, *KEPT)}


def _print(rows: list[dict[str, Any]]) -> None:
    def scores(variant: str) -> dict[int, float]:
        return {row["seed"]: row["val_mean_iou"] for row in rows if row["variant"] == variant}

    table = Table("variant", "val mIoU", "difference, the same seeds", "hours")
    base = scores(RECIPE)
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = scores(variant)
        differences = [own[seed] - base[seed] for seed in own if seed in base]
        hours = sum(row["seconds"] for row in rows if row["variant"] == variant) / 3600
        table.add_row(
            variant,
            " ".join(f"{score:.4f}" for score in own.values()),
            f"{statistics.mean(differences):+.4f}" if variant != RECIPE and differences else "",
            f"{hours:.2f}",
        )
    Console().print(table)


@errors_in_words
def main(
    variant: Annotated[
        list[str] | None, typer.Option(help="Only this one. May be repeated.")
    ] = None,
    architecture: Annotated[str, typer.Option(help="What is trained.")] = "arch0",
    seed: Annotated[
        list[int] | None, typer.Option(min=0, max=MAX_SEED, help="May be repeated.")
    ] = None,
    hold_out: Annotated[
        str, typer.Option(help="Score images whose names begin with this; train on the others.")
    ] = "",
    profile: Profile = "camvid",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the variants of the recipe and score them on val."""
    root = project_dir()
    settings = load_settings(profile, overrides or [], root=root)
    known = variants(settings.train)
    if settings.train.splits != "train":
        raise SettingsError("train.splits: variants are compared on val, so train without it")
    label, genotype = find_architecture(architecture, {})
    chosen = variant or list(known)
    if unknown := [name for name in chosen if name not in known]:
        raise SettingsError(f"--variant {unknown[0]}: there are {', '.join(known)}")
    check_distinct("--variant", chosen)
    check_distinct("--seed", seed or ())
    data = prepare(settings.dataset, root, prepared_folder(root, settings))
    if hold_out:
        data = without(data, hold_out)
    rows = [
        score(settings, root, data, label, genotype, name, one)
        for one in seed or [settings.seed]
        for name in chosen
    ]
    if as_json:
        print(json.dumps(rows))
    else:
        _print(rows)


if __name__ == "__main__":
    typer.run(main)
