"""What a trained network scores on the final split: computed once, with pictures of it."""

from __future__ import annotations

import logging
import math
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from nas_core.analysis.leaderboard import UNREADABLE
from nas_core.analysis.pictures import (
    Shown,
    choose_images,
    class_iou_picture,
    confusion_picture,
    contact_sheet,
)
from nas_core.analysis.uncertainty import COUNT_COLUMNS, check_counts
from nas_core.base.errors import TrainingError, WeightsError, first_line
from nas_core.base.files import check_regular, write_atomically, write_bytes
from nas_core.base.locks import RunLock
from nas_core.base.logs import Logger
from nas_core.base.paths import prepared_folder
from nas_core.config import Settings
from nas_core.data.lettering import Lettering
from nas_core.data.prepared import PreparedData
from nas_core.models.checkpoint import load_segmenter
from nas_core.models.compute import Compute
from nas_core.models.segmenter import Segmenter
from nas_core.training.finding import TRAINED
from nas_core.training.full import label_split
from nas_core.training.looks import Look, note_look
from nas_core.training.metrics import ConfusionMatrix
from nas_core.training.record import FinalScores, Training

log = logging.getLogger(__name__)

CONFUSION_FILE = "test_confusion_matrix.csv"
COUNTS_FILE = "test_counts.parquet"
PICTURES = ("class_iou.png", "confusion_matrix.png", "contact_sheet.png", "predictions.png")
_PUBLIC_COLUMNS = ("prediction", "errors")


def read_scores(folder: Path) -> FinalScores:
    """What a training scores on the final split.

    Raises:
        TrainingError: a file cannot be read, or the scores are of another network.
    """
    scores = FinalScores.read(folder / "test.json")
    training = Training.read(folder / "training.json")
    training.check_network(folder / "test.json", scores.id, "delete it to test again")
    return scores


def evaluate_architecture(
    settings: Settings, root: Path, label: str, folder: Path, *, logger: Logger = log
) -> FinalScores:
    """Score a trained network on the test split and draw what it does there, in one pass.

    On val where there is no test split. Leaves `evaluation_files` and test.json in the training's
    folder; a network that has its scores keeps them, and one that has all of these is not run
    again. Each run on test is noted before its scores can be seen, see `looks`.

    Raises:
        TrainingError: another process works on it, or a file of it cannot be used.
    """
    if not is_evaluated(folder):
        with RunLock(folder, TrainingError):
            # Another process may have scored it in between.
            if not is_evaluated(folder):
                _evaluate(settings, root, label, folder, logger)
    return read_scores(folder)


def _evaluate(settings: Settings, root: Path, label: str, folder: Path, logger: Logger) -> None:
    path = folder / "test.json"
    model, complete = folder / TRAINED, folder / "training.json"
    remedy = f"delete {complete} to train again"
    try:
        segmenter, card = load_segmenter(model)
    except WeightsError as error:
        raise TrainingError(f"{error}: {remedy}") from None
    Training.read(complete).check_network(model, card.genotype.id, remedy)
    Compute.from_settings(settings.compute).place(segmenter)
    data = PreparedData.open(prepared_folder(root, settings))
    found = _run(segmenter, data)
    if data.final_split == "test" and not settings.dataset.held_out:
        look = Look(
            time=time.time(),
            architecture=card.genotype.id,
            data_hash=data.data_hash,
            data=settings.name,
            model=folder.name,
            mean_iou=found.confusion.mean_iou,
        )
        note_look(root, look)
    if not path.exists():
        scores = FinalScores(
            label=label,
            id=card.genotype.id,
            **found.confusion.metrics(),
            class_iou=found.confusion.class_iou(data.classes),
        )
        write_bytes(folder / CONFUSION_FILE, found.confusion.csv_bytes(data.classes))
        scores.write(path)
        logger.info(f"{label} · {data.final_split} mIoU {scores.mean_iou:.4f}")
    if not (folder / COUNTS_FILE).exists():
        counts = found.table(data)
        write_atomically(folder / COUNTS_FILE, lambda temporary: counts.to_parquet(temporary))
    _draw_pictures(settings.name, label, data, found, folder / "pictures")
    if note := Lettering(data.classes).note:
        logger.warning(note)


def is_evaluated(folder: Path) -> bool:
    return all(file.exists() for file in (folder / "test.json", *evaluation_files(folder)))


