import numpy as np
import pytest

from nas_core.config import EarlyStoppingSettings
from nas_core.training.early_stopping import stopping_thresholds


def _rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_nothing_stops_before_there_is_a_mean() -> None:
    assert stopping_thresholds([], 3, EarlyStoppingSettings(), _rng()) == [0.0, 0.0, 0.0]


def test_disabled_never_stops() -> None:
    settings = EarlyStoppingSettings(enabled=False)
    assert stopping_thresholds([[0.5, 0.6]], 2, settings, _rng()) == [0.0, 0.0]


def test_thresholds_are_a_share_of_the_mean_of_those_that_got_there() -> None:
    settings = EarlyStoppingSettings(delta=0.9, decay=0.5)
    earlier = [[0.2], [0.4, 0.5], [0.6, 0.7]]
    draws = _rng().uniform(0, 0.9 * 0.5**3, 2)
    expected = [0.4 * (1 - draws[0]), 0.6 * (1 - draws[1])]
    assert stopping_thresholds(earlier, 2, settings, _rng()) == pytest.approx(expected)


def test_thresholds_come_nearer_to_the_mean() -> None:
    settings = EarlyStoppingSettings(delta=0.9, decay=0.9)
    late = stopping_thresholds([[0.5]] * 200, 1, settings, _rng())[0]
    assert 0.4999 < late <= 0.5


def test_delta_zero_stops_all_below_the_mean() -> None:
    settings = EarlyStoppingSettings(delta=0.0)
    assert stopping_thresholds([[0.4], [0.6]], 1, settings, _rng()) == pytest.approx([0.5])
