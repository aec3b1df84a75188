"""The proxy task: a short training that scores one candidate.

Stage A trains the decoder alone on encoder outputs that are computed once for the whole search.
Stage B trains end to end. Both follow Nekrasov, Shen and Reid (2020), but for three things: the
loss weighs classes as the full training does, Polyak averaging warms up, and the learning rates of
stage B fall to zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LinearLR

from nas_core.base.seeds import seeded
from nas_core.data.transforms import normalise
from nas_core.models.decoder import resize
from nas_core.models.segmenter import Segmenter, most_likely
from nas_core.models.state import check_finite
from nas_core.space.genotype import Genotype
from nas_core.training.averaging import PolyakAverage
from nas_core.training.losses import segmentation_loss
from nas_core.training.metrics import ConfusionMatrix
from nas_core.training.proxy_task import ProxyTask, num_validations, rows_of
from nas_core.training.steps import (
    Step,
    StepLog,
    for_its_device,
    scheduled_groups,
    shuffled_batches,
    validation,
)


@dataclass
class ProxyResult:
    """A scored candidate."""

    segmenter: Segmenter
    confusion: ConfusionMatrix
    scores: list[float]
    """The reward at each validation; the last one is the candidate's."""
    stopped_early: bool
    """Whether it lacks scores: a threshold ended it before its last validation."""
    losses: dict[str, list[float]] = field(default_factory=dict)
    """Mean training loss of each epoch of stage `a` and `b`."""
    seconds: dict[str, float] = field(default_factory=dict)
    num_skipped_steps: int = 0


def train_candidate(
    task: ProxyTask, genotype: Genotype, *, seed: int, thresholds: Sequence[float] | None = None
) -> ProxyResult:
    """Train and score one candidate.

    The same arguments give the same result, bit for bit, on the same machine's CPU.

    Args:
        thresholds: scores below which the training stops, one a validation; that of the last one
            has no effect. None: it goes to its end.

    Raises:
        CandidateError: no step of an epoch had a finite loss, or weights or logits are not finite
            at a validation.
        ValueError: another number of thresholds than of validations.
    """
    settings, compute = task.settings, task.compute
    num = num_validations(settings)
    if thresholds is None:
        thresholds = [0.0] * num
    if len(thresholds) != num:
        raise ValueError(f"{len(thresholds)} thresholds for {num} validations")
    segmenter = seeded(
        seed,
        lambda: Segmenter.build(
            genotype, task.num_classes, settings.agg_size, settings.sep_repeats, task.encoder
        ),
    )
    segmenter.encoder.load_state_dict(task.encoder_state)
    compute.place(segmenter)
    generator = torch.Generator().manual_seed(seed)
    result = ProxyResult(segmenter, ConfusionMatrix(task.num_classes, task.ignore_index), [], False)

    started = time.perf_counter()
    _train_decoder(task, segmenter, generator, result)
    result.seconds["stage_a"] = time.perf_counter() - started
    _validate(task, result, lambda rows: segmenter.decoder(rows_of(task.val_taps, rows)))
    result.stopped_early = _stops(result, thresholds)
    if not result.stopped_early:
        _train_end_to_end(task, segmenter, generator, result, thresholds)
    result.segmenter.eval()
    return result


def _train_decoder(
    task: ProxyTask, segmenter: Segmenter, generator: torch.Generator, result: ProxyResult
) -> None:
    """Stage A. Leaves the averaged weights in the segmenter's decoder."""
    settings, decoder = task.settings, segmenter.decoder
    parameters = list(decoder.parameters())
    optimizer = torch.optim.Adam(
        parameters,
        lr=settings.learning_rate_a,
        fused=True,
        capturable=task.compute.device.type == "cuda",
    )
    average = PolyakAverage(decoder, settings.averaging_a)

    def loss_of(tap: Tensor, later_tap: Tensor, masks: Tensor) -> Tensor:
        with task.compute.autocast():
            logits = decoder([tap, later_tap])
        return _loss(task, logits, masks)

    # Stage A has no gradient clipping in the authors' search.
    step = for_its_device(Step(loss_of, optimizer, parameters, float("inf"), decoder, average))
    decoder.train()
    for _ in range(settings.epochs_a):
        log = StepLog()
        for batch in shuffled_batches(len(task.crop_masks), settings.batch_size, generator):
            rows = task.compute.send(batch)
            log.found.append(step(*rows_of(task.crop_taps, rows), task.crop_masks[rows]))
        _note(result, "a", log)
    decoder.load_state_dict(average.module.state_dict())


