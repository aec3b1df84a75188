"""Intervals against figures that are known."""

import numpy as np
import pandas as pd
import pytest
import torch

from nas_core.analysis.uncertainty import (
    BLOCK_LENGTH,
    COUNT_COLUMNS,
    MIN_BLOCKS,
    block_weights,
    class_intervals,
    mean_iou,
    percentile_interval,
    resampled_mean_iou,
    seeds_difference,
    seeds_interval,
    spread,
)
from nas_core.training.metrics import ConfusionMatrix


def counts_of(accuracies: np.ndarray, groups: list[str] | None = None) -> pd.DataFrame:
    """Images of 1000 pixels, half of each of two classes, that are right by a share."""
    rows = []
    for index, accuracy in enumerate(accuracies):
        hits = round(500 * accuracy)
        name = f"frame{index}"
        group = groups[index] if groups else name
        rows += [(name, group, one, hits, 500, 500) for one in ("road", "sky")]
    return pd.DataFrame(rows, columns=[*COUNT_COLUMNS])


def test_the_interval_over_seeds_is_students() -> None:
    assert spread([0.60, 0.63]).model_dump() == pytest.approx(
        {"mean": 0.615, "min": 0.60, "max": 0.63}
    )
    # The 97.5 % quantiles of t with one and with two degrees of freedom are 12.706 and 4.303.
    assert seeds_interval([0.60, 0.63]) == pytest.approx(
        (0.615 - 0.19059, 0.615 + 0.19059), abs=1e-5
    )
    half = 4.3027 * 0.01 / 3**0.5
    assert seeds_interval([0.61, 0.62, 0.63]) == pytest.approx((0.62 - half, 0.62 + half), abs=1e-5)
    assert seeds_interval([0.6]) is None
    assert seeds_interval([0.5, 0.5]) == (0.5, 0.5)


def test_the_difference_over_seeds_is_welchs() -> None:
    # Equal numbers and variances: Student's with 4 degrees of freedom, 2.7764.
    found = seeds_difference([0.61, 0.62, 0.63], [0.51, 0.52, 0.53])
    half = 2.7764 * 0.01 * (2 / 3) ** 0.5
    assert found == pytest.approx((0.1 - half, 0.1 + half), abs=1e-5)
    assert seeds_difference([0.6], [0.5, 0.6]) is None


def test_blocks_are_of_consecutive_frames_of_one_recording() -> None:
    numbers = np.random.default_rng(0).permutation(60)
    names = [f"f{number}" for number in numbers]  # f9 comes before f10
    groups = ["a" if number < 35 else "b" for number in numbers]
    weights = block_weights([*names, *"uvwx"], [*groups, *"uvwx"], seed=0, num_resamples=300)
    assert weights is not None and weights.shape == (300, 64)
    block = {
        name: (group, (number - 35 * (group == "b")) // BLOCK_LENGTH)
        for name, group, number in zip(names, groups, numbers, strict=True)
    }
    assert len({*block.values()}) + 4 >= MIN_BLOCKS
    for first in range(60):
        for second in range(first):
            together = bool((weights[:, first] == weights[:, second]).all())
            assert together == (block[names[first]] == block[names[second]])
    assert weights.mean() == pytest.approx(1, abs=0.05)


def test_too_few_blocks_give_no_interval() -> None:
    names = [f"{number}" for number in range(9 * BLOCK_LENGTH)]
    assert block_weights(names, ["a"] * len(names), seed=0) is None
    assert resampled_mean_iou([counts_of(np.full(9, 0.5))], seed=0) is None
    assert block_weights(names[:10], names[:10], seed=0) is not None


def test_mean_iou_is_that_of_the_confusion_matrix() -> None:
    rng = np.random.default_rng(0)
    confusion = ConfusionMatrix(4, ignore_index=4)
    # Class 3 is predicted and never true, so it is no part of the mean.
    target = torch.from_numpy(rng.integers(0, 3, 500))
    confusion.update(torch.from_numpy(rng.integers(0, 4, 500)), target)
    matrix = confusion.matrix
    counts = torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)], dim=1)
    assert mean_iou(counts.double().numpy()) == pytest.approx(confusion.mean_iou)
    assert np.isnan(mean_iou(np.zeros((4, 3))))


def test_alike_neighbours_are_no_evidence_of_their_own() -> None:
    accuracies = np.random.default_rng(0).uniform(0.5, 1, 40).repeat(BLOCK_LENGTH)
    widths = []
    for groups in (None, ["one recording"] * len(accuracies)):
        found = resampled_mean_iou([counts_of(accuracies, groups)], seed=0)
        assert found is not None
        low, high = percentile_interval(found[1:])
        assert low < found[0] < high
        widths.append(high - low)
    assert widths[1] / widths[0] == pytest.approx(BLOCK_LENGTH**0.5, rel=0.15)


def test_the_interval_of_the_split_covers_the_truth() -> None:
    def covers(seed: int) -> bool:
        accuracies = np.random.default_rng(seed).uniform(0.4, 0.8, 60)
        found = resampled_mean_iou([counts_of(accuracies)], seed=0)
        assert found is not None
        low, high = percentile_interval(found[1:])
        return low <= 0.6 / 1.4 <= high  # hits / (500 + 500 - hits) for 0.6 of 500

    assert 88 <= sum(map(covers, range(100))) <= 100


def test_a_class_has_an_interval_of_its_own() -> None:
    rng = np.random.default_rng(0)
    steady, varying = counts_of(np.full(60, 0.6)), counts_of(rng.uniform(0.4, 0.8, 60))
    sky = steady["class"] == "sky"
    counts = pd.concat([steady[~sky], varying[sky]]).sort_index()
    absent = counts[sky].assign(**{"class": "sea", "hits": 0, "truth": 0, "predicted": 0})
    counts = pd.concat([counts, absent]).sort_values(["image", "class"], kind="stable")
    found = class_intervals([counts], seed=0)
    assert list(found) == ["road", "sky"]
    assert found["road"] == pytest.approx((0.6 / 1.4, 0.6 / 1.4))
    whole = counts[counts["class"] == "sky"][["hits", "truth"]].sum()
    low, high = found["sky"]
    assert low < whole["hits"] / (2 * whole["truth"] - whole["hits"]) < high
    assert class_intervals([counts_of(np.full(9, 0.5))], seed=0) == {}


def test_networks_have_the_same_resamples() -> None:
    easy = np.random.default_rng(0).uniform(0.3, 0.9, 60)
    one, other = (resampled_mean_iou([counts_of(easy + by)], seed=3) for by in (0.0, 0.05))
    assert one is not None and other is not None
    single, paired = percentile_interval(one[1:]), percentile_interval(other[1:] - one[1:])
    assert single[1] - single[0] > 5 * (paired[1] - paired[0]) and paired[0] > 0
    both = resampled_mean_iou([counts_of(easy), counts_of(easy + 0.05)], seed=3)
    assert both == pytest.approx((one + other) / 2)
