"""The proxy task as a straightforward loop, for benchmarks/proxy.py to compare the project's with.

It is what one writes first, and much as the paper's authors did: fp32, torch's default memory
layout and its own depthwise convolutions, encoder outputs cached sample by sample and stacked by
a DataLoader, images augmented one by one, Adam as it comes, logits resized by interpolation, a
confusion matrix in numpy. The data and how it is divided, the crops of stage A, initial weights,
losses, class weights, averaging and epochs are the project's, so that rewards are comparable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from nas_core.base.paths import prepared_folder
from nas_core.base.seeds import seeded
from nas_core.config import DEFAULT_ENCODER, MetaValSettings, ProxySettings, Settings
from nas_core.data.meta_val import choose_meta_val
from nas_core.data.prepared import PreparedData, Split
from nas_core.data.transforms import augmented_batch, normalise, resized
from nas_core.models.compute import Compute
from nas_core.models.decoder import resize
from nas_core.models.depthwise import plain_convolutions
from nas_core.models.encoder import Encoder, encoder_weights
from nas_core.models.segmenter import Segmenter
from nas_core.space.genotype import Genotype
from nas_core.training.averaging import PolyakAverage
from nas_core.training.losses import class_weights, segmentation_loss
from nas_core.training.metrics import ConfusionMatrix


@dataclass(frozen=True)
class BaselineTask:
    """What all candidates of a search share."""

    settings: ProxySettings
    device: torch.device
    num_classes: int
    ignore_index: int
    class_weights: Tensor
    encoder: str
    encoder_state: dict[str, Tensor]
    meta_train: Split
    meta_val: Split
    cache: list[tuple[Tensor, Tensor, Tensor]]
    """Of each crop of stage A, on the CPU: both taps (C, h, w) and the mask (H, W)."""


@dataclass
class BaselineResult:
    """Rewards at the validations, and mean losses of the epochs of stages `a` and `b`."""

    scores: list[float] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)


def build_baseline(
    data: PreparedData,
    encoder_state: dict[str, Tensor] | None,
    settings: ProxySettings,
    device: torch.device,
    *,
    meta_val: MetaValSettings,
    seed: int,
    encoder_name: str = DEFAULT_ENCODER,
) -> BaselineTask:
    """The counterpart of `build_proxy_task`."""
    train = resized(
        data.split("train"),
        settings.height,
        settings.width,
        frame=(data.height, data.width),
        ignore_index=data.ignore_index,
    )
    chosen = choose_meta_val(train.names, train.groups, meta_val)
    meta_train = train.rows(chosen.train)
    encoder = seeded(seed, lambda: Encoder(encoder_name))
    if encoder_state is not None:
        encoder.load_state_dict(encoder_state)
    plain_convolutions(encoder).to(device).eval()
    crops = _AugmentedImages(
        meta_train, settings, data.ignore_index, torch.Generator().manual_seed(seed)
    )
    cache = []
    with torch.no_grad():
        for _ in range(settings.crops_per_image):
            for index in range(len(crops)):
                image, mask = crops[index]
                first, second = encoder(image[None].to(device))
                cache.append((first[0].cpu(), second[0].cpu(), mask))
    return BaselineTask(
        settings=settings,
        device=device,
        num_classes=data.num_classes,
        ignore_index=data.ignore_index,
        class_weights=class_weights(torch.as_tensor(data.label_shares)).to(device),
        encoder=encoder_name,
        encoder_state={name: tensor.cpu().clone() for name, tensor in encoder.state_dict().items()},
        meta_train=meta_train,
        meta_val=train.rows(chosen.val),
        cache=cache,
    )


@cache
def baseline_task(settings: Settings, root: Path) -> BaselineTask:
    """`build_baseline` of the settings, kept in the process."""
    return build_baseline(
        PreparedData.open(prepared_folder(root, settings)),
        encoder_weights(settings, root),
        settings.search.proxy,
        Compute.from_settings(settings.compute).device,
        meta_val=settings.search.meta_val,
        seed=settings.seed,
        encoder_name=settings.network.encoder,
    )


def train_baseline(task: BaselineTask, genotype: Genotype, *, seed: int) -> BaselineResult:
    """The counterpart of `train_candidate`, without early stopping."""
    settings = task.settings
    segmenter = seeded(
        seed,
        lambda: Segmenter.build(
            genotype, task.num_classes, settings.agg_size, settings.sep_repeats, task.encoder
        ),
    )
    segmenter.encoder.load_state_dict(task.encoder_state)
    plain_convolutions(segmenter).to(task.device)
    generator = torch.Generator().manual_seed(seed)
    result = BaselineResult()

    decoder = segmenter.decoder
    optimizer = torch.optim.Adam(decoder.parameters(), lr=settings.learning_rate_a)
    average = PolyakAverage(decoder, settings.averaging_a)
    decoder.train()
    for _ in range(settings.epochs_a):
        losses = []
        for *taps, masks in _batches(task.cache, settings, generator):
            logits = decoder([tap.to(task.device) for tap in taps])
            losses.append(_step(task, logits, masks, optimizer))
            average.update_parameters(decoder)
        result.losses.setdefault("a", []).append(float(np.mean(losses)))
    decoder.load_state_dict(average.module.state_dict())
    result.scores.append(_reward(task, segmenter))

    optimizer = torch.optim.Adam(
        [
            {"params": segmenter.encoder.parameters(), "lr": settings.learning_rate_encoder},
            {"params": decoder.parameters(), "lr": settings.learning_rate_b},
        ],
        weight_decay=settings.weight_decay_b,
    )
    average = PolyakAverage(segmenter, settings.averaging_b)
    num_steps = settings.epochs_b * max(1, len(task.meta_train) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, num_steps)
    images_of = _AugmentedImages(task.meta_train, settings, task.ignore_index, generator)
    for _ in range(settings.epochs_b):
        segmenter.train()
        losses = []
        for images, masks in _batches(images_of, settings, generator):
            logits = segmenter(images.to(task.device))
            losses.append(_step(task, logits, masks, optimizer, settings.max_gradient_norm))
            average.update_parameters(segmenter)
            schedule.step()
        result.losses.setdefault("b", []).append(float(np.mean(losses)))
        result.scores.append(_reward(task, cast(Segmenter, average.module)))
    return result


class _AugmentedImages(Dataset[tuple[Tensor, Tensor]]):
    """A split whose images are augmented as they are read: (3, H, W) and mask (H, W)."""

    def __init__(
        self, split: Split, settings: ProxySettings, ignore_index: int, generator: torch.Generator
    ) -> None:
        self.split, self.settings = split, settings
        self.ignore_index, self.generator = ignore_index, generator

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, masks = augmented_batch(
            self.split,
            [index],
            height=self.settings.height,
            width=self.settings.width,
            min_scale=self.settings.min_scale,
            max_scale=self.settings.max_scale,
            jitter=0.0,
            ignore_index=self.ignore_index,
            generator=self.generator,
        )
        return images[0].contiguous(), masks[0]


def _batches(samples: Any, settings: ProxySettings, generator: torch.Generator) -> Iterable[Any]:
    """Shuffled batches of like size, as `shuffled_batches` makes them."""
    return DataLoader(
        samples,
        settings.batch_size,
        shuffle=True,
        drop_last=len(samples) > settings.batch_size,
        generator=generator,
    )


def _step(
    task: BaselineTask,
    logits: Tensor,
    masks: Tensor,
    optimizer: torch.optim.Optimizer,
    max_norm: float | None = None,
) -> float:
    loss = segmentation_loss(
        resize(logits, masks.shape[1:]),
        masks.to(task.device),
        task.class_weights,
        task.ignore_index,
    )
    optimizer.zero_grad()
    loss.backward()
    if max_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, max_norm)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def _reward(task: BaselineTask, segmenter: Segmenter) -> float:
    """The reward on meta-val at the size of the masks."""
    segmenter.eval()
    num_classes, batch_size = task.num_classes, task.settings.batch_size
    counts = np.zeros(num_classes**2, np.int64)
    for start in range(0, len(task.meta_val), batch_size):
        rows = slice(start, start + batch_size)
        images = normalise(task.meta_val.images[rows]).contiguous()
        predicted = segmenter(images.to(task.device)).argmax(1).cpu().numpy()
        truth = task.meta_val.masks[rows].astype(np.int64)
        labelled = truth != task.ignore_index
        cells = num_classes * truth[labelled] + predicted[labelled]
        counts += np.bincount(cells, minlength=num_classes**2)
    confusion = ConfusionMatrix(num_classes, task.ignore_index)
    confusion.matrix += torch.from_numpy(counts.reshape(num_classes, num_classes))
    return confusion.reward
