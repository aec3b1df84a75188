"""The life of one full training: begun or gone on with, kept, scored once, shown, restored.

All of it lies in one folder below `paths.trainings_folder`, named by a label and by all that
decides the result; see `full.training_identity`. It needs no server.
"""

from __future__ import annotations

import filecmp
import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nas_core.analysis.pictures import (
    Shown,
    choose_images,
    class_iou_picture,
    confusion_picture,
    contact_sheet,
)
from nas_core.base.files import write_atomically, write_bytes, write_json
from nas_core.base.locks import RunLock, exclusive
from nas_core.base.logs import Logger
from nas_core.base.paths import prepared_folder, trainings_folder
from nas_core.config import Settings
from nas_core.data.lettering import Lettering
from nas_core.data.prepared import PreparedData
from nas_core.models.checkpoint import NetworkCard, load_segmenter, save_segmenter
from nas_core.models.compute import Compute
from nas_core.models.cost import measure_cost
from nas_core.models.encoder import load_encoder_weights
from nas_core.models.labelling import predict_labels
from nas_core.space.genotype import Genotype
from nas_core.training.full import FullResult, evaluate, train_fully, training_identity
from nas_core.training.record import read_test

log = logging.getLogger(__name__)

PICTURES = ("class_iou.png", "confusion_matrix.png", "contact_sheet.png", "predictions.png")
_PUBLIC_COLUMNS = ("prediction", "errors")


def train_architecture(
    settings: Settings,
    root: Path,
    label: str,
    architecture: Genotype,
    *,
    commit: str | None = None,
    logger: Logger = log,
) -> Path:
    """Train one architecture fully, from its last checkpoint if there is one.

    Args:
        label: the name of the architecture, or its id.
        commit: of the code, for the record.

    Returns:
        The training's folder, with model.safetensors, training.json and genotype.json. A training
        that is complete is not repeated, by whatever name of its network it was begun.

    Raises:
        RunError: another process works on it.
        CandidateError: see `train_fully`.
    """
    compute = Compute.from_settings(settings.compute)
    data = PreparedData.open(prepared_folder(root, settings))
    encoder_state = load_encoder_weights(settings.encoder.weights, root)
    identity = training_identity(
        data, architecture, encoder_state, settings.network, settings.train, compute, settings.seed
    )
    folder = _training_folder(root, label, identity)
    if folder.name != f"{label}-{identity}":
        logger.info(f"{label} is the network of {folder.name}, whose training serves both")
        label = folder.name.removesuffix(f"-{identity}")

    def report(row: dict[str, float]) -> None:
        val = f" · val mIoU {row['val_mean_iou']:.4f}" if "val_mean_iou" in row else ""
        epochs = settings.train.epochs
        left = (epochs - row["epoch"]) * row["seconds"] / 60
        logger.info(
            f"{label} · epoch {row['epoch']:.0f}/{epochs} · loss {row['loss']:.4f}{val}"
            f" · about {left:.0f} min left"
        )

    if (folder / "training.json").exists():
        return folder
    with RunLock(folder):
        # Another process may have completed it in between.
        if not (folder / "training.json").exists():
            started = time.time()
            result = train_fully(
                data,
                architecture,
                encoder_state,
                settings.network,
                settings.train,
                compute,
                seed=settings.seed,
                checkpoint=folder / "checkpoint.pt",
                on_epoch=report,
            )
            about = {"label": label, "identity": identity, "started": started, "commit": commit}
            _keep_training(folder, settings, data, architecture, result, about)
    return folder


def _training_folder(root: Path, label: str, identity: str) -> Path:
    """Where a training is, by whatever name of its network it was begun; else a new folder.

    Of several the one that is complete, or that of this name.
    """
    trainings = trainings_folder(root)
    own = trainings / f"{label}-{identity}"
    with exclusive(own):
        found = sorted(trainings.glob(f"*-{identity}"))
        if not found:
            own.mkdir()
            return own
    return max(found, key=lambda one: ((one / "training.json").exists(), one == own))


def _keep_training(
    folder: Path,
    settings: Settings,
    data: PreparedData,
    architecture: Genotype,
    result: FullResult,
    about: dict[str, Any],
) -> None:
    """Write model.safetensors, genotype.json and, last, training.json, which includes `about`."""
    network = settings.network
    card = NetworkCard(
        architecture, data.classes, data.colours, network.agg_size, network.sep_repeats
    )
    save_segmenter(folder / "model.safetensors", result.segmenter, card)
    write_json(folder / "genotype.json", architecture.to_dict())
    cost = measure_cost(
        architecture,
        num_classes=data.num_classes,
        agg_size=network.agg_size,
        sep_repeats=network.sep_repeats,
        input_size=(data.height, data.width),
    )
    write_json(
        folder / "training.json",
        {
            **about,
            "id": architecture.id,
            "num_parameters": cost.num_parameters,
            "macs": cost.macs,
            "input_size": [data.height, data.width],
            "seed": settings.seed,
            "splits": settings.train.splits,
            # What a model card tells beside the scores.
            "data": settings.name,
            "data_hash": data.data_hash,
            "recipe": {
                "encoder": settings.encoder.model_dump(),
                "train": settings.train.model_dump(exclude={"top", "also"}),
            },
            "device": ", then ".join(result.devices),
            "finished": time.time(),
            "val": result.val.metrics() if result.val else {},
            "history": result.history,
        },
    )


