"""The memory of an image of Cityscapes' size, with a training on crops that are small."""

import json

import typer
from typer.testing import CliRunner

from benchmarks.memory import main

APP = typer.Typer()
APP.command()(main)


def test_an_image_of_cityscapes_is_trained_on_and_scored_within_memory(small: list[str]) -> None:
    crops = ("train.batch_size=2", "train.crop_height=64", "train.crop_width=128")
    options = [*small, *(part for setting in crops for part in ("-S", setting))]
    result = CliRunner().invoke(APP, [*options, "--json"])
    assert result.exit_code == 0, result.output
    training, evaluation = json.loads(result.stdout)
    assert training["work"] == "training, 2 crops of 128x64"
    assert evaluation["work"] == "evaluation, 1 image of 2048x1024"
    # 240 bytes a pixel, see nas_core/labelling.py, and the process itself: never 8 images at once.
    assert 0.7 < evaluation["peak_gib"] < 2
    assert evaluation["peak_gib"] <= training["peak_gib"] * 1.1 < 2.5


def test_an_unknown_architecture(small: list[str]) -> None:
    result = CliRunner().invoke(APP, [*small, "--architecture", "arch9"])
    assert result.exit_code == 1 and "names are arch0, arch1, camvid0" in str(result.exception)
