"""The command line: what people do by hand."""

from __future__ import annotations

import errno
import importlib.metadata
import io
import os
import sys
import tomllib
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from rich.text import Text

from flows.cli import data_commands
from flows.cli.describe_command import describe
from flows.cli.flow_commands import compare, fidelity, search, train, verify
from flows.cli.import_command import import_annotations
from flows.cli.init_command import init
from flows.cli.model_commands import bench, export, predict, ship
from flows.cli.overview import leaderboard, report, status
from flows.cli.pick_command import pick
from flows.cli.places import check_current_folder, check_no_address
from flows.cli.server_commands import down, run, up
from flows.cli.terminal import errors
from nas_core.base.errors import NasError, SettingsError, first_line
from nas_core.base.problems import at_its_key

app = typer.Typer(
    name="nas",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order of nas --help.
COMMANDS: tuple[Callable[..., None], ...] = (
    search,
    train,
    compare,
    fidelity,
    verify,
    describe,
    leaderboard,
    init,
    pick,
    report,
    status,
    up,
    down,
    run,
    ship,
    predict,
    export,
    bench,
)
for command in COMMANDS:
    app.command()(command)
data_commands.app.command("import")(import_annotations)
app.add_typer(data_commands.app)


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


def _fail(kind: str, message: str) -> NoReturn:
    # Of a line that is longer than anybody reads, the beginning and the reason at its end.
    lines = (f"{x[:500]} ... {x[-400:]}" if len(x) > 1000 else x for x in message.splitlines())
    errors.print(Text.assemble(("error:", "red"), f" {kind}:"), end=" ")
    errors.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)
