import json
import time

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.proxy import main

APP = typer.Typer()
APP.command()(main)
OURS = {"workers", "device", "set_up_seconds", "candidates", "candidates_per_hour", "peak_gib"}
COMPARED = {
    "baseline_set_up_seconds",
    "baseline_candidates_per_hour",
    "baseline_peak_gib",
    "ratio",
    "cpu_ratio",
    "mean_reward_difference",
    "mean_absolute_reward_difference",
}


def run(small: list[str], *arguments: str) -> str:
    """What the benchmark prints."""
    result = CliRunner().invoke(APP, [*small, *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_project_beside_the_baseline(small: list[str]) -> None:
    figures = json.loads(run(small, "--sampled", "1", "--json"))
    assert set(figures) == OURS | COMPARED
    assert [row["name"] for row in figures["candidates"]][:2] == ["arch0", "arch1"]
    assert len(figures["candidates"]) == 3
    keys = {"seconds", "cpu_seconds", "reward"}
    for row in figures["candidates"]:
        assert set(row) == {"name"} | keys | {f"baseline_{key}" for key in keys}
        assert 0 < row["reward"] < 1 and 0 < row["baseline_reward"] < 1
    ours, theirs = (
        sum(row[key] for row in figures["candidates"]) for key in ("seconds", "baseline_seconds")
    )
    assert figures["candidates_per_hour"] == pytest.approx(3 * 3600 / ours)
    assert figures["ratio"] == pytest.approx(theirs / ours)


def test_workers_share_the_time_of_what_they_train_together(small: list[str]) -> None:
    one_thread = ("--sampled", "0", "-S", "compute.threads=1", "--json")
    started = time.perf_counter()
    figures = json.loads(run(small, *one_thread, "-S", "runner.workers=2"))
    passed = time.perf_counter() - started
    assert figures["workers"] == 2
    # Each architecture is trained in both at once and by the baseline: no second counts twice.
    spent = sum(2 * row["seconds"] + row["baseline_seconds"] for row in figures["candidates"])
    assert spent < passed
    alone = json.loads(run(small, *one_thread, "--no-baseline"))
    assert set(alone) == OURS
    assert set(alone["candidates"][0]) == {"name", "seconds", "cpu_seconds", "reward"}
    rewards, expected = (
        [row["reward"] for row in found["candidates"]] for found in (figures, alone)
    )
    assert rewards == expected
    assert figures["peak_gib"] > 1.5 * alone["peak_gib"]


def test_the_project_alone_in_words(small: list[str]) -> None:
    assert "candidates an hour" in run(small, "--sampled", "0", "--no-baseline")
