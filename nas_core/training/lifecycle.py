"""The life of one full training: begun or gone on with, kept, restored.

All of it lies in one folder below `paths.trainings_folder`, named by a label and by all that
decides the result; see `FullTask.identity`. It needs no server.
"""

from __future__ import annotations

import filecmp
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas_core.base.errors import (
    DiskError,
    RunError,
    TrainingError,
)
from nas_core.base.files import write_bytes, write_json
from nas_core.base.locks import RunLock, exclusive
from nas_core.base.paths import trainings_folder
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.models.checkpoint import NetworkCard, load_segmenter, save_segmenter
from nas_core.models.cost import Cost, form_of, measure_cost
from nas_core.space.genotype import Genotype
from nas_core.training.evaluation import COUNTS_FILE
from nas_core.training.finding import TRAINED
from nas_core.training.full import FullResult, train_fully
from nas_core.training.full_task import FullTask
from nas_core.training.record import EPOCHS_FILE, EpochsDone, Recipe, Training

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.pt"


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
        TrainingError: another process works on it, or a file of it cannot be used.
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
    with RunLock(folder, TrainingError):
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
    training.check_network(weights, card.genotype.id, "train again")
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
