"""How sure a figure is: intervals over seeds, over the images of a split, and over networks.

All intervals hold 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from nas_core.base.documents import Document
from nas_core.data.meta_val import rows_by_group

Floats = npt.NDArray[np.float64]
Interval = Annotated[tuple[float, float], Field(strict=False)]

CONFIDENCE = 0.95
PERCENTILES = (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE))
NUM_RESAMPLES = 2000
BLOCK_LENGTH = 10
"""Images of a block. Neighbours in a recording show nearly the same, and are no new evidence."""
MIN_BLOCKS = 10
"""With fewer, resamples of blocks say too little."""


class Spread(Document):
    """A figure over seeds."""

    mean: float
    min: float
    max: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(mean=fmean(values), min=min(values), max=max(values))


def percentile_interval(resampled: Floats) -> Interval:
    """Of a figure's values (R,) in R resamples."""
    low, high = np.percentile(resampled, PERCENTILES)
    return float(low), float(high)


def seeds_interval(values: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean over seeds; None of fewer than two: one says nothing.

    It takes the seeds as drawn from a normal distribution. Of two it is 9 times the standard
    deviation on each side, of three 2.5 times, of five 1.2 times.
    """
    if len(values) < 2:
        return None
    if len(set(values)) == 1:
        return values[0], values[0]
    from scipy.stats import ttest_1samp  # takes a second to import, and few commands come here

    found = ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return float(found.low), float(found.high)


def seeds_difference(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """Welch's t interval of the difference of two means over seeds; None with fewer than two."""
    if min(len(first), len(second)) < 2:
        return None
    if len(set(first)) == len(set(second)) == 1:
        return first[0] - second[0], first[0] - second[0]
    from scipy.stats import ttest_ind

    found = ttest_ind(first, second, equal_var=False).confidence_interval(CONFIDENCE)
    return float(found.low), float(found.high)


def block_weights(
    names: Sequence[str], groups: Sequence[str], *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Floats | None:
    """How often each image is in each resample of a split.

    A bootstrap over blocks: each recording is cut into blocks of `BLOCK_LENGTH` consecutive frames
    (the last may be shorter), and as many blocks as there are are drawn with replacement; see
    Lahiri, "Resampling Methods for Dependent Data", 2003, section 2.6. Images that are each their
    own group are blocks of one. It tells of other frames of the same recordings, and not of other
    recordings.

    Args:
        names, groups: of the images; names order the frames of a group.

    Returns:
        (R, N) for R resamples of N images, the same for the same images and seed; None where there
        are fewer than `MIN_BLOCKS` blocks.
    """
    blocks = _blocks(names, groups)
    num_blocks = blocks.max(initial=-1) + 1
    if num_blocks < MIN_BLOCKS:
        return None
    drawn = np.random.default_rng(seed).multinomial(
        num_blocks, np.full(num_blocks, 1 / num_blocks), size=num_resamples
    )
    weights: Floats = drawn[:, blocks].astype(np.float64)
    return weights


def _blocks(names: Sequence[str], groups: Sequence[str]) -> npt.NDArray[np.intp]:
    """The number of each image's block."""
    blocks = np.empty(len(names), np.intp)
    number = 0
    for rows in rows_by_group(names, groups).values():
        for start in range(0, len(rows), BLOCK_LENGTH):
            blocks[rows[start : start + BLOCK_LENGTH]] = number
            number += 1
    return blocks


def class_iou(counts: Floats) -> Floats:
    """IoU of each class and resample, as `ConfusionMatrix.iou` has it.

    Args:
        counts: (..., C, 3): pixels of each class that were hit, that are of it, that were taken
            for it.

    Returns:
        (..., C), NaN for a class without a pixel.
    """
    hits, truth, predicted = counts[..., 0], counts[..., 1], counts[..., 2]
    union = truth + predicted - hits
    iou: Floats = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=truth > 0)
    return iou


def mean_iou(counts: Floats) -> Floats:
    """mIoU of each resample, as `ConfusionMatrix.mean_iou` has it.

    Args:
        counts: (..., C, 3), see `class_iou`.

    Returns:
        (...), NaN where no class has a pixel.
    """
    iou = class_iou(counts)
    num_classes = np.isfinite(iou).sum(axis=-1)
    total = np.nansum(iou, axis=-1)
    mean: Floats = np.divide(
        total, num_classes, out=np.full(total.shape, np.nan), where=num_classes > 0
    )
    return mean


_COUNTS = ("hits", "truth", "predicted")
COUNT_COLUMNS = ("image", "group", "class", *_COUNTS)
"""Of a table of pixels by image and class: those hit, of the class, and taken for it."""


def check_counts(table: pd.DataFrame, class_iou: Mapping[str, float]) -> None:
    """Raise a ValueError unless a table of `COUNT_COLUMNS` gives these scores of the whole split.

    Args:
        class_iou: by class, from 0 to 1, without those that the split lacks.
    """
    counts = table[[*_COUNTS]]
    if not all(pd.api.types.is_integer_dtype(dtype) for dtype in counts.dtypes):
        raise ValueError("its counts are no integers")
    if (counts < 0).any(axis=None) or (counts["hits"] > counts["truth"]).any():
        raise ValueError("its counts are none of pixels")
    totals = counts.astype(float).groupby(table["class"]).sum()
    totals = totals[totals["truth"] > 0]
    found = totals["hits"] / (totals["truth"] + totals["predicted"] - totals["hits"])
    known = pd.Series(class_iou, dtype=float).reindex(found.index)
    if len(known) < len(class_iou) or not np.allclose(found, known):
        raise ValueError("its counts do not give the scores of test.json")


def resampled_mean_iou(tables: Sequence[pd.DataFrame], *, seed: int) -> Floats | None:
    """mIoU over resamples of a split, the mean over networks that were trained with other seeds.

    Networks with equal images and seed have the same resamples, so differences are paired.

    Args:
        tables: of each network, a row an image and class with `COUNT_COLUMNS`, images and classes
            in the order of the split.
        seed: of the bootstrap.

    Returns:
        (1 + R,), the split itself first; None where it has too few blocks.
    """
    resampled = _resampled_counts(tables, seed)
    if resampled is None:
        return None
    found: Floats = np.mean([mean_iou(counts) for counts in resampled], axis=0)
    # A resample without a labelled pixel has no score.
    return found[np.isfinite(found)]


def class_intervals(tables: Sequence[pd.DataFrame], *, seed: int) -> dict[str, Interval]:
    """95 % of each class's IoU over the resamples of `resampled_mean_iou`.

    Returns:
        By class, without those that the split lacks; none where it has too few blocks.
    """
    resampled = _resampled_counts(tables, seed)
    if resampled is None:
        return {}
    found = np.mean([class_iou(counts) for counts in resampled], axis=0)
    intervals = {}
    for name, values in zip(tables[0]["class"].unique(), found.T, strict=True):
        if np.isfinite(values[0]):
            intervals[str(name)] = percentile_interval(values[1:][np.isfinite(values[1:])])
    return intervals


def _resampled_counts(tables: Sequence[pd.DataFrame], seed: int) -> list[Floats] | None:
    """Of each network (1 + R, C, 3), the split itself first; None where it has too few blocks."""
    first = tables[0].drop_duplicates("image")
    names, groups = first["image"].tolist(), first["group"].tolist()
    weights = block_weights(names, groups, seed=seed)
    if weights is None:
        return None
    weights = np.vstack([np.ones((1, len(names))), weights])
    return [
        (weights @ table[[*_COUNTS]].to_numpy(np.float64).reshape(len(names), -1)).reshape(
            len(weights), -1, len(_COUNTS)
        )
        for table in tables
    ]
