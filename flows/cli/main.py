"""The command line: what people do by hand."""

from __future__ import annotations

import errno
import importlib.metadata
import inspect
import io
import json
import os
import signal
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from flows.cli import completion, overview, tables
from flows.cli import data_commands as data
from flows.cli import model_commands as models
from flows.cli.import_command import import_annotations
from flows.cli.init_command import init
from flows.cli.pick_command import pick
from flows.cli.places import (
    check_connections,
    check_current_folder,
    check_no_address,
    check_places,
)
from flows.cli.sizes import size_of_input
from nas_core.base.errors import NasError, SettingsError, first_line, shown
from nas_core.base.files import distinct
from nas_core.base.paths import results_folder
from nas_core.base.problems import at_its_key
from nas_core.base.project import project_dir
from nas_core.base.setting_types import MAX_SEED
from nas_core.config import DEFAULT_ENCODER, SECTIONS, NetworkSettings, ProxySettings, Settings
from nas_core.data.labels import MAX_CLASSES
from nas_core.loading import check_distinct, check_once, load_settings

# torch, prefect and mlflow take seconds to import: commands import what they need themselves.

app = typer.Typer(
    name="nas",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data.app.command("import")(import_annotations)
app.add_typer(data.app)
console = Console(markup=False)
errors = Console(stderr=True, markup=False)

Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        "-p",
        help="camvid (params.yaml itself) or a file of profiles/.",
        autocompletion=completion.profile_names,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-S", metavar="KEY=VALUE", help="Override a setting: search.num_candidates=8."
    ),
]
Reference = Annotated[
    str,
    typer.Argument(
        metavar="GENOTYPE",
        help="A name (arch0, arch1, camvid0), an id from a search, or a JSON file.",
        autocompletion=completion.genotype_names,
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("nas-seg"))
        raise typer.Exit


@app.callback()
def nas(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Search for compact semantic segmentation networks, train and compare them."""


class Stage(StrEnum):
    all = "all"
    prepare = "prepare"
    search = "search"
    train = "train"
    evaluate = "evaluate"


@app.command()
def search(
    profile: Profile = "camvid",
    overrides: Overrides = None,
    stage: Annotated[Stage, typer.Option(help="Run only this stage, as dvc.yaml does.")] = (
        Stage.all
    ),
) -> None:
    """Search, train the best fully and test them: the flow nas-search, in this process.

    Stopped with Ctrl-C, the same command goes on from where it was.
    """
    settings = _settings(profile, overrides)
    from flows.search import nas_search

    # Every section is complete here, so the flow takes nothing from the profile.
    sections = {name: getattr(settings, name) for name in Settings.model_fields}
    with _stoppable():
        nas_search(profile=profile, stage=stage.value, **sections)
    if stage in (Stage.all, Stage.search):
        tables.print_results(console, project_dir(), settings)


@app.command()
def train(
    genotype: Reference,
    profile: Profile = "camvid",
    overrides: Overrides = None,
    test: Annotated[
        bool, typer.Option("--test", help="Score the test split at the end. Do it once.")
    ] = False,
) -> None:
    """Train one architecture fully, from its last checkpoint if there is one."""
    settings = _settings(profile, overrides)
    _find(genotype)  # refuses before Prefect starts
    from flows.train import nas_train

    with _stoppable():
        summary = nas_train(settings, genotype, test)
    tables.print_training(console, summary)


@app.command()
def compare(
    profile: Profile = "camvid",
    overrides: Overrides = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="ppo, ppo-independent (decisions do not see each other), reinforce, evolution or "
            "random; again for more. All of these if left out. Or pareto.",
        ),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Again for more. 0 and 1 if left out.")
    ] = None,
) -> None:
    """Search strategies side by side at equal proxy training time: the flow nas-compare.

    Each strategy and seed is a search of search.num_candidates, and one that is complete is not
    repeated. Stopped with Ctrl-C, the same command goes on. Other seeds may run in another process
    at the same time; a command that names all of them gathers them. Time is that of the clock: it
    compares fairly what ran under the same load.
    """
    settings = _settings(profile, overrides)
    from nas_core.analysis.comparison import plan_searches

    plan_searches(settings, strategy or (), seed or ())  # refuses before Prefect starts
    from flows.compare import nas_compare

    with _stoppable():
        comparison = nas_compare(settings, strategy or [], seed or [])
    tables.print_comparison(console, project_dir(), settings, comparison)


@app.command()
def fidelity(
    genotypes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GENOTYPE]...",
            help="Names, ids or JSON files; else random ones within search.constraints.",
            autocompletion=completion.genotype_names,
        ),
    ] = None,
    profile: Profile = "camvid",
    overrides: Overrides = None,
    num: Annotated[
        int | None,
        typer.Option(min=4, max=10_000, help="Random architectures that are drawn, else 40."),
    ] = None,
    proxy_seeds: Annotated[
        int,
        typer.Option(
            min=1, max=1000, help="Trainings of each on a proxy: several show its reliability."
        ),
    ] = 1,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE[,...]", help="Try search.proxy with changes too: height=72,width=96."
        ),
    ] = None,
) -> None:
    """Does the proxy task rank architectures as full training does?

    Trains each on the proxy task and fully. Stopped with Ctrl-C, the same command goes on.
    """
    settings = _settings(profile, overrides)
    if genotypes and num is not None:
        raise SettingsError("--num is of random architectures: leave it out, or the names")
    variants: list[ProxySettings] = []
    for text in proxy or ():
        changed = load_settings(profile, [*(overrides or ()), *_proxy_changes(text)]).search.proxy
        if changed in (settings.search.proxy, *variants):
            raise SettingsError(f"--proxy {text}: this proxy is tried already: leave it out")
        variants.append(changed)
    for reference in genotypes or ():
        _find(reference)  # refuses before Prefect starts
    from flows.fidelity import nas_fidelity

    with _stoppable():
        report = nas_fidelity(settings, genotypes or [], variants, num or 40, proxy_seeds)
    tables.print_fidelity(console, project_dir(), settings, report)


@app.command()
def verify(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE",
            help="camvid (params.yaml itself) or a file of profiles/.",
            autocompletion=completion.profile_names,
        ),
    ] = "camvid",
    overrides: Overrides = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GENOTYPE",
            help="A name, id or JSON file; again for more. All names if left out.",
            autocompletion=completion.genotype_names,
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N", min=0, max=MAX_SEED, help="Again for more; the setting seed if left out."
        ),
    ] = None,
) -> None:
    """The paper's claims beside what its architectures score here: the flow nas-verify.

    Trains each architecture fully with each seed on the splits of train.splits and scores it once
    on test, or on val where there is no test split. Stopped with Ctrl-C, the same command goes on.
    """
    from nas_core.space.architectures import ARCHITECTURES

    settings = _settings(profile, overrides)
    references, seeds = tuple(architecture or ARCHITECTURES), tuple(seed or [settings.seed])
    check_once("seed", seeds)  # refuses before Prefect starts
    for reference in references:
        _find(reference)
    from flows.verify import nas_verify

    taken = inspect.signature(nas_verify.fn).parameters
    sections = {name: getattr(settings, name) for name in SECTIONS if name in taken}
    with _stoppable():
        report = nas_verify(profile, references, seeds, settings.name, **sections)
    tables.print_verification(console, project_dir(), settings, report)


@app.command()
def describe(
    genotype: Reference,
    num_classes: Annotated[int, typer.Option(min=2, max=MAX_CLASSES, help="Classes.")] = 11,
    agg_size: Annotated[
        int, typer.Option(min=1, max=1024, help="Channels of the decoder's head.")
    ] = NetworkSettings().agg_size,
    sep_repeats: Annotated[
        int, typer.Option(min=1, max=4, help="Repeats inside a separable convolution.")
    ] = NetworkSettings().sep_repeats,
    encoder: Annotated[str, typer.Option(help="See network.encoder.")] = DEFAULT_ENCODER,
    input_size: Annotated[str, typer.Option(metavar="HxW", help="Size of an image.")] = "360x480",
    drawing: Annotated[
        Path | None,
        typer.Option("--draw", metavar="FILE", help="Draw it too, into a .svg or .png file."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Parameters, multiply-accumulates, output size and a readable description."""
    if drawing:
        models.check_output("--draw", drawing, (".svg", ".png"))
    from nas_core.models.cost import Form, measure_cost

    name, architecture = _find(genotype)
    form = Form(
        num_classes=num_classes, agg_size=agg_size, sep_repeats=sep_repeats, encoder=encoder
    )
    size = size_of_input(input_size)
    cost = measure_cost(architecture, **form, input_size=size)
    if drawing:
        from nas_core.analysis.drawing import draw
        from nas_core.base.files import write_bytes

        file_format: Any = drawing.suffix.removeprefix(".")
        write_bytes(
            drawing, draw(architecture, name, **form, input_size=size, file_format=file_format)
        )
    values = {
        "id": architecture.id,
        "num_parameters": cost.num_parameters,
        "macs": cost.macs,
        "output_size": list(cost.output_size),
    }
    if as_json:
        print(json.dumps(values))
        return
    height, width = cost.output_size
    console.print(Text.assemble((name, "bold"), f" · id {architecture.id}"))
    console.print(f"parameters   {cost.num_parameters:,}")
    console.print(f"MACs         {cost.macs / 1e9:.3f} G for an image of {input_size}")
    console.print(f"output size  {height}x{width}, resized to the image")
    console.print(architecture.describe(), markup=False, highlight=False)
    if drawing:
        console.print(f"written: {drawing}", soft_wrap=True, markup=False, highlight=False)


@app.command()
def leaderboard(
    run: Annotated[
        str | None,
        typer.Option(
            help="Folder name of a search in artifacts/searches; the latest if left out.",
            autocompletion=completion.search_names,
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the table in the terminal.")] = 20,
    csv: Annotated[Path | None, typer.Option(help="Write all rows to this CSV file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write all rows to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all rows as JSON.")] = False,
) -> None:
    """The candidates of a search, best first; also while it runs."""
    for option, path, suffix in (("--csv", csv, ".csv"), ("--parquet", parquet, ".parquet")):
        if path:
            models.check_output(option, path, (suffix,))
    from nas_core.analysis import leaderboard as boards
    from nas_core.base.paths import searches_folder

    name, table = boards.read_ranking(searches_folder(project_dir()), run)
    for path in filter(None, (csv, parquet)):
        from tasks.results import write_table  # brings matplotlib

        write_table(path, table)
    if as_json:
        print(table.to_json(orient="records", indent=1))
    elif csv or parquet:
        console.print(f"{len(table)} candidates of {name} written", markup=False)
    else:
        console.print(tables.candidates_table(name, table, top))


app.command()(init)
app.command()(pick)
app.command()(overview.report)
app.command()(overview.status)


@app.command()
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


@app.command()
def down() -> None:
    """End what `nas up` started."""
    check_connections()
    from flows.servers import services

    services.down(project_dir(), console)


@app.command("run")
def run_deployment(
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
    given = list(map(_parameter, param or ()))
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


for _command in (models.ship, models.predict, models.export, models.bench):
    app.command()(_command)


def main() -> None:
    """The entry point: a user's error is a message, not a traceback."""
    # A name of a file need not be text.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        check_current_folder()
        if "" in sys.argv[1:]:  # of a variable of the shell that is not set
            raise SettingsError("an argument is empty: give a value, or leave its option out")
        check_no_address(sys.argv[1:])
        app()
    except NasError as error:
        _fail(type(error).__name__, str(error))
    except ValidationError as error:
        if not error.title.endswith("Settings"):  # of Prefect, which it reads when imported
            raise
        problem = error.errors(include_input=False)[0]
        _fail(
            "Prefect's settings",
            f"{at_its_key(problem)}: correct it in the environment (PREFECT_...) or in Prefect's "
            "files of settings",
        )
    except ValueError as error:
        said = first_line(error).removeprefix("Failed to load Prefect settings from ")
        if not isinstance(error, tomllib.TOMLDecodeError) and said == first_line(error):
            raise
        _fail(
            "Prefect's settings",
            f"{said}: correct that file, prefect.toml, pyproject.toml or the profiles.toml that "
            "PREFECT_PROFILES_PATH or PREFECT_HOME names",
        )
    except OSError as error:
        if error.filename is not None:
            _fail("file", f"{os.fsdecode(error.filename)}: {error.strerror}")
        if error.errno != errno.ENOSPC:
            raise
        sys.stdout = io.StringIO()  # Python writes once more at its end
        _fail("output", f"it cannot be written: {error.strerror}")


def _settings(profile: str, overrides: list[str] | None) -> Settings:
    """The settings of a command that needs the servers, and a place for what they write."""
    settings = load_settings(profile, overrides or ())
    check_distinct("-S", [text.partition("=")[0].strip() for text in overrides or ()])
    check_places(project_dir())
    return settings


def _fail(kind: str, message: str) -> NoReturn:
    # Of a line that is longer than anybody reads, the beginning and the reason at its end.
    lines = (f"{x[:500]} ... {x[-400:]}" if len(x) > 1000 else x for x in message.splitlines())
    errors.print(Text.assemble(("error:", "red"), f" {kind}:"), end=" ")
    errors.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Around a flow in this process: it has a server to report to; a signal ends it.

    What is done by then is on the disk.

    Raises:
        ServiceError: no Prefect server answers at the configured address.
    """
    from prefect.client.orchestration import get_client

    from flows import signals
    from flows.servers import orphans, prefect_server

    stopped = "stopped; the same command goes on from here"
    untold = f"{stopped}. The Prefect server is gone: the next command closes the run there"
    try:
        with signals.raised():
            orphans.end_processes()
            orphans.mark_processes()
            with (
                prefect_server.for_command() as url,
                signals.insistent(lambda: prefect_server.answers(url), untold),
            ):
                with get_client(sync_client=True) as client:
                    for run in orphans.crash_runs(client):
                        errors.print(f"run {run.name} had lost its process: now marked as Crashed")
                yield
    except KeyboardInterrupt as stop:
        errors.print(stopped)
        raise typer.Exit(128 + (signals.signal_of(stop) or signal.SIGINT)) from None


def _find(reference: str) -> tuple[str, Any]:
    from nas_core.base.paths import searches_folder
    from nas_core.search.searched import searched_genotypes
    from nas_core.space.architectures import ARCHITECTURES, find_architecture

    if reference in ARCHITECTURES or reference.endswith(".json"):
        return find_architecture(reference, {})
    return find_architecture(reference, searched_genotypes(searches_folder(project_dir())))


def _proxy_changes(text: str) -> list[str]:
    changes = text.split(",")
    if not all("=" in change for change in changes):
        raise SettingsError(
            f"--proxy {text}: expected KEY=VALUE[,KEY=VALUE...], for example height=72,width=96"
        )
    check_distinct(f"--proxy {text}:", [change.partition("=")[0].strip() for change in changes])
    return [f"search.proxy.{change.strip()}" for change in changes]


def _parameter(text: str) -> tuple[str, Any]:
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
