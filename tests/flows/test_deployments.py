import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import ValidationError, validate

from flows import deployments
from flows.search import nas_search
from nas_core.config import load_settings, profiles, project_dir
from nas_core.errors import SettingsError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(ROOT))


def definition(schema: dict[str, Any], name: str) -> dict[str, Any]:
    reference = schema["properties"][name]["$ref"].rpartition("/")[2]
    found: dict[str, Any] = schema["definitions"][reference]
    return found


def test_every_flow_is_served_with_every_profile() -> None:
    built = deployments.build_deployments(project_dir())
    names = [f"{deployment.flow_name}/{deployment.name}" for deployment in built]
    assert names == deployments.deployment_names(ROOT)
    assert {"nas-search/camvid", "nas-search/synthetic"} <= set(names)
    assert {deployment.entrypoint for deployment in built} == set(deployments.FLOWS.values())


@pytest.mark.parametrize("profile", ["camvid", "synthetic"])
def test_a_deployment_holds_the_complete_settings_of_its_profile(profile: str) -> None:
    values = deployments.profile_values("nas-search", profile)
    settings = load_settings(profile, root=ROOT).model_dump(mode="json")
    assert values["parameters"] == {"profile": profile, **settings}
    assert values["project_dir"] == str(ROOT)


def test_the_form_describes_each_setting_and_its_range() -> None:
    (camvid,) = (d for d in deployments.build_deployments(ROOT) if d.name == "camvid")
    schema = camvid._parameter_openapi_schema.model_dump()
    search = definition(schema, "search")
    assert search["description"] == "The search for architectures."
    candidates = search["properties"]["num_candidates"]
    assert candidates["description"].startswith("Candidates to train.")
    assert candidates["minimum"] == 1
    assert search["additionalProperties"] is False
    # Its sections are those of one profile, so another profile's name would mislead.
    assert schema["properties"]["profile"]["enum"] == ["camvid"]


@pytest.mark.parametrize("profile", ["camvid", "synthetic"])
def test_the_form_describes_every_parameter(profile: str) -> None:
    (built,) = (d for d in deployments.build_deployments(ROOT) if d.name == profile)
    schema = built._parameter_openapi_schema.model_dump()
    for name, value in schema["properties"].items():
        about = value if "$ref" not in value else definition(schema, name)
        assert about["description"].endswith("."), name
    # Without the parameters: the form has them.
    about = "Search for compact segmentation networks, train the best fully and test them."
    assert built.description == f"{about}\n\n{deployments.served_from(ROOT)}"


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_refused_before_a_run_starts(seed: int) -> None:
    schema = parameter_schema(nas_search.fn).model_dump()
    validate({"seed": 0}, schema, raise_on_error=True)
    validate({"seed": 2**31 - 1}, schema, raise_on_error=True)
    with pytest.raises(ValidationError, match=rf"'seed'.* {seed} is (less|greater) than"):
        validate({"seed": seed}, schema, raise_on_error=True)
    with pytest.raises(ParameterTypeError, match=r"seed: Input should be (less|greater) than"):
        nas_search.validate_parameters({"seed": seed})


def test_a_profile_that_is_not_valid_is_named_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text("serch: {}")
    with pytest.raises(SettingsError, match=r"profiles/mine\.yaml.*serch"):
        deployments.deployment_names(tmp_path)


def test_prefect_yaml_hands_on_each_parameter_of_the_flow() -> None:
    described = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    settings = set(inspect.signature(nas_search.fn).parameters) - {"stage"}
    assert {entry["name"] for entry in described["deployments"]} == set(profiles(ROOT))
    for entry in described["deployments"]:
        (step,) = entry["build"]
        options = step["flows.deployments.profile_values"]
        assert options == {"id": "values", "flow_name": "nas-search", "profile": entry["name"]}
        assert entry["parameters"] == {
            key: f"{{{{ values.parameters.{key} }}}}" for key in settings
        }
        assert entry["entrypoint"] == deployments.FLOWS["nas-search"]
