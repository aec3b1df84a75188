"""The scores of a segmentation, all from one confusion matrix over a whole split.

Scores of single images or batches are never averaged: a rare class would count most where it
hardly appears. A class that the ground truth does not contain is left out of the means.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from nas_core.base.errors import DataError


class ConfusionMatrix:
    """Counts of labelled pixels by true and predicted class, kept on the device of the labels.

    Attributes:
        matrix: int64 (C, C) with the true class in rows and the predicted one in columns.
    """

    def __init__(
        self, num_classes: int, ignore_index: int = 11, device: torch.device | str = "cpu"
    ) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.matrix = torch.zeros((num_classes, num_classes), dtype=torch.int64, device=device)

    def update(self, predictions: Tensor, target: Tensor) -> None:
        """Count the pixels of a batch.

        Args:
            predictions: classes, integers of any shape.
            target: true classes, of the same shape; pixels labelled `ignore_index` do not count.

        Raises:
            ValueError: the shapes differ, or a label is neither a class nor `ignore_index`.
        """
        if predictions.shape != target.shape:
            raise ValueError(
                f"predictions are {tuple(predictions.shape)}, target is {tuple(target.shape)}"
            )
        labelled = target != self.ignore_index
        truth = target[labelled].long()
        predicted = predictions[labelled].long()
        if truth.numel() == 0:
            return
        for name, labels in (("target", truth), ("predictions", predicted)):
            least, most = labels.aminmax()
            if least < 0 or most >= self.num_classes:
                raise ValueError(
                    f"{name}: labels {int(least)}..{int(most)}, expected 0..{self.num_classes - 1}"
                )
        cells = truth * self.num_classes + predicted
        counts = torch.bincount(cells, minlength=self.num_classes**2)
        self.matrix += counts.view(self.num_classes, self.num_classes)

    @property
    def iou(self) -> Tensor:
        """Intersection over union of each class, float64 (C,) on the CPU.

        NaN for a class without a labelled pixel.
        """
        matrix = self._counted()
        hits, truth = matrix.diagonal(), matrix.sum(1)
        union = truth + matrix.sum(0) - hits
        return torch.where(truth > 0, hits / union, torch.nan)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that the ground truth contains."""
        return float(self.iou.nanmean())

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of `iou` weighted with each class's share of the labelled pixels."""
        matrix = self._counted()
        shares = matrix.sum(1) / matrix.sum()
        return float((shares * self.iou.nan_to_num()).sum())

    @property
    def mean_accuracy(self) -> float:
        """Mean of the share of each class's pixels that were found (its recall)."""
        matrix = self._counted()
        return float((matrix.diagonal() / matrix.sum(1)).nanmean())

    @property
    def reward(self) -> float:
        """Geometric mean of the three scores above: what a search maximises (arXiv 1904.02365)."""
        product = self.mean_iou * self.frequency_weighted_iou * self.mean_accuracy
        return float(product ** (1 / 3))

    def metrics(self) -> dict[str, float]:
        """The four scores by name, each from 0 to 1.

        Raises:
            DataError: no labelled pixel was counted, so no score is defined.
        """
        return {
            "mean_iou": self.mean_iou,
            "frequency_weighted_iou": self.frequency_weighted_iou,
            "mean_accuracy": self.mean_accuracy,
            "reward": self.reward,
        }

    def class_iou(self, classes: Sequence[str]) -> dict[str, float]:
        """`iou` by the names of the classes, without those that the ground truth lacks.

        JSON has no NaN.
        """
        iou = zip(classes, self.iou.tolist(), strict=True)
        return {name: value for name, value in iou if value == value}

    def csv_bytes(self, classes: Sequence[str]) -> bytes:
        """The counts as a table in CSV: a row a true class, a column a predicted one."""
        table = pd.DataFrame(self.matrix.cpu().numpy(), index=list(classes), columns=list(classes))
        return table.to_csv(index_label="truth").encode()

    def _counted(self) -> Tensor:
        if not self.matrix.any():
            raise DataError(
                "no score is defined: the ground truth has no labelled pixel "
                f"(all are {self.ignore_index}, which is ignored); check the masks"
            )
        return self.matrix.double().cpu()