def restore_training(root: Path, training: dict[str, Any], weights: Path) -> Path:
    """The folder of a complete training, made anew if it is not there or holds other weights.

    So it may be on a machine that has pulled the results of another one.

    Args:
        training: the content of its training.json.
        weights: a copy of its model.safetensors.

    Raises:
        WeightsError: `weights` is not such a file.
        RunError: another process works on the training.
    """
    folder = trainings_folder(root) / f"{training['label']}-{training['identity']}"
    complete, model = folder / "training.json", folder / "model.safetensors"
    there = complete.exists() and model.exists()
    if there and filecmp.cmp(weights, model, shallow=False):
        return folder
    _, card = load_segmenter(weights)
    with RunLock(folder):
        complete.unlink(missing_ok=True)
        # The scores and pictures of other weights.
        (folder / "test.json").unlink(missing_ok=True)
        shutil.rmtree(folder / "pictures", ignore_errors=True)
        write_bytes(model, weights.read_bytes())
        write_json(folder / "genotype.json", card.genotype.to_dict())
        write_json(complete, training)
    return folder


def evaluate_architecture(
    settings: Settings, root: Path, label: str, folder: Path, *, logger: Logger = log
) -> Path:
    """Score a trained network on the test split, once; on val where there is no test split.

    Writes test.json and test_confusion_matrix.csv into the training's folder; a network that has
    its scores keeps them.

    Returns:
        The path of test.json.
    """
    path = folder / "test.json"
    if path.exists():
        return path
    segmenter, card = load_segmenter(folder / "model.safetensors")
    compute = Compute.from_settings(settings.compute)
    data = PreparedData.open(prepared_folder(root, settings))
    split = data.split(data.final_split)
    confusion = evaluate(compute.place(segmenter), split, data.num_classes, data.ignore_index)
    write_bytes(folder / "test_confusion_matrix.csv", confusion.csv_bytes(data.classes))
    iou = dict(zip(data.classes, confusion.iou.tolist(), strict=True))
    logger.info(f"{label} · {data.final_split} mIoU {confusion.mean_iou:.4f}")
    write_json(
        path,
        {
            "label": label,
            "id": card.genotype.id,
            **confusion.metrics(),
            # JSON has no NaN, which a class that the split lacks would have.
            "class_iou": {name: value for name, value in iou.items() if value == value},
        },
    )
    return path


def draw_pictures(
    settings: Settings, root: Path, label: str, folder: Path, *, logger: Logger = log
) -> list[Path]:
    """Draw what a scored network does on the split that scored it, unless that is drawn.

    Returns:
        The paths of `PICTURES` in the training's folder.
    """
    paths = [folder / "pictures" / name for name in PICTURES]
    if all(path.exists() for path in paths):
        return paths
    data = PreparedData.open(prepared_folder(root, settings))
    test = read_test(folder / "test.json")
    matrix = pd.read_csv(folder / "test_confusion_matrix.csv", index_col=0).to_numpy()
    title = f"{label} on {settings.name}, {data.final_split}: mIoU {100 * test['mean_iou']:.1f} %"
    bars = class_iou_picture(test["class_iou"], data.classes, data.palette, title)
    confusion = confusion_picture(matrix, data.classes, title)
    shown = _shown(settings, data, folder)
    sheet = contact_sheet(shown, data.classes, data.palette)
    public = contact_sheet(shown, data.classes, data.palette, _PUBLIC_COLUMNS)
    write_atomically(paths[0], lambda temporary: bars.savefig(temporary, dpi=110))
    write_atomically(paths[1], lambda temporary: confusion.savefig(temporary, dpi=110))
    write_atomically(paths[2], lambda temporary: sheet.save(temporary))
    write_atomically(paths[3], lambda temporary: public.save(temporary))
    if note := Lettering(data.classes).note:
        logger.warning(note)
    return paths


def _shown(settings: Settings, data: PreparedData, folder: Path) -> list[Shown]:
    """The best, median and worst images of the final split, with what the network makes of them."""
    segmenter, _ = load_segmenter(folder / "model.safetensors")
    compute = Compute.from_settings(settings.compute)
    compute.place(segmenter)
    split = data.split(data.final_split)
    scores = []
    for index in range(len(split)):
        image = split.rows(np.array([index]))
        confusion = evaluate(segmenter, image, data.num_classes, data.ignore_index)
        # An image without a label has no score.
        scores.append(confusion.mean_iou if confusion.matrix.any() else math.nan)
    return [
        Shown(
            f"{group} · {split.names[index]} · mIoU {100 * scores[index]:.1f} %",
            split.images[index],
            split.masks[index],
            predict_labels(segmenter, split.images[index]),
        )
        for index, group in choose_images(scores).items()
    ]
