import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.scaling import main

pytestmark = pytest.mark.slow

APP = typer.Typer()
APP.command()(main)
ROOT = Path(__file__).parents[2]


def test_one_and_two_workers_of_both_kinds(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = CliRunner().invoke(APP, [*small, "--pairs", "1", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert set(figures) == {"device", "num_candidates", "process", "ray"}
    assert figures["num_candidates"] == 2 and "1 threads" in figures["device"]
    for kind in ("process", "ray"):
        one, two, ratio = (
            figures[kind][key]
            for key in ("candidates_per_hour_1", "candidates_per_hour_2", "ratio")
        )
        assert one > 0 and two > 0 and ratio == two / one
