"""Variants of the recipe are scored on val, or on a recording that was held out."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks.recipe import main, without
from nas_core.base.errors import SettingsError
from nas_core.base.project import project_dir
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.loading import load_settings

APP = typer.Typer()
APP.command()(main)
SHORT = ("epochs=1", "batch_size=4", "crop_height=32", "crop_width=48")


@pytest.fixture
def data(small: list[str]) -> PreparedData:
    root = project_dir()
    settings = load_settings("synthetic", small[3::2], root=root)
    return prepare(settings.dataset, root, root / "prepared")


def test_what_is_held_out_is_scored_and_not_trained_on(data: PreparedData) -> None:
    first = data.split("train").names[0]
    found = without(data, first)
    assert found.split("val").names == (first,)
    assert found.split("train").names == (*data.split("train").names[1:], *data.split("val").names)
    np.testing.assert_array_equal(found.split("val").images[0], data.split("train").images[0])
    np.testing.assert_array_equal(found.split("train").masks[-1], data.split("val").masks[-1])
    assert "test" not in found.splits
    assert found.data_hash != data.data_hash
    masks = np.stack([*found.split("train").masks])
    labelled = masks[masks != data.ignore_index]
    assert found.label_shares[2] == np.mean(labelled == 2)


@pytest.mark.parametrize(("name", "how_many"), [("nobody", "0 of 12"), ("", "12 of 12")])
def test_a_recording_that_is_none_or_all(data: PreparedData, name: str, how_many: str) -> None:
    with pytest.raises(SettingsError, match=f"--hold-out {name}: {how_many} names begin with that"):
        without(data, name)


def test_rows_of_variants(small: list[str]) -> None:
    recipe = [part for setting in SHORT for part in ("-S", f"train.{setting}")]
    held_out = ["--hold-out", "train_0003"]
    options = [*small, *recipe, "-S", "encoder.weights=none", *held_out, "--json"]
    variants = ["--variant", "recipe", "--variant", "more jitter"]
    result = CliRunner().invoke(APP, [*options, *variants])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["variant"] for row in rows] == ["recipe", "more jitter"]
    assert all(0 <= row["val_mean_iou"] <= 1 for row in rows)
    # What is trained is not trained again: its seconds are those of the first time.
    result = CliRunner().invoke(APP, [*options, "--variant", "more jitter"])
    assert json.loads(result.stdout) == rows[1:]


def test_an_unknown_variant(small: list[str]) -> None:
    result = CliRunner().invoke(APP, [*small, "--variant", "better"])
    assert result.exit_code == 1
    assert "--variant better: there are recipe, no class weighting" in str(result.exception)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--variant", "recipe", "--variant", "recipe"], "--variant recipe is given twice"),
        (["--seed", "1", "--seed", "1"], "--seed 1 is given twice"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_what_is_given_twice_or_is_no_seed(small: list[str], options: list[str], said: str) -> None:
    result = CliRunner().invoke(APP, [*small, *options])
    assert result.exit_code != 0
    assert said in result.output + str(result.exception)
