"""The memory of an image of Cityscapes' size, with a training on crops that are small."""

import json
import subprocess
import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from benchmarks.memory import main

ROOT = Path(__file__).parents[2]
APP = typer.Typer()
APP.command()(main)


def test_an_image_of_cityscapes_is_trained_on_and_scored_within_memory(small: list[str]) -> None:
    crops = ("train.batch_size=2", "train.crop_height=64", "train.crop_width=128")
    options = [*small, *(part for setting in crops for part in ("-S", setting))]
    # In a process of its own: the peak of one that this process starts begins at that of this one.
    command = [sys.executable, "-m", "benchmarks.memory", *options, "--json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    training, evaluation = json.loads(result.stdout)
    assert training["work"] == "training, 2 crops of 128x64"
    assert evaluation["work"] == "evaluation, 1 image of 2048x1024"
    # 240 bytes a pixel, see nas_core/models/labelling.py, and the process itself: never 8 images.
    assert 0.7 < evaluation["peak_gib"] < 2
    assert evaluation["peak_gib"] <= training["peak_gib"] * 1.1 < 2.5


def test_an_unknown_architecture(small: list[str]) -> None:
    result = CliRunner().invoke(APP, [*small, "--architecture", "arch9"])
    assert result.exit_code == 1 and "names are arch0, arch1, camvid0" in str(result.exception)
