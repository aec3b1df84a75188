"""The life of one full training: begun or gone on with, kept, scored once, shown, restored.

All of it lies in one folder below `paths.trainings_folder`, named by a label and by all that
decides the result; see `FullTask.identity`. It needs no server.
"""

from __future__ import annotations

import filecmp
import logging
import math
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
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
from nas_core.base.errors import (
    DiskError,
    RunError,
    TrainingError,
    WeightsError,
    first_line,
    shown,
)
from nas_core.base.files import check_regular, write_atomically, write_bytes, write_json
from nas_core.base.locks import RunLock, exclusive
from nas_core.base.logs import Logger
from nas_core.base.paths import prepared_folder, trainings_folder
from nas_core.config import Settings
from nas_core.data.lettering import Lettering
from nas_core.data.prepared import PreparedData
from nas_core.models.checkpoint import NetworkCard, load_segmenter, save_segmenter
from nas_core.models.compute import Compute
from nas_core.models.cost import Cost, form_of, measure_cost
from nas_core.models.segmenter import Segmenter
from nas_core.space.genotype import Genotype
from nas_core.training.finding import TRAINED
from nas_core.training.full import FullResult, label_split, train_fully
from nas_core.training.full_task import FullTask
from nas_core.training.looks import Look, note_look
from nas_core.training.metrics import ConfusionMatrix
from nas_core.training.record import EPOCHS_FILE, EpochsDone, FinalScores, Recipe, Training

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.pt"
CONFUSION_FILE = "test_confusion_matrix.csv"
COUNTS_FILE = "test_counts.parquet"
PICTURES = ("class_iou.png", "confusion_matrix.png", "contact_sheet.png", "predictions.png")
_PUBLIC_COLUMNS = ("prediction", "errors")


