"""params.yaml, the profiles and dvc.yaml say the same as the settings."""

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas_core.code import SEARCH, TRAINING
from nas_core.config import Settings, load_settings, profiles, setting_keys
from tasks.search_log import flatten

ROOT = Path(__file__).parents[2]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# Modules that decide where and how things are written, and none of a stage's results.
PLUMBING = {
    "addresses", "code", "config", "errors", "files", "locks", "paths", "workers", "yaml_files",
}  # fmt: skip
# Where the work of each stage begins in nas_core.
ENTRIES = {
    "prepare": ["data.prepared"],
    "search": [
        "training.proxy",
        "search.loop",
        "analysis.leaderboard",
        "analysis.pareto",
        "models.cost",
    ],
    "train": ["training.lifecycle", "architectures"],
    "evaluate": ["training.lifecycle"],
}


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
    assert not [key for key in covered if key.startswith(("train.", "tracking.", "dataset."))]
    assert "nas_core/training/full.py" not in STAGES["search"]["deps"]


@pytest.mark.parametrize(("stage", "code"), [("search", SEARCH), ("train", TRAINING)])
def test_stages_depend_on_the_code_that_their_folders_are_named_by(
    stage: str, code: tuple[str, ...]
) -> None:
    assert {f"nas_core/{part}" for part in code} <= set(STAGES[stage]["deps"])


@pytest.mark.parametrize("stage", STAGES)
def test_stages_depend_on_the_code_that_decides_their_results(stage: str) -> None:
    deps = [ROOT / dep for dep in STAGES[stage]["deps"] if "$" not in dep]
    assert [dep for dep in deps if not dep.exists()] == []
    needed = _imported_by(ENTRIES[stage]) - {_file(module) for module in PLUMBING}
    if stage != "prepare":
        # The dataset was prepared by these; the stage depends on what they made.
        needed -= _imported_by(["data.prepared"])
    missing = {p for p in needed if not any(p == d or d in p.parents for d in deps)}
    assert missing == set()


def _imported_by(modules: list[str]) -> set[Path]:
    """The files of modules of nas_core and of all that they import from it."""
    seen: set[Path] = set()
    left = [_file(module) for module in modules]
    while left:
        path = left.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nas_core"):
                module = str(node.module).removeprefix("nas_core").removeprefix(".")
                names = [".".join(filter(None, [module, alias.name])) for alias in node.names]
                left += [_file(name) for name in {module, *names} if name and _file(name).exists()]
    return seen


def _file(module: str) -> Path:
    return ROOT / "nas_core" / Path(*module.split(".")).with_suffix(".py")
