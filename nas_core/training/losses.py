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


def segmentation_loss(
    logits: Tensor,
    masks: Tensor,
    weights: Tensor,
    ignore_index: int,
    *,
    hard_share: float = 1.0,
    jaccard: float = 0.0,
) -> Tensor:
    """Mean weighted cross-entropy over the labelled pixels, and the soft Jaccard loss.

    A batch that is all void has a loss of 0, with a gradient of 0.

    Args:
        logits: (N, C, H, W), any floating type; the loss is computed in fp32.
        masks: (N, H, W) class indices, int64.
        weights: (C,) class weights of the cross-entropy.
        ignore_index: label that counts for nothing.
        hard_share: share of the labelled pixels, those of the highest cross-entropy, that the mean
            is over (online hard example mining, Shrivastava et al., 2016).
        jaccard: factor of `jaccard_loss`, which is added.
    """
    logits = logits.float()
    if not (masks != ignore_index).any():
        return 0.0 * logits.sum()
    if hard_share == 1.0:
        loss = F.cross_entropy(logits, masks, weights, ignore_index=ignore_index)
    else:
        loss = _hard_cross_entropy(logits, masks, weights, ignore_index, hard_share)
    if jaccard:
        loss = loss + jaccard * jaccard_loss(logits, masks, ignore_index)
    return loss


def jaccard_loss(logits: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """1 minus the mean soft IoU of the classes that are in the batch (Rahman and Wang, 2016).

    Of a class: the sum over pixels of p * y, by that of p + y - p * y, p being the probability and
    y the truth, 0 or 1. The IoU is of the whole batch, not of each image.

    Args:
        logits, masks, ignore_index: as in `segmentation_loss`.
    """
    num_classes = logits.shape[1]
    labelled = masks != ignore_index
    labels = masks.masked_fill(~labelled, 0)
    probabilities = logits.softmax(1)
    mass = (probabilities * labelled[:, None]).sum((0, 2, 3))
    of_truth = probabilities.gather(1, labels[:, None])[:, 0]
    intersection = logits.new_zeros(num_classes).index_add(0, labels[labelled], of_truth[labelled])
    count = torch.bincount(labels[labelled], minlength=num_classes)
    present = count > 0
    iou = intersection / (mass + count - intersection).clamp_min(1.0)
    # A batch that is all void has a loss of 0, with a gradient.
    return ((1.0 - iou) * present).sum() / present.sum().clamp_min(1)


def _hard_cross_entropy(
    logits: Tensor, masks: Tensor, weights: Tensor, ignore_index: int, share: float
) -> Tensor:
    losses = F.cross_entropy(logits, masks, weights, ignore_index=ignore_index, reduction="none")
    labelled = masks != ignore_index
    losses, of_pixels = losses[labelled], weights[masks[labelled]]
    hardest = losses.detach().topk(max(1, round(share * len(losses))), sorted=False).indices
    return losses[hardest].sum() / of_pixels[hardest].sum()
