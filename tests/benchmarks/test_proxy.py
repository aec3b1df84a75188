import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.proxy import main

APP = typer.Typer()
APP.command()(main)
ROOT = Path(__file__).parents[2]
SMALL = (
    "dataset.synthetic.num_train=10",
    "dataset.synthetic.num_val=2",
    "dataset.synthetic.num_test=2",
    "dataset.synthetic.height=48",
    "dataset.synthetic.width=64",
    "search.proxy.height=48",
    "search.proxy.width=64",
    "search.proxy.epochs_a=1",
    "compute.precision=fp32",
)
OURS = {"device", "set_up_seconds", "candidates", "candidates_per_hour", "peak_gib"}
COMPARED = {
    "baseline_set_up_seconds",
    "baseline_candidates_per_hour",
    "baseline_peak_gib",
    "ratio",
    "cpu_ratio",
    "mean_reward_difference",
    "mean_absolute_reward_difference",
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))


def run(*arguments: str) -> str:
    """What the benchmark prints."""
    settings = [part for setting in SMALL for part in ("-S", setting)]
    result = CliRunner().invoke(APP, ["-p", "synthetic", *settings, *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_project_beside_the_baseline() -> None:
    figures = json.loads(run("--sampled", "1", "--json"))
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


def test_the_project_alone() -> None:
    arguments = ("--sampled", "0", "--no-baseline")
    figures = json.loads(run(*arguments, "--json"))
    assert set(figures) == OURS
    assert set(figures["candidates"][0]) == {"name", "seconds", "cpu_seconds", "reward"}
    assert "candidates an hour" in run(*arguments)
