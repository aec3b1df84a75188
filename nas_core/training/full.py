"""Full training of one architecture, with a checkpoint every epoch and exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nas_core.base.seeds import seeded
from nas_core.config import TrainSettings
from nas_core.data.prepared import Split
from nas_core.data.resident import ResidentImages
from nas_core.data.transforms import Crops, augmented_batch
from nas_core.models.compute import keep_freed_memory
from nas_core.models.cost import form_of
from nas_core.models.labelling import batch_size_for, predict_batch
from nas_core.models.segmenter import Segmenter
from nas_core.models.state import check_finite
from nas_core.space.genotype import Genotype
from nas_core.training.averaging import PolyakAverage
from nas_core.training.distillation import distillation_loss
from nas_core.training.full_task import FullTask
from nas_core.training.losses import class_weights, segmentation_loss
from nas_core.training.metrics import ConfusionMatrix
from nas_core.training.resuming import Made, State, load_checkpoint, save_checkpoint
from nas_core.training.steps import (
    Step,
    StepLog,
    for_its_device,
    scheduled_groups,
    shuffled_batches,
    validation,
)


@dataclass(frozen=True)
class FullResult:
    """A trained network: the averaged weights after the last epoch."""

    segmenter: Segmenter
    history: list[dict[str, float]]
    """One row an epoch: epoch, loss, seconds, skipped steps, and val metrics where validated."""
    val: ConfusionMatrix | None
    """On the val split; None when the network was trained on it."""
    devices: list[str]
    """What it was trained on, in words, with torch; several where it went on elsewhere."""


def train_fully(
    task: FullTask,
    genotype: Genotype,
    *,
    seed: int,
    checkpoint: Path,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> FullResult:
    """Train an architecture, or go on from its checkpoint.

    The random numbers of an epoch come from the seed and the number of the epoch, so a training
    that was interrupted ends with the weights of one that was not.

    Args:
        checkpoint: file that is replaced after every epoch.
        on_epoch: called with each new row of the history.

    Raises:
        RunError: the checkpoint is unreadable or of another training.
        CandidateError: no step of an epoch had a finite loss, or weights or logits are not finite
            at a validation.
    """
    keep_freed_memory()
    training = _Training(task, genotype, seed)
    if checkpoint.exists():
        load_checkpoint(checkpoint, training.made, training.state)
    for epoch in range(len(training.state.history), task.settings.epochs):
        row = training.run_epoch(epoch)
        save_checkpoint(checkpoint, training.made, training.state)
        on_epoch(row)
    return training.result()


def evaluate(
    segmenter: Segmenter, split: Split, num_classes: int, ignore_index: int
) -> ConfusionMatrix:
    """One confusion matrix over a whole split; see `label_split`."""
    confusion = ConfusionMatrix(num_classes, ignore_index)
    for labels, mask in zip(label_split(segmenter, split), split.masks, strict=True):
        confusion.update(torch.from_numpy(labels), torch.from_numpy(mask))
    return confusion


def label_split(segmenter: Segmenter, split: Split) -> Iterator[npt.NDArray[np.uint8]]:
    """The most likely classes (H, W) of each image of a split, at the images' own size.

    In fp32, as a network is used, whatever it was trained in: bf16 may move a score by 0.1 points.

    Raises:
        WeightsError: a logit is not finite.
    """
    segmenter.eval()
    start = 0
    while start < len(split):
        size = split.masks[start].shape
        end = start + 1
        most = min(len(split), start + batch_size_for((size[0], size[1])))
        while end < most and split.masks[end].shape == size:
            end += 1
        yield from predict_batch(segmenter, np.stack([*split.images[start:end]]))
        start = end


class _Training:
    def __init__(self, task: FullTask, genotype: Genotype, seed: int) -> None:
        data, settings, compute = task.data, task.settings, task.compute
        self.data, self.settings, self.compute, self.seed = data, settings, compute, seed
        self.splits = [data.split(name) for name in settings.splits.split("+")]
        self.num_images = sum(len(split) for split in self.splits)
        self.resident = ResidentImages.on(compute.device, self.splits, data.ignore_index)
        self.made = Made(
            identity=task.identity(genotype, seed),
            architecture=genotype.id,
            num_classes=data.num_classes,
            num_epochs=settings.epochs,
            steps_per_epoch=max(1, self.num_images // settings.batch_size),
        )
        segmenter = seeded(
            seed,
            lambda: Segmenter.build(genotype, **form_of(task.network, data.num_classes)),
        )
        if task.encoder_state is not None:
            segmenter.encoder.load_state_dict(task.encoder_state)
        compute.place(segmenter)
        average = PolyakAverage(segmenter, settings.averaging)
        optimizer = _optimizer(segmenter, settings, compute.device)
        num_steps = self.made.steps_per_epoch * settings.epochs
        schedule = LambdaLR(optimizer, learning_rate_factor(settings, num_steps))
        self.state = State(segmenter, average, optimizer, schedule)
        shares = torch.as_tensor(data.label_shares)
        weights = class_weights(shares) if settings.class_weighting else torch.ones(len(shares))
        self.step = for_its_device(
            Step(
                _loss_of(segmenter, task, weights.to(compute.device)),
                optimizer,
                list(segmenter.parameters()),
                settings.max_gradient_norm,
                segmenter,
                average,
            )
        )
        self.final_val: ConfusionMatrix | None = None

    @property
    def averaged(self) -> Segmenter:
        return cast(Segmenter, self.state.average.module)

    def run_epoch(self, epoch: int) -> dict[str, float]:
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        self.state.segmenter.train()
        log = StepLog()
        for rows in shuffled_batches(self.num_images, self.settings.batch_size, generator):
            log.found.append(self.step(*self._batch(rows, generator)))
            self.state.schedule.step()
        loss, num_skipped = log.read()
        row: dict[str, float] = {"epoch": epoch + 1, "loss": loss, "skipped_steps": num_skipped}
        last = epoch + 1 == self.settings.epochs
        if (epoch + 1) % self.settings.validate_every == 0 or last:
            val = self.validate(epoch + 1)
            if val is not None:
                row |= {f"val_{name}": value for name, value in val.metrics().items()}
            if last:
                self.final_val = val
        row["seconds"] = time.perf_counter() - started
        self.state.history.append(row)
        device = f"{self.compute.describe()}, torch {torch.__version__}"
        if device not in self.state.devices:
            self.state.devices.append(device)
        return row

    def _batch(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The images of `rows`, which count through all the splits trained on."""
        settings = self.settings
        form = Crops(
            height=settings.crop_height,
            width=settings.crop_width,
            min_scale=settings.min_scale,
            max_scale=settings.max_scale,
            jitter=settings.jitter,
        )
        if self.resident:
            return self.resident.batch(rows, generator, self.compute.send, **form)
        images, masks = [], []
        start = 0
        for split in self.splits:
            own = [row - start for row in rows.tolist() if 0 <= row - start < len(split)]
            start += len(split)
            if own:
                crops, labels = augmented_batch(
                    split,
                    own,
                    **form,
                    ignore_index=self.data.ignore_index,
                    generator=generator,
                    send=self.compute.send,
                )
                images.append(crops)
                masks.append(labels)
        return torch.cat(images), torch.cat(masks)

    def validate(self, epoch: int) -> ConfusionMatrix | None:
        """After so many epochs; None where it is trained on val: then its weights are checked."""
        confusion = None
        with validation(f"the validation of epoch {epoch}"):
            if "val" not in self.settings.splits.split("+"):
                confusion = evaluate(
                    self.averaged,
                    self.data.split("val"),
                    self.data.num_classes,
                    self.data.ignore_index,
                )
            check_finite(self.averaged.state_dict(), self.averaged.source)
        return confusion

    def result(self) -> FullResult:
        val = self.validate(len(self.state.history)) if self.final_val is None else self.final_val
        return FullResult(self.averaged.eval(), self.state.history, val, self.state.devices)


