"""Two trainings at once, beside one after the other."""

import json

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.side_by_side import main

APP = typer.Typer()
APP.command()(main)
RECIPE = ("batch_size=2", "crop_height=32", "crop_width=32")


def test_both_ways_are_timed(small: list[str]) -> None:
    options = [*small, *(part for setting in RECIPE for part in ("-S", f"train.{setting}"))]
    result = CliRunner().invoke(APP, [*options, "--steps", "2", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    one, two = (figures[f"images_per_second_{way}"] for way in ("one_after_the_other", "at_once"))
    assert one > 0 and two > 0 and figures["ratio"] == pytest.approx(two / one)
