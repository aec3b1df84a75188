from __future__ import annotations

import numpy as np
import pytest

from nas_core.analysis.reliability import reliability


def rewards(num: int, runs: int, between: float, within: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means = rng.normal(0.5, between, num)
    noisy: np.ndarray = means[:, None] + rng.normal(0, within, (num, runs))
    return noisy


def test_known_variances_are_found() -> None:
    found = reliability(rewards(4000, 4, 0.03, 0.01).tolist(), seed=0, num_resamples=20)
    assert found.sd_within == pytest.approx(0.01, rel=0.03)
    assert found.sd_between == pytest.approx(0.03, rel=0.03)
    assert found.reliability == pytest.approx(0.9, abs=0.01)
    assert found.upper_half.num_networks == 2000
    # Of the better half of a normal distribution, the sd is sqrt(1 - 2 / pi) of the whole's.
    assert found.upper_half.sd_between == pytest.approx(0.03 * (1 - 2 / np.pi) ** 0.5, rel=0.1)


def test_the_interval_covers_the_truth() -> None:
    intervals = [
        reliability(
            rewards(12, 4, 0.02, 0.02, seed).tolist(), seed=0, num_resamples=200
        ).reliability_interval
        for seed in range(100)
    ]
    assert 80 <= sum(low <= 0.5 <= high for low, high in intervals) <= 100


def test_runs_that_agree_and_runs_of_noise() -> None:
    same = np.repeat(np.arange(6.0)[:, None], 3, axis=1)
    found = reliability(same.tolist(), seed=0)
    assert (found.reliability, found.sd_within) == (1.0, 0.0)
    assert found.kendall_tau == pytest.approx(1.0)
    noise = reliability(rewards(500, 3, 0.0, 1.0).tolist(), seed=0, num_resamples=20)
    assert noise.reliability < 0.1
    assert noise.kendall_tau == pytest.approx(0, abs=0.1)


def test_rewards_that_are_all_equal_rank_nothing() -> None:
    found = reliability([[0.5, 0.5]] * 4, seed=0)
    assert found.reliability == 0.0 and found.kendall_tau is None


@pytest.mark.parametrize("shape", [(3, 4), (4, 1), (4,)])
def test_too_few_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="four networks and two runs at least"):
        reliability(np.zeros(shape).tolist(), seed=0)
