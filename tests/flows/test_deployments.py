from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import ValidationError, validate

from flows.search import nas_search
from flows.servers import deployments
from flows.servers.prefect_server import api
from flows.verify import nas_verify
from nas_core.base.errors import SettingsError
from nas_core.base.project import project_dir
from nas_core.loading import load_settings, profiles

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(ROOT))


def definition(schema: dict[str, Any], name: str) -> dict[str, Any]:
    reference = schema["properties"][name]["$ref"].rpartition("/")[2]
    found: dict[str, Any] = schema["definitions"][reference]
    return found


def built(flow: str, profile: str) -> RunnerDeployment:
    (found,) = (
        deployment
        for deployment in deployments.build_deployments(ROOT)
        if (deployment.flow_name, deployment.name) == (flow, profile)
    )
    return found


def test_every_flow_is_served_with_every_profile() -> None:
    found = deployments.build_deployments(project_dir())
    names = [f"{deployment.flow_name}/{deployment.name}" for deployment in found]
    assert names == deployments.deployment_names(ROOT)
    assert {"nas-search/camvid", "nas-verify/camvid", "nas-verify/cityscapes"} <= set(names)
    assert {deployment.entrypoint for deployment in found} == set(deployments.FLOWS.values())


@pytest.mark.parametrize("profile", ["camvid", "synthetic"])
def test_a_deployment_holds_the_complete_settings_of_its_profile(profile: str) -> None:
    values = deployments.profile_values("nas-search", profile)
    settings = load_settings(profile, root=ROOT).model_dump(mode="json")
    assert values["parameters"] == {"profile": profile, **settings}
    assert values["project_dir"] == str(ROOT)


def test_the_form_describes_each_setting_and_its_range() -> None:
    schema = built("nas-search", "camvid")._parameter_openapi_schema.model_dump()
    search = definition(schema, "search")
    assert search["description"] == "The search for architectures."
    candidates = search["properties"]["num_candidates"]
    assert candidates["description"].startswith("Candidates to train.")
    assert candidates["minimum"] == 1
    assert search["additionalProperties"] is False
    # Its sections are those of one profile, so another profile's name would mislead.
    assert schema["properties"]["profile"]["enum"] == ["camvid"]


@pytest.mark.parametrize("profile", ["camvid", "synthetic"])
@pytest.mark.parametrize(
    ("flow", "about"),
    [
        (
            "nas-search",
            "Search for compact segmentation networks, train the best fully and test them.",
        ),
        (
            "nas-verify",
            "Train architectures fully, score them, and compare that with what the paper claims.",
        ),
    ],
)
def test_the_form_describes_every_parameter(flow: str, about: str, profile: str) -> None:
    deployment = built(flow, profile)
    schema = deployment._parameter_openapi_schema.model_dump()
    for name, value in schema["properties"].items():
        described = value if "$ref" not in value else definition(schema, name)
        assert described["description"].endswith("."), name
    # Without the parameters: the form has them.
    assert deployment.description == f"{about}\n\n{deployments.served_from(ROOT)}"


def test_a_verification_takes_lists_and_no_settings_of_a_search() -> None:
    parameters = built("nas-verify", "cityscapes").parameters or {}
    assert parameters["train"]["epochs"] == 200 and "search" not in parameters
    schema = parameter_schema(nas_verify.fn).model_dump()
    given = {"architectures": ["arch0", "mine.json"], "seeds": [0, 1]}
    validate(given, schema, raise_on_error=True)
    assert nas_verify.validate_parameters(given)["seeds"] == (0, 1)
    with pytest.raises(ValidationError, match=r"-1 is less than"):
        validate({"seeds": [-1]}, schema, raise_on_error=True)


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


@pytest.mark.parametrize("slug", [None, "nightly"])
def test_what_is_set_by_hand_survives_being_registered_again(
    prefect_server: str, slug: str | None
) -> None:
    deployment = built("nas-verify", "synthetic")
    deployment.name = f"by-hand-{slug}"
    with temporary_settings({PREFECT_API_URL: prefect_server}), api(prefect_server) as client:
        id_ = deployment.apply()
        nightly = CronSchedule(cron="0 3 * * *", timezone="Europe/Berlin")
        (made,) = client.create_deployment_schedules(id_, [(nightly, True)])
        client.update_deployment_schedule(id_, made.id, active=False, slug=slug)
        client.update_deployment(id_, DeploymentUpdate(paused=True, concurrency_limit=2))
        before = client.read_deployment(id_)
        assert deployment.apply() == id_
        after = client.read_deployment(id_)
    assert before.paused and before.global_concurrency_limit
    assert [(one.id, one.active) for one in before.schedules] == [(made.id, False)]
    for name in ("schedules", "paused", "global_concurrency_limit"):
        assert getattr(after, name) == getattr(before, name), name


@pytest.mark.parametrize("flow", deployments.FLOWS)
def test_prefect_yaml_hands_on_each_setting_that_the_flow_takes(flow: str) -> None:
    described = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    entrypoint = deployments.FLOWS[flow]
    entries = [one for one in described["deployments"] if one["entrypoint"] == entrypoint]
    assert {entry["name"] for entry in entries} == set(profiles(ROOT))
    settings = deployments.profile_values(flow, "camvid")["parameters"]
    assert {"profile", "name", "train"} <= set(settings)
    for entry in entries:
        (step,) = entry["build"]
        options = step["flows.servers.deployments.profile_values"]
        assert options == {"id": "values", "flow_name": flow, "profile": entry["name"]}
        assert entry["parameters"] == {
            key: f"{{{{ values.parameters.{key} }}}}" for key in settings
        }


def test_prefect_yaml_has_no_other_flow() -> None:
    described = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    known = {one["entrypoint"] for one in described["deployments"]}
    assert known == set(deployments.FLOWS.values())
