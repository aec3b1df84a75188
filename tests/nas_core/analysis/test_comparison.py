"""Comparisons of hand-made journals, with figures computed by hand."""

import json
import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nas_core.analysis.comparison import (
    SEEDS,
    STRATEGIES,
    WINDOW,
    ComparedSearch,
    bands,
    compare_searches,
    plan_searches,
)
from nas_core.base.errors import RunError, SettingsError
from nas_core.config import Settings
from nas_core.loading import validate_settings
from nas_core.search.journal import Record

# Status, reward and seconds of a record.
Row = tuple[str, float | None, float]


def records(rows: Sequence[Row]) -> list[Record]:
    numbers = count(1)
    return [
        Record(
            index=index,
            round=0,
            candidate=None if status == "repeat" else next(numbers),
            id=f"id{index}",
            genotype={},
            status=status,
            reward=reward,
            num_parameters=1,
            macs=1,
            seed=0,
            # In two parts, as of the two stages.
            seconds={} if status == "repeat" else {"a": seconds / 4, "b": seconds * 3 / 4},
            reason="it broke" if status == "failed" else "",
        )
        for index, (status, reward, seconds) in enumerate(rows)
    ]


def search(strategy: str, seed: int, rows: Sequence[Row]) -> ComparedSearch:
    return ComparedSearch(strategy, seed, f"camvid-{strategy}-{seed}", records(rows))


def finished(*rewards_and_seconds: tuple[float, float]) -> list[Row]:
    return [("finished", reward, seconds) for reward, seconds in rewards_and_seconds]


# Ends at 10, 30, 60, 100 and at 10, 20, 30, 40: all can spend 40 s, the first only 30 of them.
PPO = [
    search("ppo", 0, finished((0.25, 10), (0.5, 20), (0.375, 30), (0.75, 40))),
    search("ppo", 1, finished((0.5, 10), (0.25, 10), (0.125, 10), (0.375, 10))),
]
RANDOM = [
    search(
        "random",
        0,
        [
            ("failed", None, 10),
            ("stopped early", 0.125, 10),
            ("repeat", 0.125, 0),
            ("finished", 0.625, 20),
            ("repeat", 0.625, 0),
            ("repeat", None, 0),
            ("finished", 0.5, 40),
            ("repeat", 0.5, 0),  # after the last candidate that counts
            ("finished", 0.875, 40),
        ],
    )
]


def by_search(figures: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["strategy"], row["seed"]): row for row in figures["searches"]}


def test_a_row_a_candidate_with_time_best_and_mean() -> None:
    curves = compare_searches([*PPO, *RANDOM], 4).curves
    assert list(curves.columns) == [
        "strategy", "seed", "candidate", "training_seconds", "id", "reward", "best_reward",
        "mean_reward",
    ]  # fmt: skip
    first = curves[(curves["strategy"] == "ppo") & (curves["seed"] == 0)]
    assert first["candidate"].tolist() == [1, 2, 3, 4]
    assert first["training_seconds"].tolist() == [10, 30, 60, 100]
    assert first["reward"].tolist() == [0.25, 0.5, 0.375, 0.75]
    assert first["best_reward"].tolist() == [0.25, 0.5, 0.5, 0.75]
    assert first["mean_reward"].tolist() == pytest.approx([0.25, 0.375, 0.375, 0.46875])
    failed = curves[curves["strategy"] == "random"]
    assert failed["id"].tolist() == ["id0", "id1", "id3", "id6"]
    assert failed["training_seconds"].tolist() == [10, 20, 40, 80]
    assert failed["reward"].isna().tolist() == [True, False, False, False]
    assert failed["best_reward"].tolist()[1:] == [0.125, 0.625, 0.625]
    assert failed["mean_reward"].tolist()[1:] == pytest.approx([0.125, 0.375, 1.25 / 3])
    assert math.isnan(failed["best_reward"].iloc[0]) and math.isnan(failed["mean_reward"].iloc[0])


