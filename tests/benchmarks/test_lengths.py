import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import lengths
from nas_core.base.paths import prepared_folder
from nas_core.data.preparing import prepare
from nas_core.loading import load_settings

APP = typer.Typer()
APP.command()(lengths.main)


def test_both_rules_are_trained_and_what_is_there_is_kept(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(num_train: int, num_meta_train: int) -> dict[str, Any]:
        assert (num_train, num_meta_train) == (6, 5)
        return {"proxy": {"epochs_a": 2}, "train": {"epochs": 2}}

    monkeypatch.setattr(lengths, "lengths", short)
    options = ["-S", "train.epochs=1", "-S", "search.proxy.epochs_b=0", "--networks", "4"]
    options += ["-S", "search.proxy.agg_size=8"]
    command = [*small, *options, "--images", "6", "--json"]
    done = CliRunner().invoke(APP, command)
    assert done.exit_code == 0, done.output
    equal_epochs, equal_steps = json.loads(done.stdout)
    assert (equal_epochs["rule"], equal_epochs["epochs"], equal_epochs["images"]) == (
        "epochs",
        1,
        6,
    )
    assert (equal_steps["rule"], equal_steps["epochs"]) == ("steps", 2)
    assert equal_steps["proxy"] != equal_epochs["proxy"]
    for outcome in tmp_path.glob("artifacts/lengths/*/outcome.json"):
        assert not (outcome.parent / "checkpoint.pt").exists()
        outcome.write_text(outcome.read_text().replace('"seconds": ', '"seconds": 7000'))
    again = json.loads(CliRunner().invoke(APP, command).stdout)
    assert all(row["seconds"] > 7000 for row in again)


def test_a_subset_is_drawn_by_its_seed_and_has_the_lengths_of_its_size(
    small: list[str], tmp_path: Path
) -> None:
    overrides = [option for option in small if "=" in option]
    settings = load_settings("synthetic", overrides, root=tmp_path)
    data = prepare(settings.dataset, tmp_path, prepared_folder(tmp_path, settings))
    assert lengths.subset(data, 10, 0) is data
    parts = [lengths.subset(data, 6, seed) for seed in (0, 0, 1)]
    names = [part.split("train").names for part in parts]
    assert names[0] == names[1] != names[2]
    assert parts[0].content_hash == parts[1].content_hash != parts[2].content_hash
    assert lengths.by_rule(settings, "epochs", parts[0]) is settings
    assert lengths.by_rule(settings, "steps", parts[0]).train.epochs == 1350


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--networks", "-4"], "--networks -4: give 4 or more"),
        (["--images", "6", "--images", "6"], "--images 6 is given twice"),
        (["--seed", "2147483648"], "--seed"),
    ],
)
def test_what_is_given_twice_or_is_no_number(
    small: list[str], options: list[str], said: str
) -> None:
    result = CliRunner().invoke(APP, [*small, *options])
    assert result.exit_code != 0
    assert said in result.output + str(result.exception)


def test_a_subset_of_tiles_has_whole_images(small: list[str], tmp_path: Path) -> None:
    overrides = [option for option in small if "=" in option]
    overrides.append("dataset.tile={size: 32, overlap: 8}")
    settings = load_settings("synthetic", overrides, root=tmp_path)
    data = prepare(settings.dataset, tmp_path, prepared_folder(tmp_path, settings))
    names = {name.rsplit("_", 2)[0] for name in data.split("train").names}
    assert len(names) == 10 and len(data.split("train")) == 60
    part = lengths.subset(data, 4, 0).split("train")
    assert len(part) == 4 * 6 and len({name.rsplit("_", 2)[0] for name in part.names}) == 4
    assert lengths.subset(data, 10, 0) is data


def test_one_rule_alone_is_a_learning_curve(small: list[str]) -> None:
    options = ["-S", "train.epochs=1", "--networks", "0", "--rule", "epochs"]
    done = CliRunner().invoke(APP, [*small, *options, "--images", "6", "--images", "10", "--json"])
    assert done.exit_code == 0, done.output
    assert [(row["images"], row["rule"]) for row in json.loads(done.stdout)] == [
        (6, "epochs"),
        (10, "epochs"),
    ]
