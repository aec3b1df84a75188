from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas_core.analysis.stopping import (
    Replay,
    Scores,
    complete_candidates,
    replay,
    running_mean,
    seconds_until,
    successive_halving,
)
from nas_core.base.errors import RunError
from nas_core.config import EarlyStoppingSettings, ProxySettings, SearchSettings
from nas_core.search.identity import candidate_thresholds
from nas_core.search.journal import Record
from nas_core.space.decisions import sample

# 6, 9 and 12 seconds until the three validations.
SECONDS = {"stage_a": 5.0, "stage_b": 4.0, "validation": 3.0}
GENOTYPE = sample(np.random.default_rng(0))
SCORES = [(0.6, 0.7, 0.8), (0.4, 0.5, 0.9), (0.6, 0.6, 0.6), (0.55, 0.6, 0.7)]
FINAL = [scores[-1] for scores in SCORES]


def record(scores: Sequence[float], index: int = 0, **changes: Any) -> Record:
    values = {
        "index": index,
        "round": 0,
        "candidate": index + 1,
        "id": GENOTYPE.id,
        "genotype": GENOTYPE.to_dict(),
        "status": "finished",
        "reward": scores[-1] if scores else None,
        "scores": tuple(scores),
        "num_parameters": 1,
        "macs": 1,
        "seed": 0,
        "seconds": SECONDS,
    }
    return Record.model_validate(values | changes)


def records() -> list[Record]:
    return [record(scores, index) for index, scores in enumerate(SCORES)]


class Fixed:
    """A rule whose thresholds are always the same."""

    def __init__(self, *thresholds: float) -> None:
        self.thresholds = list(thresholds)
        self.seen: list[list[tuple[float, ...]]] = []

    def __call__(
        self, earlier: Scores, num_validations: int, rng: np.random.Generator
    ) -> list[float]:
        self.seen.append([tuple(scores) for scores in earlier])
        return self.thresholds


def test_seconds_are_shared_over_epochs_and_validations() -> None:
    assert seconds_until(SECONDS, 3) == [6, 9, 12]
    assert seconds_until({"stage_a": 5.0, "validation": 1.0}, 1) == [6]


def test_what_stops_saves_its_rest_and_is_seen_as_far_as_it_came() -> None:
    rule = Fixed(0.5, 0.0, 0.0)
    outcome = replay(records(), rule, seed=0)
    assert outcome.saved == pytest.approx(6 / 48)
    assert outcome.lost == pytest.approx(1 / 3)  # the best of the three best
    assert outcome.kendall_tau == pytest.approx(kendalltau([0.8, 0.4, 0.6, 0.7], FINAL)[0])
    assert rule.seen[-1] == [SCORES[0], (0.4,), SCORES[2]]


def test_stopping_at_the_end_saves_and_loses_nothing() -> None:
    assert replay(records(), Fixed(0.0, 0.0, 2.0), seed=0) == Replay(0.0, 0.0, 1.0)


def test_equal_rewards_have_no_rank() -> None:
    equal = [record((0.1, 0.2, 0.5), index) for index in range(4)]
    assert replay(equal, Fixed(0.0, 0.0, 0.0), seed=0).kendall_tau is None


def test_the_top_are_a_tenth_and_at_least_three() -> None:
    many = [record((i / 100, i / 100), i) for i in range(50)]
    assert replay(many, Fixed(0.465, 0.0), seed=0).lost == pytest.approx(2 / 5)
    assert replay(many[:20], Fixed(0.175, 0.0), seed=0).lost == pytest.approx(1 / 3)


def test_a_reward_with_a_cost_shrinks_with_its_score() -> None:
    shaped = [
        record(scores, index, reward=scores[-1] * factor)
        for index, (scores, factor) in enumerate(zip(SCORES, (0.5, 1, 2, 1), strict=True))
    ]
    outcome = replay(shaped, Fixed(0.5, 0.0, 0.0), seed=0)
    expected = kendalltau([0.4, 0.4, 1.2, 0.7], [0.4, 0.9, 1.2, 0.7])[0]
    assert outcome.kendall_tau == pytest.approx(expected)


def test_halving_lets_the_upper_share_go_on() -> None:
    earlier = [[0.1], [0.2, 0.5], [0.3, 0.6], [0.4]]
    rng = np.random.default_rng(0)
    assert successive_halving(1 / 2)(earlier, 3, rng) == pytest.approx([0.25, 0.55, 0])
    assert successive_halving(2 / 3)(earlier, 1, rng) == pytest.approx([0.2])
    assert successive_halving(1 / 2)([], 2, rng) == [0, 0]


@pytest.mark.parametrize("enabled", [True, False])
def test_in_its_own_order_a_search_stops_what_it_would_have_stopped(enabled: bool) -> None:
    rng = np.random.default_rng(2)
    full = [record(tuple(rng.uniform(0.3, 0.6, 3)), index) for index in range(40)]
    stopping = EarlyStoppingSettings(delta=0.7, decay=0.9)
    settings = SearchSettings(early_stopping=stopping, proxy=ProxySettings(epochs_b=2))
    live: list[Record] = []
    for candidate in full:
        thresholds = candidate_thresholds(settings, 5, len(live) + 1, live)
        num = next((k for k in range(2) if candidate.scores[k] < thresholds[k]), 2) + 1
        live.append(candidate.model_copy(update={"scores": candidate.scores[:num]}))
    spent = sum(3 + 3 * len(candidate.scores) for candidate in live)
    rule = running_mean(stopping.model_copy(update={"enabled": enabled}))
    outcome = replay(full, rule, seed=5)
    assert 0 < outcome.saved == pytest.approx(1 - spent / (12 * 40))


def test_failed_candidates_are_left_out() -> None:
    failed = record((), 4, status="failed", reason="the loss was not finite", seconds={})
    assert complete_candidates("s", [*records(), failed]) == records()


def test_a_search_that_stopped_early_is_refused() -> None:
    stopped = record((0.1,), 4, status="stopped early")
    with pytest.raises(RunError, match=r"s: 1 of 5 .*search\.early_stopping\.enabled=false"):
        complete_candidates("s", [*records(), stopped])


def test_too_few_candidates_are_refused() -> None:
    with pytest.raises(RunError, match="s has 3 scored candidates: 4 or more"):
        complete_candidates("s", records()[:3])
