"""Means, their errors, and the order that they give."""

from __future__ import annotations

import math

import pytest

from nas_core.search.ranking import ranking
from tests.nas_core.search.test_journal import make_record
from tests.nas_core.search.test_racing import candidates, confirmations


def test_without_confirmations_the_order_is_that_of_the_rewards() -> None:
    found = ranking(candidates(), [])
    assert [one.record.index for one in found] == [1, 2, 5, 4, 0, 3]
    assert [one.reward for one in found] == [0.9, 0.6, 0.6, 0.5, 0.4, None]
    assert all(one.reward_error is None and not one.is_confirmed for one in found)


def test_confirmed_ones_are_first_by_their_means() -> None:
    records = candidates()
    further = confirmations(records[2].id, 0.5) + confirmations(records[4].id, 0.64, None, 0.66)
    first, second, *others = ranking(records, further)
    assert [first.record.index, second.record.index] == [4, 2]
    assert first.reward == pytest.approx(0.6) and second.reward == pytest.approx(0.55)
    assert [one.record.index for one in others] == [1, 5, 0, 3]
    assert (first.num_failed_runs, second.num_failed_runs) == (1, 0)
    # Squares of the deviations: 0.01 + 0.0016 + 0.0036 of the one, 2 x 0.0025 of the other.
    pooled = math.sqrt((0.0152 + 0.005) / 3)
    assert first.reward_error == pytest.approx(pooled / math.sqrt(3))
    assert second.reward_error == pytest.approx(pooled / math.sqrt(2))


def test_all_scores_are_means() -> None:
    record = make_record(0, scores=(0.1, 0.4), metrics={"mean_iou": 0.3})
    (further,) = confirmations(record.id, 0.6)
    further = further.model_copy(update={"scores": (0.2, 0.6), "metrics": {"mean_iou": 0.5}})
    (one,) = ranking([record], [further])
    assert one.quality == pytest.approx(0.5)
    assert one.metric("mean_iou") == pytest.approx(0.4)
    assert one.metric("mean_accuracy") is None


def test_one_whose_further_trainings_all_failed_is_not_confirmed() -> None:
    records = candidates()
    (first, *_) = ranking(records, confirmations(records[2].id, None))
    assert first.record.index == 1 and not first.is_confirmed