def test_the_running_mean_forgets_and_a_failure_is_no_part_of_it() -> None:
    rows = finished(*[(1.0, 1)] * 5, *[(0.5, 1)] * WINDOW)
    rows.insert(10, ("failed", None, 1))
    curve = compare_searches([search("ppo", 0, rows)], len(rows)).curves
    assert curve["mean_reward"].iloc[-1] == pytest.approx(0.5)
    assert curve["mean_reward"].iloc[-2] == pytest.approx(0.5 + 0.5 / WINDOW)
    assert curve["mean_reward"].iloc[10] == curve["mean_reward"].iloc[9]
    assert curve["best_reward"].iloc[-1] == 1.0


def test_equal_time_is_what_every_search_could_spend() -> None:
    figures = compare_searches([*PPO, *RANDOM], 4).figures.model_dump()
    assert figures["num_candidates"] == 4
    assert figures["budget_seconds"] == 40
    found = by_search(figures)
    assert {key: row["training_seconds"] for key, row in found.items()} == {
        ("ppo", 0): 100,
        ("ppo", 1): 40,
        ("random", 0): 80,
    }
    # The candidates that had ended after 40 s: of the slow search two, of the fast one all.
    assert found["ppo", 0]["equal_time"] == {
        "num_candidates": 2,
        "num_failed": 0,
        "num_stopped_early": 0,
        "num_repeats": 0,
        "best_reward": 0.5,
        "mean_reward": 0.375,
        "last_quarter_reward": 0.5,
    }
    assert found["ppo", 1]["equal_time"] == found["ppo", 1]["equal_candidates"]
    # Three candidates end at 40 s exactly, one of them without a reward.
    assert found["random", 0]["equal_time"] == {
        "num_candidates": 3,
        "num_failed": 1,
        "num_stopped_early": 1,
        "num_repeats": 1,
        "best_reward": 0.625,
        "mean_reward": 0.375,
        "last_quarter_reward": 0.625,
    }


def test_equal_numbers_leave_out_what_came_later() -> None:
    found = by_search(compare_searches([*PPO, *RANDOM], 4).figures.model_dump())
    assert found["ppo", 0]["equal_candidates"]["best_reward"] == 0.75
    assert found["ppo", 0]["equal_candidates"]["mean_reward"] == 0.46875
    random = found["random", 0]["equal_candidates"]
    assert random == {
        "num_candidates": 4,
        "num_failed": 1,
        "num_stopped_early": 1,
        "num_repeats": 3,
        "best_reward": 0.625,
        "mean_reward": pytest.approx(1.25 / 3),
        "last_quarter_reward": 0.5,
    }


def test_mean_and_spread_over_seeds() -> None:
    strategies = compare_searches([*PPO, *RANDOM], 4).figures.model_dump()["strategies"]
    assert list(strategies) == ["ppo", "random"]
    assert strategies["ppo"]["seeds"] == [0, 1]
    assert strategies["ppo"]["equal_candidates"] == {
        "best_reward": {"mean": 0.625, "min": 0.5, "max": 0.75},
        "mean_reward": {"mean": 0.390625, "min": 0.3125, "max": 0.46875},
        "last_quarter_reward": {"mean": 0.5625, "min": 0.375, "max": 0.75},
    }
    assert strategies["ppo"]["equal_time"] == {
        "best_reward": {"mean": 0.5, "min": 0.5, "max": 0.5},
        "mean_reward": {"mean": 0.34375, "min": 0.3125, "max": 0.375},
        "last_quarter_reward": {"mean": 0.4375, "min": 0.375, "max": 0.5},
    }
    assert strategies["random"]["equal_time"]["best_reward"] == dict.fromkeys(
        ("mean", "min", "max"), 0.625
    )


def test_the_last_quarter_is_rounded_up() -> None:
    rewards = [0.0, 0.0, 0.0, 0.25, 0.75]
    one = search("ppo", 0, finished(*[(reward, 1) for reward in rewards]))
    figures = compare_searches([one], 5).figures.model_dump()
    assert figures["searches"][0]["equal_candidates"]["last_quarter_reward"] == 0.5


