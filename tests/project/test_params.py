"""params.yaml, the profiles and dvc.yaml say the same as the settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import dependence
from nas_core.base.code import PACKAGES, SEARCH, TRAINING, meanings
from nas_core.config import Settings
from nas_core.loading import load_settings, profiles, setting_keys
from tasks.search_log import flatten

ROOT = Path(__file__).parents[2]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_params_yaml_has_every_key_with_its_default() -> None:
    assert sorted(flatten(PARAMS)) == sorted(setting_keys())
    assert flatten(PARAMS) == flatten(Settings().model_dump(mode="json"))


@pytest.mark.parametrize("profile", profiles(ROOT))
def test_profiles_are_valid(profile: str) -> None:
    assert load_settings(profile, root=ROOT).name == profile


@pytest.mark.parametrize("stage", STAGES)
def test_params_of_stages_exist(stage: str) -> None:
    sections = {key.rpartition(".")[0] for key in setting_keys()} - {""}
    assert set(STAGES[stage].get("params", [])) <= {*setting_keys(), *sections}


def test_search_depends_on_all_that_binds_it_and_not_on_training() -> None:
    params = STAGES["search"]["params"]
    covered = {k for k in setting_keys() if any(f"{k}.".startswith(f"{p}.") for p in params)}
    search = {key for key in setting_keys() if key.startswith("search.")}
    assert search - covered == {"search.max_failures"}
    others = [key for key in covered if key.startswith(("train.", "tracking.", "dataset."))]
    # As many are told apart from the rest.
    assert others == ["train.top"]


@pytest.mark.parametrize("stage", dependence.STAGES)
def test_stages_depend_on_the_code_that_decides_their_results(stage: str) -> None:
    assert f"artifacts/code/{stage}.json" in STAGES[stage]["deps"]
    assert {f"artifacts/code/{stage}.json": {"cache": False}} in STAGES["code"]["outs"]
    assert not [dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")]


def test_the_stage_code_sees_all_code() -> None:
    assert set(STAGES) == {"code", *dependence.STAGES}
    assert set(STAGES["code"]["deps"]) == PACKAGES


@pytest.mark.parametrize(("stage", "entry"), [("search", SEARCH), ("train", TRAINING)])
def test_a_stage_runs_again_whenever_its_folders_would_be_others(stage: str, entry: str) -> None:
    assert meanings((entry,)).items() <= meanings(*dependence.STAGES[stage]).items()
    assert "nas_core.training.full" not in meanings(*dependence.STAGES["search"])