def train_architecture(
    settings: Settings,
    root: Path,
    label: str,
    architecture: Genotype,
    *,
    commit: str | None = None,
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
        TrainingError: its checkpoint, or its training.json, cannot be used.
        CandidateError: see `train_fully`.
    """
    task = FullTask.open(settings, root)
    data = task.data
    folder, identity = find_training(task, root, label, architecture, settings.seed)
    label = folder.name.removesuffix(f"-{identity}")

    def note(row: dict[str, float]) -> None:
        done = EpochsDone(done=round(row["epoch"]), planned=settings.train.epochs)
        done.write(folder / EPOCHS_FILE)

    if (folder / "training.json").exists():
        return folder
    with RunLock(folder):
        # Another process may have completed it in between.
        if not (folder / "training.json").exists():
            started = time.time()
            with _its_own():
                result = train_fully(
                    task,
                    architecture,
                    seed=settings.seed,
                    checkpoint=folder / CHECKPOINT_FILE,
                    on_epoch=note,
                )
            _keep_network(folder, settings, data, architecture, result)
            cost = _cost(settings, data, architecture)
            Training(
                label=label,
                identity=identity,
                started=started,
                commit=commit,
                id=architecture.id,
                num_parameters=cost.num_parameters,
                macs=cost.macs,
                input_size=(data.height, data.width),
                seed=settings.seed,
                splits=settings.train.splits,
                data=settings.name,
                data_hash=data.data_hash,
                recipe=_recipe(settings),
                device=", then ".join(result.devices),
                finished=time.time(),
                val=result.val.metrics() if result.val else {},
                history=result.history,
            ).write(folder / "training.json")
    return folder


@contextmanager
def _its_own() -> Iterator[None]:
    """A checkpoint that cannot be used concerns one training, a disk that takes nothing all."""
    try:
        yield
    except DiskError:
        raise
    except RunError as error:
        raise TrainingError(str(error)) from None


def find_training(
    task: FullTask, root: Path, label: str, architecture: Genotype, seed: int
) -> tuple[Path, str]:
    """Where a training is, by whatever name of its network it was begun; else a new folder.

    Of several the one that is complete, or that of this name.

    Returns:
        The folder, and the identity that its name ends in.

    Raises:
        DiskError: no folder can be made.
        TrainingError: the training.json there cannot be read, or is of another training.
    """
    identity = task.identity(architecture, seed)
    trainings = trainings_folder(root)
    own = trainings / f"{label}-{identity}"
    with exclusive(own):
        found = sorted(trainings.glob(f"*-{identity}"))
        if not found:
            try:
                own.mkdir()
            except OSError as error:
                raise DiskError(f"{own} cannot be written: {error.strerror}") from None
            return own, identity
    folder = max(found, key=lambda one: ((one / "training.json").exists(), one == own))
    complete = folder / "training.json"
    if complete.exists() and (of := Training.read(complete).identity) != identity:
        raise TrainingError(
            f"{complete} is of the training {of}, not of {identity}: move it back to its own "
            "folder, or delete it to train again"
        )
    return folder, identity


def _keep_network(
    folder: Path,
    settings: Settings,
    data: PreparedData,
    architecture: Genotype,
    result: FullResult,
) -> None:
    """Write model.safetensors and genotype.json."""
    network = settings.network
    card = NetworkCard(
        architecture,
        data.classes,
        data.colours,
        network.agg_size,
        network.sep_repeats,
        data.tile,
        network.encoder,
    )
    save_segmenter(folder / TRAINED, result.segmenter, card)
    write_json(folder / "genotype.json", architecture.to_dict())


def _cost(settings: Settings, data: PreparedData, architecture: Genotype) -> Cost:
    return measure_cost(
        architecture,
        **form_of(settings.network, data.num_classes),
        input_size=(data.height, data.width),
    )


def _recipe(settings: Settings) -> Recipe:
    return Recipe(
        encoder=settings.encoder.model_dump(mode="json"),
        network=settings.network.model_dump(mode="json"),
        train=settings.train.model_dump(mode="json", exclude={"top", "also"}),
    )


def restore_training(root: Path, training: Training, weights: Path) -> Path:
    """The folder of a complete training, made anew if it is not there or holds other weights.

    So it may be on a machine that has pulled the results of another one.

    Args:
        weights: a copy of its model.safetensors.

    Raises:
        WeightsError: `weights` is not such a file.
        RunError: it is of another network, or another process works on the training.
    """
    folder = trainings_folder(root) / f"{training.label}-{training.identity}"
    complete, model = folder / "training.json", folder / TRAINED
    there = complete.exists() and model.exists()
    if there and filecmp.cmp(weights, model, shallow=False):
        return folder
    _, card = load_segmenter(weights)
    _check_network(weights, card.genotype.id, training, "train again")
    with RunLock(folder):
        complete.unlink(missing_ok=True)
        # The scores and pictures of other weights.
        for name in ("test.json", COUNTS_FILE):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "pictures", ignore_errors=True)
        write_bytes(model, weights.read_bytes())
        write_json(folder / "genotype.json", card.genotype.to_dict())
        training.write(complete)
    return folder


def _check_network(path: Path, found: str, training: Training, remedy: str) -> None:
    """Raise a TrainingError where a file of a training is of another network, by its id."""
    if found != training.id:
        raise TrainingError(
            f"{path} is of the network {shown(found)}, and its training of {training.id}: {remedy}"
        )


def read_scores(folder: Path) -> FinalScores:
    """What a training scores on the final split.

    Raises:
        TrainingError: a file cannot be read, or the scores are of another network.
    """
    scores = FinalScores.read(folder / "test.json")
    training = Training.read(folder / "training.json")
    _check_network(folder / "test.json", scores.id, training, "delete it to test again")
    return scores


def evaluate_architecture(
    settings: Settings, root: Path, label: str, folder: Path, *, logger: Logger = log
) -> FinalScores:
    """Score a trained network on the test split and draw what it does there, in one pass.

    On val where there is no test split. Leaves `evaluation_files` and test.json in the training's
    folder; a network that has its scores keeps them, and one that has all of these is not run
    again. Each run on test is noted before its scores can be seen, see `looks`.

    Raises:
        RunError: another process works on it.
        TrainingError: a file of the training cannot be used.
    """
    if not is_evaluated(folder):
        with RunLock(folder):
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
    _check_network(model, card.genotype.id, Training.read(complete), remedy)
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