def evaluation_files(folder: Path) -> list[Path]:
    """What an evaluation leaves beside test.json: counts in all and by image, and `PICTURES`."""
    pictures = [folder / "pictures" / name for name in PICTURES]
    return [folder / CONFUSION_FILE, folder / COUNTS_FILE, *pictures]


def counts_by_image(folder: Path, scores: FinalScores) -> pd.DataFrame:
    """The counts that the evaluation of a training left, see `resampled_mean_iou`.

    Args:
        scores: what it left in test.json.

    Raises:
        TrainingError: the file is missing or damaged, or is not what the scores were computed from.
    """
    path = folder / COUNTS_FILE
    try:
        check_regular(path)
        counts = pd.read_parquet(path, columns=[*COUNT_COLUMNS])
        check_counts(counts, scores.class_iou)
    except UNREADABLE as error:
        raise TrainingError(
            f"{path} cannot be read ({first_line(error)}): delete it to test again"
        ) from None
    return counts


@dataclass(frozen=True)
class _Found:
    """What a network makes of the final split.

    Attributes:
        images: the same of each image.
        labels: predicted classes of each image, packed: they are needed of a few, and which those
            are is known at the end.
    """

    confusion: ConfusionMatrix
    images: list[ConfusionMatrix]
    labels: list[bytes]

    @property
    def scores(self) -> list[float]:
        """Mean IoU of each image; NaN for one without a label."""
        return [one.mean_iou if one.matrix.any() else math.nan for one in self.images]

    def table(self, data: PreparedData) -> pd.DataFrame:
        """See `resampled_mean_iou`."""
        split = data.split(data.final_split)
        matrices = torch.stack([one.matrix for one in self.images])
        counts = (matrices.diagonal(dim1=1, dim2=2), matrices.sum(2), matrices.sum(1))
        values = [count.flatten().numpy() for count in counts]
        repeats = data.num_classes
        columns = [
            np.repeat(split.names, repeats),
            np.repeat(split.groups, repeats),
            np.tile(data.classes, len(split)),
            *values,
        ]
        return pd.DataFrame(dict(zip(COUNT_COLUMNS, columns, strict=True)))


def _run(segmenter: Segmenter, data: PreparedData) -> _Found:
    split = data.split(data.final_split)
    found = _Found(ConfusionMatrix(data.num_classes, data.ignore_index), [], [])
    for labels, mask in zip(label_split(segmenter, split), split.masks, strict=True):
        image = ConfusionMatrix(data.num_classes, data.ignore_index)
        image.update(torch.from_numpy(labels), torch.from_numpy(mask))
        found.confusion.matrix += image.matrix
        found.images.append(image)
        found.labels.append(zlib.compress(labels.tobytes(), level=1))
    return found


def _draw_pictures(name: str, label: str, data: PreparedData, found: _Found, folder: Path) -> None:
    """Draw `PICTURES` of the best, median and worst images, and of the whole split."""
    paths, scores = [folder / picture for picture in PICTURES], found.scores
    split, confusion = data.split(data.final_split), found.confusion
    shown = [
        Shown(
            f"{group} · {split.names[index]} · mIoU {100 * scores[index]:.1f} %",
            split.images[index],
            split.masks[index],
            np.frombuffer(zlib.decompress(found.labels[index]), np.uint8).reshape(
                split.masks[index].shape
            ),
        )
        for index, group in choose_images(scores).items()
    ]
    title = f"{label} on {name}, {data.final_split}: mIoU {100 * confusion.mean_iou:.1f} %"
    class_iou = confusion.class_iou(data.classes)
    bars = class_iou_picture(class_iou, data.classes, data.palette, title)
    matrix = confusion_picture(confusion.matrix.numpy(), data.classes, title)
    sheet = contact_sheet(shown, data.classes, data.palette)
    public = contact_sheet(shown, data.classes, data.palette, _PUBLIC_COLUMNS)
    write_atomically(paths[0], lambda temporary: bars.savefig(temporary, dpi=110))
    write_atomically(paths[1], lambda temporary: matrix.savefig(temporary, dpi=110))
    write_atomically(paths[2], lambda temporary: sheet.save(temporary))
    write_atomically(paths[3], lambda temporary: public.save(temporary))
