"""How long a search and its trainings will take on this machine, estimated from a few steps."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas_core.config import ProxySettings, Settings, TrainSettings
from nas_core.data.fitting import Size
from nas_core.data.lengths import steps_per_epoch
from nas_core.data.prepared import PreparedData, Split
from nas_core.models.compute import Compute
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training.full import train_fully
from nas_core.training.full_task import FullTask
from nas_core.training.proxy import train_candidate
from nas_core.training.proxy_task import build_proxy_task, num_validations
from nas_core.workers.local import InProcessWorkers
from nas_core.workers.room import Room, candidate_bytes, find_room, training_bytes

_IGNORED = 255
_STEPS = 2


@dataclass(frozen=True)
class Times:
    """Seconds, and where they were measured.

    Attributes:
        candidate: one that is not stopped early.
        search: all candidates.
        training: one full training.
        candidates_at_a_time, trainings_at_a_time: as `search` reckons.
        device: in words, with the threads of a candidate.
    """

    candidate: float
    search: float
    training: float
    candidates_at_a_time: int
    trainings_at_a_time: int
    device: str


@dataclass(frozen=True)
class Counts:
    """Images of a dataset: those trained on fully, val, and the two parts of a search."""

    train: int
    val: int
    meta_train: int
    meta_val: int


def estimate(settings: Settings, counts: Counts, num_classes: int, frame: Size) -> Times:
    """Train the paper's arch0 for some steps on noise, as a worker does it, and multiply.

    Workers of a CPU have cores of their own, so that many take as long as one. Those of a GPU are
    taken to gain nothing.

    Args:
        frame: height and width of the images.

    Raises:
        SettingsError: the device asked for is not there.
    """
    compute = Compute.from_settings(settings.compute)
    search, train = settings.search, settings.train
    places = find_room(
        settings, compute, search.most_at_a_time, candidate_bytes(settings, counts.train)
    )
    with InProcessWorkers(places.num_threads) as worker:
        candidate = worker.call(_candidate, settings, counts, num_classes, compute)
        device = worker.call(compute.describe)
    candidates_at_a_time = _at_a_time(places, search.most_at_a_time)
    most = max(1, train.top + len(train.also))
    places = find_room(settings, compute, most, training_bytes(settings))
    with InProcessWorkers(places.num_threads) as worker:
        training = worker.call(_training, settings, counts, num_classes, frame, compute)
    return Times(
        candidate=candidate,
        search=candidate * search.num_candidates / candidates_at_a_time,
        training=training,
        candidates_at_a_time=candidates_at_a_time,
        trainings_at_a_time=_at_a_time(places, most),
        device=device,
    )


def _at_a_time(places: Room, most: int) -> int:
    return min(most, max(1, len(places.gpus)) if places.num_on_a_gpu else places.num)


def _candidate(settings: Settings, counts: Counts, num_classes: int, compute: Compute) -> float:
    proxy = settings.search.proxy
    batch = min(proxy.batch_size, counts.meta_train)
    short = proxy.model_copy(
        update={
            "epochs_a": 1,
            "epochs_b": 1,
            "crops_per_image": 1,
            "max_images": None,
            "batch_size": batch,
        }
    )
    meta_val = settings.search.meta_val.model_copy(update={"by": "frames", "fraction": 0.1})
    data = _noise((proxy.height, proxy.width), {"train": _STEPS * batch * 10 // 9 + 1}, num_classes)
    task = build_proxy_task(
        data,
        None,
        short,
        compute,
        meta_val=meta_val,
        seed=0,
        encoder_name=settings.network.encoder,
    )
    for _ in range(2):  # the first is slower
        seconds = train_candidate(task, ARCHITECTURES["arch0"], seed=0).seconds
    validated = num_validations(short) * len(task.meta_val)
    steps = _steps(proxy, counts.meta_train)
    return sum(
        seconds[f"stage_{stage}"] / steps_per_epoch(len(task.meta_train), batch) * steps[stage]
        for stage in steps
    ) + seconds["validation"] / validated * counts.meta_val * num_validations(proxy)


def _steps(proxy: ProxySettings, num_images: int) -> dict[str, int]:
    crops = num_images * proxy.crops_per_image
    return {
        "a": proxy.epochs_a * steps_per_epoch(crops, proxy.batch_size),
        "b": proxy.epochs_b * steps_per_epoch(num_images, proxy.batch_size),
    }


def _training(
    settings: Settings, counts: Counts, num_classes: int, frame: Size, compute: Compute
) -> float:
    train = settings.train
    num_images = counts.train + counts.val * ("val" in train.splits.split("+"))
    batch = min(train.batch_size, num_images)
    measured = measured_images(train, batch, compute.device.type)
    short = train.model_copy(
        update={"splits": "train", "epochs": 3, "batch_size": measured, "validate_every": 3}
    )
    data = _noise(frame, {"train": measured, "val": 1}, num_classes)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        task = FullTask(data, None, settings.network, short, compute)
        result = train_fully(task, ARCHITECTURES["arch0"], seed=0, checkpoint=checkpoint)
    _, step, step_and_image = (row["seconds"] for row in result.history)
    steps = train.epochs * steps_per_epoch(num_images, train.batch_size)
    seconds = steps * step * batch / measured
    if train.splits == "train":
        validations = -(-train.epochs // train.validate_every)
        seconds += max(0.0, step_and_image - step) * counts.val * validations
    return seconds


def measured_images(train: TrainSettings, batch: int, device: str) -> int:
    """Images of the steps that are measured: with the pixels of two of the default's crops.

    On a CPU a step of large crops takes time in proportion to its images, which saves measuring
    all. A step of small ones, and any on a GPU, takes longer for itself than for its images.
    """
    if device == "cuda":
        return batch
    default = TrainSettings()
    pixels = 2 * default.crop_height * default.crop_width
    return min(batch, max(2, pixels // (train.crop_height * train.crop_width)))


def _noise(size: Size, counts: dict[str, int], num_classes: int) -> PreparedData:
    """A dataset in memory, of random images and labels."""
    rng = np.random.default_rng(0)
    splits = {}
    for split, number in counts.items():
        names = tuple(map(str, range(number)))
        images = rng.integers(0, 256, (number, *size, 3), np.uint8)
        masks = rng.integers(0, num_classes, (number, *size), np.uint8)
        splits[split] = Split(images, masks, names, names)
    return PreparedData(
        folder=Path(),
        classes=tuple(map(str, range(num_classes))),
        palette=np.zeros((num_classes, 3), np.uint8),
        ignore_index=_IGNORED,
        height=size[0],
        width=size[1],
        data_hash="",
        code="",
        content_hash="",
        label_shares=np.full(num_classes, 1 / num_classes),
        splits=splits,
    )