def _loss_of(
    segmenter: Segmenter, task: FullTask, weights: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    ignored = task.data.ignore_index
    teacher = task.compute.place(task.teacher) if task.teacher else None

    def loss_of(images: Tensor, masks: Tensor) -> Tensor:
        with task.compute.autocast():
            logits = segmenter(images)
        loss = segmentation_loss(logits, masks, weights, ignored)
        if teacher is None:
            return loss
        with torch.no_grad(), task.compute.autocast():
            taught = teacher(images)
        return loss + distillation_loss(logits, taught, masks, ignored)

    return loss_of


def _optimizer(segmenter: Segmenter, settings: TrainSettings, device: torch.device) -> Optimizer:
    return AdamW(
        scheduled_groups(
            {
                segmenter.encoder: settings.learning_rate_encoder,
                segmenter.decoder: settings.learning_rate,
            },
            device,
        ),
        weight_decay=settings.weight_decay,
        # On a GPU one kernel in place of some hundred; on the CPU as by default.
        fused=True if device.type == "cuda" else None,
        capturable=device.type == "cuda",
    )


def learning_rate_factor(settings: TrainSettings, num_steps: int) -> Callable[[int], float]:
    """Linear warm-up, then (1 - t)^0.9 over t from 0 to 1, of DeepLab (Chen et al., 2016)."""
    warmup = min(settings.warmup_steps, num_steps // 2)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, num_steps - warmup))
        return math.pow(1.0 - progress, 0.9)

    return factor
