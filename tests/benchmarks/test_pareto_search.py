import json

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.pareto_search import WAYS, main, shares

APP = typer.Typer()
APP.command()(main)


def test_each_way_is_searched_and_its_front_measured(small_search: list[str]) -> None:
    options = [*small_search, "-S", "search.pareto.population_size=2"]
    result = CliRunner().invoke(APP, [*options, "--seed", "3", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["way"] for row in rows] == [*WAYS]
    assert all(0 < row["hypervolume"] <= 1 and [*row["by_seed"]] == ["3"] for row in rows)
    # They are there now; a table of them is shown.
    again = CliRunner().invoke(APP, [*options, "--seed", "3"])
    assert again.exit_code == 0 and "candidate 4/4" not in again.stderr
    assert "evolution, cost in the reward" in again.stdout and "seed 3" in again.stdout


def test_shares_of_known_points() -> None:
    found = {
        ("a", 0): [(1.0, 0.4), (3.0, 0.6)],
        ("a", 1): [(1.0, 0.4)],
        ("b", 0): [(2.0, 0.4), (5.0, 0.2)],
    }
    # Up to 5 parameters and a quality of 0.2: all dominate 4 * 0.2 + 2 * 0.2.
    a, b = shares(found)
    assert (a["way"], b["way"]) == ("a", "b")
    assert a["by_seed"] == pytest.approx({0: 1.0, 1: 0.8 / 1.2})
    assert b["hypervolume"] == pytest.approx(0.6 / 1.2)
