"""The losses of segmentation, void left out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def class_weights(label_shares: Tensor) -> Tensor:
    """1 / log(1.10 + share), scaled to a mean of 1: rare classes count more.

    The form is ENet's (Paszke et al., 2016), with a constant of 1.10 in place of 1.02.

    Args:
        label_shares: (C,) share of the labelled pixels of each class.
    """
    weights = 1.0 / torch.log(1.10 + label_shares.float())
    return weights / weights.mean()


def segmentation_loss(logits: Tensor, masks: Tensor, weights: Tensor, ignore_index: int) -> Tensor:
    """Mean weighted cross-entropy over the labelled pixels.

    A batch that is all void has a loss of 0, with a gradient of 0.

    Args:
        logits: (N, C, H, W), any floating type; the loss is computed in fp32.
        masks: (N, H, W) class indices, int64.
        weights: (C,) class weights.
        ignore_index: label that counts for nothing.
    """
    logits = logits.float()
    if masks.is_cuda:
        return _loss_without_reading(logits, masks, weights, ignore_index)
    if not (masks != ignore_index).any():
        return 0.0 * logits.sum()
    return F.cross_entropy(logits, masks, weights, ignore_index=ignore_index)


def _loss_without_reading(
    logits: Tensor, masks: Tensor, weights: Tensor, ignore_index: int
) -> Tensor:
    """The same, up to rounding, without a wait for the device."""
    labelled = masks != ignore_index
    total = F.cross_entropy(logits, masks, weights, ignore_index=ignore_index, reduction="sum")
    of_each = weights[masks.where(labelled, 0)] * labelled
    # Of a batch that is all void both are 0. No weight is as small as that.
    return total / of_each.sum().clamp(min=1e-6)