def _train_end_to_end(
    task: ProxyTask,
    segmenter: Segmenter,
    generator: torch.Generator,
    result: ProxyResult,
    thresholds: Sequence[float],
) -> None:
    """Stage B, with a validation of the averaged weights each epoch.

    The rates fall linearly to zero over its steps: so two runs of a network differ less
    (docs/search.md).
    """
    settings, device = task.settings, task.compute.device
    parameters = list(segmenter.parameters())
    optimizer = torch.optim.Adam(
        scheduled_groups(
            {
                segmenter.encoder: settings.learning_rate_encoder,
                segmenter.decoder: settings.learning_rate_b,
            },
            device,
        ),
        weight_decay=settings.weight_decay_b,
        fused=True,
        capturable=device.type == "cuda",
    )
    num_steps = settings.epochs_b * max(1, len(task.meta_train) // settings.batch_size)
    schedule = LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=num_steps)
    average = PolyakAverage(segmenter, settings.averaging_b)

    def loss_of(images: Tensor, masks: Tensor) -> Tensor:
        with task.compute.autocast():
            logits = segmenter.decoder(segmenter.encoder(images))
        return _loss(task, logits, masks)

    max_norm = settings.max_gradient_norm
    step = for_its_device(Step(loss_of, optimizer, parameters, max_norm, segmenter, average))
    for _ in range(settings.epochs_b):
        started = time.perf_counter()
        segmenter.train()
        log = StepLog()
        for rows in shuffled_batches(len(task.meta_train), settings.batch_size, generator):
            batch = task.batch(rows, generator)
            log.found.append(step(*map(task.compute.send, batch)))
            schedule.step()
        _note(result, "b", log)
        result.seconds["stage_b"] = (
            result.seconds.get("stage_b", 0.0) + time.perf_counter() - started
        )
        result.segmenter = cast(Segmenter, average.module)
        _validate(
            task,
            result,
            lambda rows: average.module(
                normalise(task.meta_val.images[rows.numpy()]).to(task.compute.device)
            ),
        )
        result.stopped_early = _stops(result, thresholds)
        if result.stopped_early:
            return


def _note(result: ProxyResult, stage: str, log: StepLog) -> None:
    loss, num_skipped = log.read()
    result.losses.setdefault(stage, []).append(loss)
    result.num_skipped_steps += num_skipped


def _stops(result: ProxyResult, thresholds: Sequence[float]) -> bool:
    """Whether the latest validation ends the training early, which the last one never does."""
    number = len(result.scores)
    return number < len(thresholds) and result.scores[-1] < thresholds[number - 1]


@torch.inference_mode()
def _validate(task: ProxyTask, result: ProxyResult, predict: Callable[[Tensor], Tensor]) -> None:
    """Score the network on the whole of meta-val; `predict` maps row numbers to logits."""
    started = time.perf_counter()
    result.segmenter.eval()
    confusion = ConfusionMatrix(task.num_classes, task.ignore_index, task.compute.device)
    masks = torch.from_numpy(task.meta_val.masks)
    with validation(f"validation {len(result.scores) + 1} of {num_validations(task.settings)}"):
        for rows in torch.arange(len(masks)).split(task.settings.batch_size):
            with task.compute.autocast():
                logits = predict(rows)
            logits = resize(logits.float(), masks.shape[1:])
            confusion.update(most_likely(logits), masks[rows].to(task.compute.device))
        check_finite(result.segmenter.state_dict(), result.segmenter.source)
    result.confusion = confusion
    result.scores.append(confusion.reward)
    result.seconds["validation"] = (
        result.seconds.get("validation", 0.0) + time.perf_counter() - started
    )


def _loss(task: ProxyTask, logits: Tensor, masks: Tensor) -> Tensor:
    """The loss of logits of any size (N, C, h, w) at the size of the masks (N, H, W)."""
    return segmentation_loss(
        _upsample(logits.float(), masks.shape[1:]),
        masks,
        task.class_weights,
        task.ignore_index,
    )


def _upsample(logits: Tensor, size: torch.Size) -> Tensor:
    """`resize` as two matrix products, equal up to rounding.

    With the loss, forward and backward, that takes two thirds of the time on the CPU: the result
    is contiguous, as the loss wants it, and `resize` is slow backward.
    """
    height, width = (
        # What `resize` makes of the unit vectors.
        resize(torch.eye(old, device=logits.device)[None, None], torch.Size((new, old)))[0, 0]
        for old, new in zip(logits.shape[2:], size, strict=True)
    )
    return height @ (logits.contiguous() @ width.T)
