"""Costs, limits and the reward that includes cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nas_core.analysis.fronts import pareto_front, pareto_fronts
from nas_core.base.errors import RunError
from nas_core.config import (
    ConstraintSettings,
    LatencySettings,
    NetworkSettings,
    RewardSettings,
    SearchSettings,
)
from nas_core.search.costs import MOST_TOO_SLOW, Costs, needs_latency
from nas_core.search.latencies import Latencies, MeasuredBy, read_latencies
from nas_core.search.rewards import CandidateCost, shaped_reward
from nas_core.search.rounds import Rounds
from nas_core.space.architectures import ARCHITECTURES

ARCH0, ARCH1 = ARCHITECTURES["arch0"], ARCHITECTURES["arch1"]
SIZE = (64, 96)
# Each a process, and quicker than ONNX Runtime's.
SAYS_7 = LatencySettings(command="sh -c 'echo 7.5' {model}")


def costs_at(path: Path, latency: LatencySettings = SAYS_7, size: tuple[int, int] = SIZE) -> Costs:
    return Costs(path, NetworkSettings(), 11, size, latency, path.parent)


def write_known(path: Path, milliseconds: dict[str, float]) -> None:
    by = MeasuredBy(command=SAYS_7.command, threads=1, height=SIZE[0], width=SIZE[1])
    Latencies(measured_by=by, milliseconds=milliseconds).write(path)


def test_costs_are_those_of_the_whole_network(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    cost = costs_at(path).of(ARCH0, latency=False)
    assert cost.num_parameters == 274_443
    assert 0 < cost.macs < 1e9
    assert cost.latency_ms is None and not path.exists()


def test_a_latency_is_measured_once_and_kept(tmp_path: Path) -> None:
    path, own = tmp_path / "latency.json", LatencySettings()
    costs = costs_at(path, own)
    measured = costs.of(ARCH0, latency=True)
    assert measured.latency_ms is not None and 0 < measured.latency_ms < 10_000
    assert costs.of(ARCH0, latency=True) == measured
    assert costs_at(path, own).of(ARCH0, latency=True) == measured
    assert read_latencies(path) == {ARCH0.id: measured.latency_ms}


@pytest.mark.parametrize(
    "changes",
    [{"command": "sh -c 'echo 8.5' {model}"}, {"threads": 2}, {"size": (64, 128)}],
    ids=str,
)
def test_what_something_else_measured_is_not_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "latency.json"
    write_known(path, {ARCH0.id: 3.0, "b": 4.0})
    size = changes.pop("size", SIZE)
    assert costs_at(path).latency(ARCH0) == 3.0
    expected = 8.5 if "command" in changes else 7.5
    costs = costs_at(path, SAYS_7.model_copy(update=changes), size)
    assert costs.latency(ARCH0) == expected
    assert read_latencies(path) == {ARCH0.id: expected}


def test_latency_is_left_out_where_no_limit_needs_it(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    limits = ConstraintSettings(max_parameters=300_000, max_macs=10**12)
    assert costs_at(path).refusal(ARCH0, limits) is None
    assert not path.exists()


@pytest.mark.parametrize(
    ("limits", "refused_by"),
    [
        ({"max_parameters": 274_443}, None),
        ({"max_parameters": 274_442}, "max_parameters"),
        ({"max_parameters": None, "max_macs": 1000}, "max_macs"),
        ({"max_latency_ms": 1e-6}, "max_latency_ms"),
        ({"max_parameters": 1, "max_macs": 1, "max_latency_ms": 1e-6}, "max_parameters"),
        ({"max_parameters": None}, None),
    ],
)
def test_the_first_limit_that_is_exceeded_is_named(
    tmp_path: Path, limits: dict[str, float | None], refused_by: str | None
) -> None:
    settings = ConstraintSettings.model_validate(limits)
    assert costs_at(tmp_path / "latency.json").refusal(ARCH0, settings) == refused_by


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"max_parameters": 1}, r"max_parameters = 1: the encoder alone, .* has 55,488 parameters"),
        ({"max_macs": 1}, r"max_macs = 1: the encoder alone, .* multiply-accumulates for .* image"),
        ({"max_latency_ms": 1e-6}, r"max_latency_ms = 1e-06: the encoder alone, .* takes 7.5 ms"),
    ],
)
def test_a_limit_that_nothing_meets_is_refused_at_once(
    tmp_path: Path, limits: dict[str, float], problem: str
) -> None:
    costs = costs_at(tmp_path / "latency.json")
    with pytest.raises(RunError, match=rf"search\.constraints\.{problem}; raise it"):
        costs.check_limits(ConstraintSettings.model_validate(limits))
    with pytest.raises(RunError, match=problem):
        Rounds(
            tmp_path,
            SearchSettings(constraints=ConstraintSettings.model_validate(limits)),
            0,
            costs,
        ).propose(0)


def test_a_limit_that_the_encoder_meets_is_not_refused(tmp_path: Path) -> None:
    limits = ConstraintSettings(max_parameters=55_488, max_macs=10**9, max_latency_ms=60_000)
    costs_at(tmp_path / "latency.json").check_limits(limits)


def test_a_limit_that_a_network_has_met_stands_on_a_busy_machine(tmp_path: Path) -> None:
    write_known(tmp_path / "latency.json", {"a": 1e-7})
    costs_at(tmp_path / "latency.json").check_limits(ConstraintSettings(max_latency_ms=1e-6))


def test_not_every_network_is_measured_where_all_are_too_slow(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    limits = ConstraintSettings(max_latency_ms=1e-6)
    write_known(path, {str(number): 7.5 for number in range(MOST_TOO_SLOW - 2)})
    assert costs_at(path).refusal(ARCH0, limits) == "max_latency_ms"
    with pytest.raises(RunError, match=rf"1e-06: of {MOST_TOO_SLOW} networks the fastest takes"):
        costs_at(path).refusal(ARCH1, limits)
    write_known(path, {"met": 1e-7, **{str(n): 7.5 for n in range(MOST_TOO_SLOW)}})
    assert costs_at(path).refusal(ARCH1, limits) == "max_latency_ms"


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 7.5}', "\xff"])
def test_a_damaged_file_of_latencies(tmp_path: Path, content: str) -> None:
    path = tmp_path / "latency.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError, match=r"latency\.json: .*: delete it to measure them again"):
        costs_at(path)


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, False),
        ({"constraints": {"max_macs": 10**9}, "reward": {"cost": "macs"}}, False),
        ({"constraints": {"max_latency_ms": 30.0}}, True),
        ({"reward": {"cost": "latency_ms"}}, True),
    ],
)
def test_a_limit_or_the_reward_needs_latency(changes: dict[str, Any], needed: bool) -> None:
    assert needs_latency(SearchSettings(**changes)) == needed


def test_reward_with_cost() -> None:
    cost = CandidateCost(num_parameters=150_000, macs=2_000_000_000, latency_ms=40.0)
    assert shaped_reward(0.6, cost, RewardSettings()) == 0.6
    by_parameters = RewardSettings(cost="parameters", target=300_000, exponent=-0.07)
    # MnasNet: half the cost is worth 5 % more quality.
    assert shaped_reward(0.6, cost, by_parameters) == pytest.approx(0.6 * 1.0497, rel=1e-3)
    by_macs = RewardSettings(cost="macs", target=1e9, exponent=-1)
    assert shaped_reward(0.6, cost, by_macs) == pytest.approx(0.3)
    by_latency = RewardSettings(cost="latency_ms", target=40, exponent=-2)
    assert shaped_reward(0.6, cost, by_latency) == pytest.approx(0.6)


def table(rows: list[tuple[str, float | None, float | None]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["id", "quality", "macs"])
    return frame.assign(num_parameters=frame["macs"], latency_ms=frame["macs"])


def test_pareto_front_by_hand() -> None:
    rows = [("a", 0.5, 10), ("b", 0.6, 20), ("c", 0.55, 20), ("d", 0.6, 30), ("e", 0.7, 40)]
    rows += [("f", 0.5, 10), ("g", 0.4, 11)]
    front = pareto_front(table(rows), "macs")
    assert list(front["id"]) == ["a", "b", "e"]


def test_front_leaves_out_what_has_no_quality_or_cost() -> None:
    front = pareto_front(table([("a", None, 1), ("b", 0.5, None), ("c", 0.4, 5)]), "macs")
    assert list(front["id"]) == ["c"]
    assert pareto_front(table([]), "macs").empty


def test_no_candidate_beats_one_of_the_front_and_each_other_is_beaten() -> None:
    rng = np.random.default_rng(0)
    rows = [(str(i), float(q), float(c)) for i, (q, c) in enumerate(rng.integers(0, 9, (60, 2)))]
    candidates = table(rows)
    front = pareto_front(candidates, "macs")

    def is_beaten(row: dict[str, float]) -> bool:
        as_good = (candidates["quality"] >= row["quality"]) & (candidates["macs"] <= row["macs"])
        better = (candidates["quality"] > row["quality"]) | (candidates["macs"] < row["macs"])
        return bool((as_good & better).any())

    points = {(row["quality"], row["macs"]) for row in front.to_dict("records")}
    for row in candidates.to_dict("records"):
        assert is_beaten(row) == ((row["quality"], row["macs"]) not in points)


def test_fronts_of_all_costs() -> None:
    fronts = pareto_fronts(table([("a", 0.5, 10), ("b", 0.6, 20)]))
    assert list(fronts["cost"]) == ["num_parameters"] * 2 + ["macs"] * 2 + ["latency_ms"] * 2
    assert list(fronts["id"]) == ["a", "b"] * 3
