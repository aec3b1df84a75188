import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.base.errors import SettingsError
from nas_core.base.project import project_dir
from nas_core.config import RewardSettings, Settings
from nas_core.loading import check_once, load_settings, profiles, setting_keys, validate_settings
from nas_core.search.rewards import CandidateCost, shaped_reward

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    return tmp_path


def test_a_profile_changes_only_what_it_names(project: Path) -> None:
    base, synthetic = load_settings(root=project), load_settings("synthetic", root=project)
    assert synthetic.dataset.kind == "synthetic" and base.dataset.kind == "camvid"
    assert synthetic.search.controller == base.search.controller


def test_overrides_win_over_sections_and_these_over_the_profile(project: Path) -> None:
    found = load_settings(
        "synthetic",
        ["search.num_candidates=5", "train.also=[arch1]", "seed=7"],
        {"search": {"num_candidates": 9, "batch_size": 2}},
        root=project,
    )
    assert (found.search.num_candidates, found.search.batch_size) == (5, 2)
    assert found.train.also == ("arch1",) and found.seed == 7
    assert found.search.proxy == load_settings("synthetic", root=project).search.proxy


def test_a_null_section_changes_nothing(project: Path) -> None:
    path = project / "profiles" / "empty.yaml"
    path.write_text("name: other\n")
    assert load_settings("empty", root=project) == load_settings(root=project).model_copy(
        update={"name": "other"}
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.num_candidate=8", "'search.num_candidate'; did you mean 'search.num_candidates'"),
        ("search.meta_val_fraction=0.2", "did you mean 'search.meta_val.fraction'"),
        (
            "search.meta_val.by=recordings",
            "search.meta_val.by = 'recordings': .*'frames' or 'group",
        ),
        ("search.meta_val.fraction=1", "search.meta_val.fraction = 1"),
        ("serch.num_candidates=8", "unknown key 'serch'; did you mean 'search'"),
        ("num_candidates=8", "did you mean 'search.num_candidates'"),
        ("zzz=1", "sections are dataset"),
        ("search.num_candidates=0", "search.num_candidates = 0: expected 1 or more"),
        ("search.num_candidates=many", "search.num_candidates = 'many': expected a whole number"),
        ("search.num_candidates=", "search.num_candidates is empty: expected a whole number"),
        (
            "search.strategy=ppoo",
            "search.strategy = 'ppoo': .*'ppo', 'reinforce', 'evolution', 'pareto' or 'random'",
        ),
        ("search=8", "search = 8"),
        ("search.proxy.min_scale=3", "search.proxy: min_scale .3.0. must not exceed max_scale"),
        (
            "search={num_candidates: 1, start_from: [a, b]}",
            "search: start_from names 2 networks, more than num_candidates .1.",
        ),
        ("search.latency.command=bench", "search.latency.command = 'bench': needs {model} behind"),
        ("search.latency.command='{model}'", "needs {model} behind the program"),
        ("search.latency.command=' '", "needs {model} behind the program"),
        (
            """search.latency.command="bench 'a {model}\"""",
            "cannot be split into words .No closing quotation",
        ),
        ("search.latency.threads=0", "search.latency.threads = 0"),
        ("search.latency.time_limit=.inf", "search.latency.time_limit = inf"),
        ("search.latency.time_limit=0", "search.latency.time_limit = 0"),
        ("train.batch_size=1", "train.batch_size = 1"),
        ("compute.device=tpu", "compute.device = 'tpu'"),
        ("name=../evil", "name = '../evil'"),
        ("seed=-1", "seed = -1"),
        ("seed", "expected key=value"),
        ("=3", "expected key=value"),
        ("seed=[", "not a YAML value"),
        ("seed=.nan", "seed = nan"),
        (r'dataset.path="a\0b"', r"dataset.path = 'a\\x00b': has a character that is no text"),
        (r'encoder.weights="a\ud800"', r"encoder.weights = 'a\\ud800': has a character"),
        ("dataset.path=caf\udce9", r"dataset.path"),
        (r'train.also=["a\0"]', r"train.also.0 = 'a\\x00': has a character"),
        (r'runner.ray.address="\e[31m"', r"runner.ray.address = .*: has a character"),
        ("runner.ray.address=ray://host:1", "runner.ray.address: expected HOST:PORT, auto"),
        (r'tracking.uri="a\0"', "tracking.uri: has a character that is no text"),
        ("dataset.path=~nobody/x", "dataset.path = '~nobody/x': only a shell replaces ~ and .NAME"),
        ("dataset.path=$HOME/x", "dataset.path = .*: only a shell replaces"),
        ("encoder.weights=${HOME}/x.pt", "encoder.weights = .*: only a shell replaces"),
        ("dataset.path=" + "a" * 256, "dataset.path = .*: too long: a path has 3000 bytes at most"),
        ("dataset.path=" + "a/" * 2000, "dataset.path = .*: too long"),
    ],
)
def test_a_bad_override_names_the_key(project: Path, override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        load_settings(overrides=[override], root=project)
    assert str(error.value).count("\n") == 0


def numbers(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every setting that is a number, and its schema."""

    def below(properties: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, value in properties.items():
            if "$ref" in value:
                section = schema["$defs"][value["$ref"].rpartition("/")[2]]
                yield from below(section["properties"], f"{prefix}{name}.")
            for kind in value.get("anyOf", [value]):
                if kind.get("type") in ("integer", "number"):
                    yield prefix + name, kind

    return below(schema["properties"], "")


NUMBERS = dict(numbers(Settings.model_json_schema()))
NO_NUMBERS = (True, False, "8", "1e-3", math.inf, -math.inf, math.nan, 1e308, 2**63, 10**400, [1])


def test_every_number_has_limits_which_the_deployments_know() -> None:
    assert len(NUMBERS) >= 60
    for key, schema in NUMBERS.items():
        least = {"minimum", "exclusiveMinimum"} & set(schema)
        most = {"maximum", "exclusiveMaximum"} & set(schema)
        assert least and most, key


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: ascii(value)[:12])
def test_no_setting_takes_what_is_no_number(value: object) -> None:
    for key in NUMBERS:
        values: dict[str, Any] = {}
        inner = values
        *sections, name = key.split(".")
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
        with pytest.raises(SettingsError, match=key) as error:
            validate_settings(values, "params.yaml")
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("number", ["1e-3", "1.0e-3", "0.001", ".1e-2", "+1E-3"])
def test_numbers_are_those_of_yaml_1_2(project: Path, number: str) -> None:
    found = load_settings(overrides=[f"train.learning_rate={number}"], root=project)
    assert found.train.learning_rate == 0.001


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_devices(project: Path, device: str) -> None:
    assert load_settings(overrides=[f"compute.device={device}"], root=project)


@pytest.mark.parametrize("cost", [1e-3, 1.0, 1e12])
@pytest.mark.parametrize("target", [1e-3, 1e15])
@pytest.mark.parametrize("exponent", [-2, -0.07, 0])
def test_every_reward_that_can_be_set_is_a_number(
    cost: float, target: float, exponent: float
) -> None:
    reward = RewardSettings(cost="latency_ms", target=target, exponent=exponent)
    assert math.isfinite(shaped_reward(1.0, CandidateCost(1, 1, cost), reward))


def test_all_problems_are_told_at_once(project: Path) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(overrides=["seed=-1", "train.epochs=0", "trian.top=1"], root=project)
    assert all(key in str(error.value) for key in ("seed", "train.epochs", "trian"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected keys and values"),
        (b"- 1\n- 2\n", "expected keys and values"),
        (b"seed: [1,\n", "params.yaml, line 2: not valid YAML"),
        (b"seed: 010\n", "line 1: .*010 is a number in base 8 or 60"),
        (b"seed: 1:30\n", "line 1: .*1:30 is a number in base 8 or 60"),
        (b"seed: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"seed: " + b"[" * 5000, "not valid YAML"),
    ],
)
def test_a_malformed_file_is_named(project: Path, content: bytes, message: str) -> None:
    (project / "params.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=message) as error:
        load_settings(root=project)
    assert "params.yaml" in str(error.value)


def test_an_unknown_profile_lists_those_there(project: Path) -> None:
    there = "'cityscape'; there are: camvid, cityscapes, synthetic"
    with pytest.raises(SettingsError, match=there):
        load_settings("cityscape", root=project)
    with pytest.raises(SettingsError, match="unknown profile"):
        load_settings("../params", root=project)


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["seed", "search", "proxy", "train", "x"]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_values_give_settings_or_a_settings_error(values: object) -> None:
    try:
        assert isinstance(validate_settings(values, "params.yaml"), Settings)
    except SettingsError as error:
        assert str(error).startswith("params.yaml: ")


def test_the_project_is_found_from_below_and_by_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    below = project / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.delenv("NAS_PROJECT_DIR", raising=False)
    monkeypatch.chdir(below)
    assert project_dir() == project
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert project_dir() == ROOT
    monkeypatch.setenv("NAS_PROJECT_DIR", str(project))
    assert project_dir() == project
    monkeypatch.setenv("NAS_PROJECT_DIR", str(elsewhere))
    with pytest.raises(SettingsError, match=r"has no params.yaml"):
        project_dir()


def test_a_project_whose_path_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "caf\udce9"
    root.mkdir()
    (root / "params.yaml").write_text("")
    for way in ("named", "found"):
        monkeypatch.setenv("NAS_PROJECT_DIR", str(root) if way == "named" else "")
        monkeypatch.chdir(root if way == "found" else tmp_path)
        with pytest.raises(SettingsError, match=r"caf\\udce9 has a character that is no text"):
            project_dir()


def test_profiles_are_listed() -> None:
    assert {"camvid", "synthetic"} <= set(profiles(ROOT))


def test_every_setting_is_described() -> None:
    schema = Settings.model_json_schema()
    properties = {**schema["properties"]}
    for model in schema["$defs"].values():
        properties |= model["properties"]
    missing = [key for key, value in properties.items() if not {"description", "$ref"} & set(value)]
    assert not missing
    assert "search.proxy.epochs_a" in setting_keys()


@pytest.mark.parametrize(("values", "message"), [([], "one or more"), ([0, 1, 0], "0 is given tw")])
def test_each_is_named_once(values: list[int], message: str) -> None:
    with pytest.raises(SettingsError, match=f"seed.*{message}"):
        check_once("seed", values)


def test_a_profile_cannot_be_called_camvid(project: Path) -> None:
    (project / "profiles" / "camvid.yaml").write_text("seed: 3\n")
    with pytest.raises(SettingsError, match=r"profiles/camvid\.yaml: .* another name"):
        load_settings(root=project)
