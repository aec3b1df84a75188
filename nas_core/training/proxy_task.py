"""What all candidates of a search are trained and scored on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nas_core.base.errors import DataError
from nas_core.base.seeds import seeded
from nas_core.config import DEFAULT_ENCODER, MetaValSettings, ProxySettings
from nas_core.data.meta_val import MetaVal, choose_meta_val, drawn_rows
from nas_core.data.prepared import MIN_TRAIN_IMAGES, PreparedData, Split
from nas_core.data.resident import ResidentImages
from nas_core.data.transforms import Crops, augmented_batch, labelled_at, normalise, resized
from nas_core.models.compute import Compute
from nas_core.models.encoder import Encoder
from nas_core.training.losses import class_weights

Taps = tuple[Tensor, Tensor]


def num_validations(proxy: ProxySettings) -> int:
    """One after stage A, one after each epoch of stage B."""
    return 1 + proxy.epochs_b


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

    def batch(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crops of these images of meta-train, for stage B."""
        if self.resident is not None:
            crops = _crops(self.settings)
            return self.resident.batch(rows, generator, self.compute.send, **crops)
        images = rows.tolist()
        return _augment(self.meta_train, images, self.settings, self.ignore_index, generator)


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


def rows_of(taps: Taps, rows: Tensor) -> list[Tensor]:
    """A batch of taps, (N, C, h, w) in channels_last layout."""
    rows = rows.to(taps[0].device)
    return [tap[rows].permute(0, 3, 1, 2) for tap in taps]


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