def test_bands_hold_a_value_until_the_next_candidate_ends() -> None:
    curves = compare_searches(PPO, 4).curves
    table = bands(curves, "best_reward", [0, 9, 10, 29, 30, 40])
    assert table["training_seconds"].tolist() == [0, 9, 10, 29, 30, 40]
    assert table["mean"].isna().tolist() == [True, True, False, False, False, False]
    # Seed 0: 0.25 from 10 s, 0.5 from 30 s. Seed 1: 0.5 from 10 s.
    assert table["min"].tolist()[2:] == [0.25, 0.25, 0.5, 0.5]
    assert table["max"].tolist()[2:] == [0.5, 0.5, 0.5, 0.5]
    assert table["mean"].tolist()[2:] == [0.375, 0.375, 0.5, 0.5]


def test_bands_begin_when_every_seed_has_a_value() -> None:
    late = search("ppo", 1, [("failed", None, 15), *finished((0.5, 5), (0.5, 5), (0.5, 5))])
    curves = compare_searches([PPO[0], late, *RANDOM], 4).curves
    table = bands(curves, "best_reward", [10, 19, 20])
    ppo = table[table["strategy"] == "ppo"]
    assert ppo["min"].isna().tolist() == [True, True, False]
    assert ppo["max"].iloc[2] == 0.5
    random = table[table["strategy"] == "random"]
    assert random["mean"].tolist()[2] == random["min"].tolist()[2] == 0.125


def test_figures_without_a_reward_are_plain_json() -> None:
    failed = search("ppo", 0, [("failed", None, 1)] * 4)
    slow = search("random", 0, finished(*[(0.5, 10)] * 4))
    figures = compare_searches([failed, slow], 4).figures.model_dump()
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["strategies"]["ppo"]["equal_candidates"]["best_reward"] is None
    # No candidate of the slow search had ended after 4 s.
    within = by_search(figures)["random", 0]["equal_time"]
    assert within["num_candidates"] == 0 and within["best_reward"] is None
    assert within["last_quarter_reward"] is None


def test_a_search_that_is_not_complete_is_named() -> None:
    with pytest.raises(RunError, match="camvid-ppo-1 has 4 of 5 candidates"):
        compare_searches([PPO[1]], 5)


def test_curves_keep_their_types_on_disk(tmp_path: Path) -> None:
    curves = compare_searches([*PPO, *RANDOM], 4).curves
    curves.to_parquet(tmp_path / "curves.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "curves.parquet"), curves)


def test_all_strategies_and_two_seeds_unless_named() -> None:
    planned = plan_searches(Settings())
    assert [(one.seed, one.strategy) for one in planned] == [
        (seed, strategy) for seed in SEEDS for strategy in STRATEGIES if strategy != "pareto"
    ]
    for one in planned:
        search = one.settings.search
        assert one.settings.seed == one.seed
        assert search.strategy == ("ppo" if "ppo" in one.strategy else one.strategy)
        assert search.controller.autoregressive == (one.strategy != "ppo-independent")
    (only,) = plan_searches(Settings(), ["evolution"], [7])
    assert only.settings == validate_settings(
        {"seed": 7, "search": {"strategy": "evolution", "confirm": {"candidates": 0}}}, source=""
    )


@pytest.mark.parametrize(
    ("strategies", "seeds", "changes", "message"),
    [
        (["ppoo"], [], {}, r"strategy 'ppoo': there are ppo, ppo-independent, .*, random"),
        (["ppo", "random", "ppo"], [], {}, "strategy ppo is given twice"),
        ([], [1, 0, 1], {}, "seed 1 is given twice"),
        ([], [-1], {}, "seed = -1"),
        ([], [], {"num_candidates": 3, "batch_size": 1}, "num_candidates = 3: .* needs 4 or more"),
        ([], [], {"num_candidates": 8, "batch_size": 8}, "num_candidates = 8: .* needs 9 or more"),
        (
            [],
            [],
            {"controller": {"autoregressive": False}},
            "autoregressive.*leave one of them out",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    strategies: list[str], seeds: list[int], changes: dict[str, Any], message: str
) -> None:
    settings = validate_settings({"search": changes}, source="")
    with pytest.raises(SettingsError, match=message):
        plan_searches(settings, strategies, seeds)
