"""What a race between the best is worth, on made-up qualities."""

import numpy as np
import pytest

from benchmarks.confirmation import compare, main, measure, play
from nas_core.search.racing import Race

RACE = Race(candidates=8, max_seeds=4, top=3)
QUALITIES = np.linspace(0.0, 1.0, 1000)


def test_a_race_finds_what_luck_has_hidden() -> None:
    true = np.array([0.5, 0.51, 0.52, 0.3, 0.9, 0.1])
    first = np.array([0.6, 0.59, 0.58, 0.57, 0.56, 0.0])
    chosen, cost = play(first, true, np.zeros((5, 4)), Race(candidates=5, max_seeds=4, top=3))
    assert 4 in chosen and 3 not in chosen and 5 <= cost <= 20


def test_it_pays_with_noise_and_costs_without() -> None:
    noisy = compare(QUALITIES, 0.3, 100, 100, RACE)
    assert noisy["gain_interval"][0] > 0
    assert noisy["gain"] == pytest.approx(noisy["with_race"] - noisy["without"])
    exact = compare(QUALITIES, 1e-9, 100, 100, RACE)
    assert exact["gain_interval"][1] < 0 and exact["race_trainings"] == 8


def test_a_row_for_each_case() -> None:
    rows = measure(list(QUALITIES), 2, {32: RACE, 100: RACE})
    assert len(rows) == 8 and {row["drawn_from"] for row in rows} == {"all", "better half"}
    assert all(row["without"] <= 0 and row["with_race"] <= 0 for row in rows)


def test_without_a_race_there_is_nothing_to_measure() -> None:
    with pytest.raises(SystemExit, match=r"search\.confirm\.candidates = 2: 3 are chosen"):
        main(overrides=["search.confirm.candidates=2"])
