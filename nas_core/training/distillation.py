"""A trained network that teaches another one: what it thinks of each pixel, beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from nas_core.base.errors import SettingsError, WeightsError, shown
from nas_core.config import TrainSettings
from nas_core.models.checkpoint import load_segmenter
from nas_core.models.segmenter import Segmenter
from nas_core.training.finding import find_weights


def load_teacher(
    settings: TrainSettings, root: Path, classes: Sequence[str] | None = None
) -> Segmenter | None:
    """The network that `train.teacher` names; None where it names none.

    Args:
        root: the project's folder, where a relative path starts.
        classes: of the data; not looked at if None.

    Raises:
        WeightsError: there is no such network, or it cannot be read.
        SettingsError: it labels other classes.
    """
    if settings.teacher == "none":
        return None
    try:
        segmenter, card = load_segmenter(find_weights(settings.teacher, root))
    except WeightsError as error:
        raise WeightsError(f"train.teacher: {error}") from None
    if classes is not None and card.classes != tuple(classes):
        raise SettingsError(
            f"train.teacher = {shown(settings.teacher)}: it labels {', '.join(card.classes)}, and "
            f"the data set has {', '.join(classes)}; name one that was trained on these classes"
        )
    return segmenter


def distillation_loss(logits: Tensor, taught: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """Mean Kullback-Leibler divergence from the teacher's classes over the labelled pixels.

    That of Hinton et al. (arXiv 1503.02531) pixel by pixel, as in Liu et al. (arXiv 1903.04197,
    section 3.1), without a temperature. Of a batch that is all void it is 0.

    Args:
        logits: (N, C, H, W), any floating type; the loss is computed in fp32.
        taught: the same of the teacher, without a gradient.
        masks: (N, H, W) class indices.
        ignore_index: label that counts for nothing.
    """
    pairs = F.log_softmax(logits.float(), 1), F.log_softmax(taught.float(), 1)
    divergence = F.kl_div(*pairs, reduction="none", log_target=True).sum(1)
    labelled = masks != ignore_index
    return divergence.where(labelled, 0).sum() / labelled.sum().clamp(min=1)
