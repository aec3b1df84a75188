import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.reliability import main

APP = typer.Typer()
APP.command()(main)
OPTIONS = ("-S", "search.proxy.epochs_b=0", "-S", "search.proxy.agg_size=8", "--networks", "4")


def test_runs_are_kept_and_their_figures_are_those_of_each_score(
    small: list[str], tmp_path: Path
) -> None:
    options = [*small, *OPTIONS]
    result = CliRunner().invoke(APP, [*options, "--seeds", "2", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["reward"]["num_networks"] == 4
    assert found["val_reward"]["upper_half"]["num_networks"] == 2
    assert len({(run["id"], run["seed"]) for run in found["runs"]}) == 8
    assert len({run["reward"] for run in found["runs"]}) > 4
    assert found["reward"] != found["val_reward"]
    # More seeds add to what is there.
    files = list(tmp_path.glob("artifacts/reliability/*/*.json"))
    files[0].write_text(files[0].read_text().replace('"cpu_seconds": ', '"cpu_seconds": 9000'))
    result = CliRunner().invoke(APP, [*options, "--seeds", "3"])
    assert result.exit_code == 0, result.output
    assert "val, upper half" in result.stdout and "3 runs of each" in result.stdout
    assert len(list(tmp_path.glob("artifacts/reliability/*/*.json"))) == 12
    assert float(result.stdout.split("3 runs of each, ")[1].split()[0]) > 700


@pytest.mark.parametrize("option", [("--networks", "3"), ("--seeds", "1")])
def test_too_few_are_refused(small: list[str], option: tuple[str, str]) -> None:
    result = CliRunner().invoke(APP, [*small, *option])
    assert result.exit_code == 2 and option[0] in result.output
