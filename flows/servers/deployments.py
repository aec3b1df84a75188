"""The deployments: every flow below with every profile.

`python -m flows.servers.deployments` serves them.

A run's parameters are those of its deployment with what the caller gives laid over, one whole
section of settings at a time. The deployment holds the complete values of its profile, so the
form in Prefect's UI shows what will happen; of a section that the caller gives in part, the flow
takes the rest from the profile.
"""

from __future__ import annotations

import importlib
import inspect
import socket
import sys
from pathlib import Path
from typing import Any

from prefect import Flow, serve
from prefect.deployments.runner import RunnerDeployment
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.annotations import freeze

from nas_core.base.errors import NasError
from nas_core.base.project import project_dir
from nas_core.loading import load_settings, profiles

# Flow name: where its function is. One line more serves one flow more.
FLOWS = {
    "nas-search": "flows.search.nas_search",
    "nas-verify": "flows.verify.nas_verify",
}
TAG = "nas"
SECONDS_BETWEEN_POLLS = 5  # Prefect's default of 10 leaves a new run waiting for long
RUNS_AT_A_TIME = 1  # two would fight for the same processor
# What people set on a deployment in Prefect's UI or command line, and is theirs.
SET_BY_HAND = {"schedules", "paused", "concurrency_limit", "concurrency_options"}


def deployment_names(root: Path) -> list[str]:
    """All deployments as `flow/profile`.

    Raises:
        SettingsError: a profile is not valid.
    """
    for profile in profiles(root):
        load_settings(profile, root=root)
    return [f"{flow}/{profile}" for flow in FLOWS for profile in profiles(root)]


def served_from(root: Path) -> str:
    """The mark on a deployment that says which folder of which machine serves it."""
    return f"Served from {root} on {socket.gethostname()}."


def profile_values(flow_name: str, profile: str) -> dict[str, Any]:
    """What a deployment of this flow and profile needs; also a step of prefect.yaml.

    Returns:
        parameters: the profile's name and its complete settings, as far as the flow takes them.
        project_dir: the folder with params.yaml.
    """
    root = project_dir()
    settings = load_settings(profile, root=root).model_dump(mode="json")
    accepted = inspect.signature(_flow(flow_name).fn).parameters
    values = {"profile": profile, **settings}
    return {
        "parameters": {key: value for key, value in values.items() if key in accepted},
        "project_dir": str(root),
    }


def build_deployments(root: Path) -> list[RunnerDeployment]:
    """One deployment a flow and profile, not yet registered anywhere."""
    deployments = []
    for flow_name in FLOWS:
        flow = _flow(flow_name)
        about = inspect.getdoc(flow.fn) or ""
        for profile in profiles(root):
            parameters = profile_values(flow_name, profile)["parameters"]
            deployment = RunnerDeployment.from_flow(
                flow,
                profile,
                # Another profile's name would not change the sections beside it.
                parameters={**parameters, "profile": freeze(profile)},
                description="\n\n".join([about.split("\n\n")[0], served_from(root)]),
                tags=[TAG],
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
            # Only what is set is written: this takes an earlier `prefect deploy` off its pool.
            deployment.work_pool_name = None
            deployment.work_queue_name = None
            # And what is not set stays as it is on a deployment that is registered already.
            deployment.model_fields_set.difference_update(SET_BY_HAND)
            deployments.append(deployment)
    return deployments


def main() -> None:
    """Register the deployments and carry out their runs until this process is ended."""
    try:
        deployments = build_deployments(project_dir())
    except NasError as error:
        sys.exit(str(error))
    serve(
        *deployments,
        limit=RUNS_AT_A_TIME,
        query_seconds=SECONDS_BETWEEN_POLLS,
        pause_on_shutdown=False,
    )


def _flow(name: str) -> Flow[..., Any]:
    module, _, function = FLOWS[name].rpartition(".")
    flow: Flow[..., Any] = getattr(importlib.import_module(module), function)
    return flow


if __name__ == "__main__":
    main()
