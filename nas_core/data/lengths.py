"""How long trainings on a dataset are: about as many steps as on CamVid, however many images."""

from __future__ import annotations

from typing import Any

from nas_core.config import ProxySettings, TrainSettings

MOST_PROXY_IMAGES = 2000
"""Of a larger training split a search uses so many: an epoch then has CamVid's steps already."""
_CAMVID_TRAIN = 367
_CAMVID_META_TRAIN = 330
_MOST_CROPS = 32
_MIN_EPOCHS = 5
"""Of a full training: no image is seen less often ..."""
_MOST_TIMES = 4
"""... unless that makes the training longer than CamVid's by more than this factor."""
_VALIDATIONS = 6


def proxy_lengths(num_meta_train: int) -> dict[str, int]:
    """What `search.proxy` says of a search's length for so many images of meta-train.

    Stage A makes up with more crops of each image for images that are few, both stages with
    more epochs where steps are still missing. Each stage has an epoch at least.
    """
    default = ProxySettings()
    crops = min(_MOST_CROPS, max(1, round(_CAMVID_META_TRAIN / num_meta_train)))
    steps_a, steps_b = (
        epochs * steps_per_epoch(_CAMVID_META_TRAIN, default.batch_size)
        for epochs in (default.epochs_a, default.epochs_b)
    )
    epoch_a, epoch_b = (
        steps_per_epoch(number, default.batch_size)
        for number in (num_meta_train * crops, num_meta_train)
    )
    return {
        "epochs_a": max(1, round(steps_a / epoch_a)),
        "epochs_b": max(1, round(steps_b / epoch_b)),
        "crops_per_image": crops,
    }


def training_lengths(num_train: int) -> dict[str, int]:
    """What `train` says of a training's length for so many training images.

    Each image is seen `_MIN_EPOCHS` times, where that is not more than `_MOST_TIMES` CamVid's
    steps, and once at least. The warm-up is as great a share of the steps as CamVid's.
    """
    default = TrainSettings()
    epoch = steps_per_epoch(num_train, default.batch_size)
    wanted = default.epochs * steps_per_epoch(_CAMVID_TRAIN, default.batch_size)
    enough = min(_MIN_EPOCHS, _MOST_TIMES * wanted // epoch)
    epochs = max(1, enough, round(wanted / epoch))
    return {
        "epochs": epochs,
        "warmup_steps": round(default.warmup_steps * epochs * epoch / wanted),
        "validate_every": max(1, round(epochs / _VALIDATIONS)),
    }


def lengths(num_train: int, num_meta_train: int) -> dict[str, dict[str, Any]]:
    """The settings of `search.proxy` and `train` that differ from the defaults.

    Args:
        num_train: images of the training split.
        num_meta_train: those that candidates are trained on.
    """
    found = {
        "proxy": (ProxySettings(), proxy_lengths(num_meta_train)),
        "train": (TrainSettings(), training_lengths(num_train)),
    }
    if num_train > MOST_PROXY_IMAGES:
        found["proxy"][1]["max_images"] = MOST_PROXY_IMAGES
    return {
        section: {key: value for key, value in values.items() if getattr(default, key) != value}
        for section, (default, values) in found.items()
    }


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """As the trainings count them: images that do not fill a batch are left out."""
    return max(1, num_images // batch_size)
