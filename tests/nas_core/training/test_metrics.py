from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from nas_core.base.errors import DataError, NasError
from nas_core.training.metrics import ConfusionMatrix

VOID = 11


def matrix_of(predictions: torch.Tensor, target: torch.Tensor, num_classes: int) -> ConfusionMatrix:
    confusion = ConfusionMatrix(num_classes, ignore_index=VOID)
    confusion.update(predictions, target)
    return confusion


def random_labels(seed: int, num_classes: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions that are right about half the time, and targets with some void."""
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 17, 13)
    target = torch.randint(0, num_classes, shape, generator=generator)
    guess = torch.randint(0, num_classes, shape, generator=generator)
    right = torch.rand(shape, generator=generator) < 0.5
    void = torch.rand(shape, generator=generator) < 0.1
    return torch.where(right, target, guess), torch.where(void, VOID, target)


def test_by_hand() -> None:
    target = torch.tensor([[[0, 0, 0, 1], [1, 1, 1, VOID]]])
    predictions = torch.tensor([[[0, 0, 1, 1], [1, 1, 0, 0]]])
    confusion = matrix_of(predictions, target, 3)
    assert confusion.matrix.tolist() == [[2, 1, 0], [1, 3, 0], [0, 0, 0]]
    assert confusion.iou[:2].tolist() == pytest.approx([2 / 4, 3 / 5])
    assert math.isnan(confusion.iou[2])
    assert confusion.mean_iou == pytest.approx((2 / 4 + 3 / 5) / 2)
    assert confusion.frequency_weighted_iou == pytest.approx(3 / 7 * 2 / 4 + 4 / 7 * 3 / 5)
    assert confusion.mean_accuracy == pytest.approx((2 / 3 + 3 / 4) / 2)
    product = confusion.mean_iou * confusion.frequency_weighted_iou * confusion.mean_accuracy
    assert confusion.reward == pytest.approx(product ** (1 / 3))
    assert list(confusion.metrics()) == [
        "mean_iou",
        "frequency_weighted_iou",
        "mean_accuracy",
        "reward",
    ]
    assert confusion.metrics()["reward"] == confusion.reward


def test_a_class_only_predicted_is_left_out_of_the_means_but_costs_the_true_one() -> None:
    confusion = matrix_of(torch.tensor([[[0, 2]]]), torch.tensor([[[0, 0]]]), 3)
    assert confusion.mean_iou == pytest.approx(0.5)
    assert confusion.mean_accuracy == pytest.approx(0.5)
    assert confusion.frequency_weighted_iou == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_torchmetrics(seed: int) -> None:
    predictions, target = random_labels(seed)
    confusion = matrix_of(predictions, target, 11)
    expected = {"num_classes": 11, "ignore_index": VOID, "validate_args": False}
    for average, score in (
        ("macro", confusion.mean_iou),
        ("weighted", confusion.frequency_weighted_iou),
    ):
        theirs = MulticlassJaccardIndex(average=average, **expected)(predictions, target)
        assert score == pytest.approx(float(theirs), abs=1e-6)
    theirs = MulticlassAccuracy(average="macro", **expected)(predictions, target)
    assert confusion.mean_accuracy == pytest.approx(float(theirs), abs=1e-6)
    theirs = MulticlassJaccardIndex(average="none", **expected)(predictions, target)
    torch.testing.assert_close(confusion.iou.float(), theirs)


labels = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, 3, VOID])), min_size=1, max_size=60
)


@given(labels)
def test_scores_lie_between_0_and_1_and_nothing_labelled_is_an_error(
    pairs: list[tuple[int, int]],
) -> None:
    predictions, target = torch.tensor(pairs).T[:, None, :].unbind()
    confusion = matrix_of(predictions[None], target[None], 4)
    if (target == VOID).all():
        with pytest.raises(DataError, match="no labelled pixel"):
            confusion.metrics()
        return
    assert all(0 <= score <= 1 for score in confusion.metrics().values())
    assert confusion.matrix.sum() == (target != VOID).sum()


@given(labels, st.integers(1, 59))
@settings(max_examples=50)
def test_batches_add_up(pairs: list[tuple[int, int]], cut: int) -> None:
    predictions, target = torch.tensor(pairs).T[:, None, None, :].unbind()
    whole = matrix_of(predictions, target, 4)
    parts = ConfusionMatrix(4, ignore_index=VOID)
    for part in (slice(None, cut), slice(cut, None)):
        parts.update(predictions[..., part], target[..., part])
    assert torch.equal(whole.matrix, parts.matrix)


@given(labels)
@settings(max_examples=50)
def test_a_perfect_prediction_scores_1(pairs: list[tuple[int, int]]) -> None:
    target = torch.tensor(pairs)[:, 0][None, None]
    scores = matrix_of(target, target, 4).metrics().values()
    assert list(scores) == pytest.approx([1.0] * 4)


def test_masks_of_any_integer_type() -> None:
    predictions, target = random_labels(0)
    expected = matrix_of(predictions, target, 11).matrix
    assert torch.equal(matrix_of(predictions.byte(), target.byte(), 11).matrix, expected)
    assert torch.equal(matrix_of(predictions, target.byte(), 11).matrix, expected)


def test_nothing_labelled_is_an_error_for_every_score() -> None:
    confusion = ConfusionMatrix(11)
    for name in ("iou", "mean_iou", "frequency_weighted_iou", "mean_accuracy", "reward"):
        with pytest.raises(NasError, match="no labelled pixel"):
            getattr(confusion, name)


def test_labels_that_are_no_class_are_refused_and_not_counted() -> None:
    zeros, stray = torch.zeros(1, 1, 2, dtype=torch.long), torch.tensor([[[0, 7]]])
    confusion = ConfusionMatrix(4, ignore_index=VOID)
    with pytest.raises(ValueError, match=r"target: labels 0\.\.7, expected 0\.\.3"):
        confusion.update(zeros, stray)
    with pytest.raises(ValueError, match=r"predictions: labels 0\.\.7"):
        confusion.update(stray, zeros)
    with pytest.raises(ValueError, match=r"\(1, 1, 2\)"):
        confusion.update(zeros, zeros[..., :1])
    assert confusion.matrix.sum() == 0
