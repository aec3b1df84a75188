"""`nas up`, `nas down` and `nas run`: local servers, and what runs in them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from flows.cli import completion, tables
from flows.cli.flow_commands import Stage
from flows.cli.places import check_connections, check_places
from flows.cli.terminal import console
from nas_core.base.errors import SettingsError, shown
from nas_core.base.files import distinct
from nas_core.base.paths import results_folder
from nas_core.base.project import project_dir
from nas_core.loading import check_distinct, load_settings


def up(
    host: Annotated[
        str | None, typer.Option(help="Address that the servers listen on, else 127.0.0.1.")
    ] = None,
    prefect_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of Prefect, else 4200.")
    ] = None,
    mlflow_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the MLflow UI, else 5000.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="A further name by which the servers may be called, as that of a proxy before "
            "them; again for more.",
        ),
    ] = None,
) -> None:
    """Bring up local Prefect, the MLflow UI and the deployments, where they are not up yet."""
    check_places(project_dir())
    from flows.servers import services

    options = services.Options(host, prefect_port, mlflow_port, tuple(allow_host or ()))
    services.up(project_dir(), options, console)


def down() -> None:
    """End what `nas up` started."""
    check_connections()
    from flows.servers import services

    services.down(project_dir(), console)


def run(
    deployment: Annotated[
        str,
        typer.Argument(
            help="For example nas-search/synthetic.", autocompletion=completion.deployment_names
        ),
    ],
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A parameter, in JSON or plain text: seed=1, search='{\"num_candidates\": 8}'. "
            "What a section leaves out stays as in the profile.",
        ),
    ] = None,
) -> None:
    """Run a deployment through Prefect with a live view, and show what it found."""
    given = list(map(parameter, param or ()))
    check_distinct("--param", [key for key, _ in given])
    parameters = dict(given)
    check_places(project_dir())
    from flows.cli.watch import run_deployment_live

    if run_deployment_live(deployment, parameters, console) is None:
        return  # it goes on without us
    flow, _, profile = deployment.partition("/")
    named = {"name": parameters["name"]} if parameters.get("name") else {}
    settings = load_settings(profile, sections=named)
    if flow == "nas-verify":
        from nas_core.analysis.verification import VerificationReport

        path = results_folder(project_dir(), settings, "verify") / "verify.json"
        report = VerificationReport.read(path)
        tables.print_verification(console, project_dir(), settings, report)
    elif parameters.get("stage", Stage.all) in (Stage.all, Stage.search):
        tables.print_results(console, project_dir(), settings)


def parameter(text: str) -> tuple[str, Any]:
    """Key and value, read as `prefect deployment run --param` reads them."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SettingsError(f"--param {shown(text)[1:-1]}: expected KEY=VALUE, as seed=1")
    try:
        return key, json.loads(value, object_pairs_hook=distinct)
    except RecursionError:
        raise SettingsError(f"--param {shown(key)[1:-1]}: nested too deeply") from None
    except ValueError as error:
        if '"' not in value:
            return key, value  # no JSON, as a text may be
        raise SettingsError(
            f"--param {shown(key)[1:-1]}: {shown(value)[1:-1]} is not valid JSON: {error}"
        ) from None
