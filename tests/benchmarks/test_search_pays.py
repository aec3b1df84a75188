"""The best of searches with several strategies, trained fully and compared with random search's."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.search_pays import differences, main
from tests.benchmarks.conftest import set_options

APP = typer.Typer()
APP.command()(main)
SHORT = (
    "train.top=1",
    "train.epochs=1",
    "train.batch_size=4",
    "train.crop_height=32",
    "train.crop_width=48",
)


@pytest.fixture
def options(small_search: list[str]) -> list[str]:
    return [*small_search, *set_options(*SHORT)]


def test_the_best_of_each_search_are_trained_and_compared(
    options: list[str], tmp_path: Path
) -> None:
    wanted = ["--strategy", "evolution", "--seed", "0", "--seed", "1", "--train-seed", "3"]
    held_out = ["-S", "dataset.held_out=[train_0003]"]
    result = CliRunner().invoke(APP, [*options, *held_out, *wanted, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = found["networks"]
    assert [(row["strategy"], row["seed"]) for row in rows] == [
        ("evolution", 0),
        ("random", 0),
        ("evolution", 1),
        ("random", 1),
    ]
    assert all(len(row["val"]) == len(row["held_out"]) == 1 for row in rows)
    assert {row["score"] for row in found["differences"]} == {"val", "held_out"}
    trainings = list(tmp_path.glob("artifacts/trainings/*/training.json"))
    assert len(trainings) == len({row["id"] for row in rows})
    # What is trained is not trained again, and another training seed adds to it.
    times = {path: path.stat().st_mtime_ns for path in trainings}
    result = CliRunner().invoke(APP, [*options, *held_out, *wanted, "--train-seed", "4"])
    assert result.exit_code == 0, result.output
    assert times == {path: path.stat().st_mtime_ns for path in trainings}
    assert len(list(tmp_path.glob("artifacts/trainings/*/training.json"))) == 2 * len(trainings)
    assert "above random" in result.stdout
    assert not (tmp_path / "artifacts" / "test_looks.jsonl").exists()


def test_figures_of_known_scores() -> None:
    def row(strategy: str, *held_out: float) -> dict[str, Any]:
        return {"strategy": strategy, "val": [0.5], "held_out": held_out}

    rows = [
        *(row("ppo", value - 0.01, value + 0.01) for value in (0.6, 0.62, 0.64)),
        *(row("random", value) for value in (0.5, 0.51, 0.55)),
    ]
    val, held_out = differences(rows)
    assert (val["score"], val["difference"], val["p"]) == ("val", 0.0, 1.0)
    assert held_out["difference"] == pytest.approx(0.62 - fmean([0.5, 0.51, 0.55]))
    low, high = held_out["interval"]
    assert 0 < low < held_out["difference"] < high
    # 2 of the 20 arrangements are as far apart.
    assert held_out["p"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "dataset.held_out: name one or more recordings"),
        (["dataset.held_out=[train_0003]", "train.splits=train+val"], "train.splits"),
        (["dataset.held_out=[train_0003]", "train.top=0"], "train.top"),
    ],
)
def test_what_cannot_be_compared(options: list[str], settings: list[str], said: str) -> None:
    result = CliRunner().invoke(APP, [*options, *set_options(*settings)])
    assert result.exit_code == 1
    assert said in str(result.exception)


def test_a_strategy_that_is_given_twice_is_refused(options: list[str]) -> None:
    twice = ["-S", "dataset.held_out=[train_0003]", *["--strategy", "evolution"] * 2]
    result = CliRunner().invoke(APP, [*options, *twice])
    assert result.exit_code == 1
    assert "--strategy evolution is given twice" in str(result.exception)
