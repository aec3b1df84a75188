"""The proxy task: a short training that scores one candidate.

Stage A trains the decoder alone on encoder outputs that are computed once for the whole search.
Stage B trains end to end. Both follow Nekrasov, Shen and Reid (2020), but for three things: the
loss weighs classes as the full training does, Polyak averaging warms up, and the learning rates of
stage B fall to zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LinearLR

from nas_core.base.errors import DataError
from nas_core.base.seeds import seeded
from nas_core.config import DEFAULT_ENCODER, MetaValSettings, ProxySettings
from nas_core.data.inspection import MIN_TRAIN_IMAGES
from nas_core.data.meta_val import MetaVal, choose_meta_val, drawn_rows
from nas_core.data.prepared import PreparedData, Split
from nas_core.data.resident import ResidentImages
from nas_core.data.transforms import Crops, augmented_batch, labelled_at, normalise, resized
from nas_core.models.compute import Compute
from nas_core.models.decoder import resize
from nas_core.models.encoder import Encoder
from nas_core.models.segmenter import Segmenter, most_likely
from nas_core.models.state import check_finite
from nas_core.space.genotype import Genotype
from nas_core.training.averaging import PolyakAverage
from nas_core.training.losses import class_weights, segmentation_loss
from nas_core.training.metrics import ConfusionMatrix
from nas_core.training.steps import (
    Step,
    StepLog,
    for_its_device,
    scheduled_groups,
    shuffled_batches,
    validation,
)

Taps = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ProxyTask:
    """What all candidates of a search share, computed once.

    Taps are (N, H, W, C) in memory, so that a batch of rows, permuted, is channels_last without
    a copy.
    """

    settings: ProxySettings
    compute: Compute
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int
    class_weights: Tensor
    encoder: str  # its name
    encoder_state: dict[str, Tensor]
    meta_train: Split
    resident: ResidentImages | None  # meta-train on the device, if that is a GPU
    meta_val: Split
    crop_taps: Taps  # of augmented crops of meta-train
    crop_masks: Tensor  # int64 (N, H, W)
    val_taps: Taps

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def to(self, device: torch.device) -> ProxyTask:
        """The same task, trained on another device."""

        def moved(taps: Taps) -> Taps:
            return taps[0].to(device), taps[1].to(device)

        return replace(
            self,
            compute=Compute(device, self.compute.bf16),
            class_weights=self.class_weights.to(device),
            resident=ResidentImages.on(device, [self.meta_train], self.ignore_index),
            crop_taps=moved(self.crop_taps),
            crop_masks=self.crop_masks.to(device),
            val_taps=moved(self.val_taps),
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


def build_proxy_task(
    data: PreparedData,
    encoder_state: dict[str, Tensor] | None,
    settings: ProxySettings,
    compute: Compute,
    *,
    meta_val: MetaValSettings,
    seed: int,
    encoder_name: str = DEFAULT_ENCODER,
) -> ProxyTask:
    """Divide the training split into meta-train and meta-val and compute the encoder's outputs.

    Images that have no label at the size of the proxy are left out: they teach and measure nothing.

    Args:
        encoder_state: weights of the encoder; random ones, drawn from `seed`, if None.
        seed: of the crops of stage A, too. Meta-val has its own.
        encoder_name: see `Encoder`.

    Raises:
        DataError: too few images are left.
    """
    chosen = divide(data, settings, meta_val)
    meta_train, scored = (
        resized(
            data.split("train"),
            settings.height,
            settings.width,
            rows,
            frame=(data.height, data.width),
            ignore_index=data.ignore_index,
        )
        for rows in (chosen.train, chosen.val)
    )
    encoder = seeded(seed, lambda: Encoder(encoder_name))
    if encoder_state is not None:
        encoder.load_state_dict(encoder_state)
    compute.place(encoder).eval()

    generator = torch.Generator().manual_seed(seed)
    rows = list(range(len(meta_train))) * settings.crops_per_image
    crops, crop_masks = _augment(meta_train, rows, settings, data.ignore_index, generator)
    return ProxyTask(
        settings=settings,
        compute=compute,
        classes=data.classes,
        palette=data.colours,
        ignore_index=data.ignore_index,
        class_weights=class_weights(torch.as_tensor(data.label_shares)).to(compute.device),
        encoder=encoder_name,
        encoder_state={k: v.cpu().clone() for k, v in encoder.state_dict().items()},
        meta_train=meta_train,
        resident=ResidentImages.on(compute.device, [meta_train], data.ignore_index),
        meta_val=scored,
        crop_taps=_encode(encoder, crops, settings, compute),
        crop_masks=compute.send(crop_masks),
        val_taps=_encode(encoder, normalise(scored.images), settings, compute),
    )


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
    num_validations = settings.num_validations
    if thresholds is None:
        thresholds = [0.0] * num_validations
    if len(thresholds) != num_validations:
        raise ValueError(f"{len(thresholds)} thresholds for {num_validations} validations")
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
    _validate(task, result, lambda rows: segmenter.decoder(_rows(task.val_taps, rows)))
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
            log.found.append(step(*_rows(task.crop_taps, rows), task.crop_masks[rows]))
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
            batch = _batch(task, rows, generator)
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
    with validation(f"validation {len(result.scores) + 1} of {task.settings.num_validations}"):
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


def divide(data: PreparedData, settings: ProxySettings, meta_val: MetaValSettings) -> MetaVal:
    """Rows of the training split to train candidates on and to score them.

    Images without a labelled pixel at the proxy's size are in neither part, nor those beyond
    `max_images`. Tiles of one image share pixels, so they are held out by groups.

    Raises:
        DataError: fewer than three images are left.
    """
    train = data.split("train")
    labelled = labelled_at(
        train,
        settings.height,
        settings.width,
        frame=(data.height, data.width),
        ignore_index=data.ignore_index,
    )
    if len(labelled) < MIN_TRAIN_IMAGES:
        raise DataError(
            f"train: {len(labelled)} of {len(train)} images have a labelled pixel at "
            f"{settings.width}x{settings.height}, and a search needs {MIN_TRAIN_IMAGES}: label "
            "more of them, or raise search.proxy.height and search.proxy.width"
        )
    labelled = drawn_rows(labelled, settings.max_images, meta_val)
    if data.tile:
        meta_val = meta_val.model_copy(update={"by": "groups"})
    names, groups = ([values[row] for row in labelled] for values in (train.names, train.groups))
    chosen = choose_meta_val(names, groups, meta_val)
    return replace(chosen, train=labelled[chosen.train], val=labelled[chosen.val])


@torch.inference_mode()
def _encode(encoder: Encoder, images: Tensor, settings: ProxySettings, compute: Compute) -> Taps:
    """Both taps of all images, (N, h, w, C), on the device that trains."""
    taps: tuple[list[Tensor], list[Tensor]] = ([], [])
    for batch in images.split(settings.batch_size):
        with compute.autocast():
            outputs = encoder(batch.to(compute.device))
        for kept, output in zip(taps, outputs, strict=True):
            kept.append(output.permute(0, 2, 3, 1).contiguous())
    return torch.cat(taps[0]), torch.cat(taps[1])


def _rows(taps: Taps, rows: Tensor) -> list[Tensor]:
    """A batch of taps, (N, C, h, w) in channels_last layout."""
    rows = rows.to(taps[0].device)
    return [tap[rows].permute(0, 3, 1, 2) for tap in taps]


def _batch(task: ProxyTask, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crops of images of meta-train, for stage B."""
    settings = task.settings
    if task.resident is None:
        return _augment(task.meta_train, rows.tolist(), settings, task.ignore_index, generator)
    return task.resident.batch(rows, generator, task.compute.send, **_crops(settings))


def _augment(
    split: Split,
    rows: list[int],
    settings: ProxySettings,
    ignore_index: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    return augmented_batch(
        split, rows, **_crops(settings), ignore_index=ignore_index, generator=generator
    )


def _crops(settings: ProxySettings) -> Crops:
    return Crops(
        height=settings.height,
        width=settings.width,
        min_scale=settings.min_scale,
        max_scale=settings.max_scale,
        jitter=0.0,
    )
