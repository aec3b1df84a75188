"""What the commands of the benchmarks share: options, and that a user's error is a message."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from nas_core.base.errors import NasError, RunError, SettingsError, first_line
from nas_core.base.files import read_json

P = ParamSpec("P")

Profile = Annotated[str, typer.Option("--profile", "-p")]
Overrides = Annotated[list[str] | None, typer.Option("--set", "-S")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def kept(path: Path, *keys: str) -> dict[str, Any]:
    """What an earlier call left of a training: a JSON file with these keys.

    Raises:
        RunError: it is none.
    """
    try:
        row = read_json(path)
        if not isinstance(row, dict) or not row.keys() >= {*keys}:
            raise ValueError("it is none of a training")
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read ({first_line(error)}): delete it to train again"
        ) from None
    return row


def errors_in_words(main: Callable[P, None]) -> Callable[P, None]:
    """A benchmark's command that ends with 1 and a line where its input cannot be used."""

    @wraps(main)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            if "" in sys.argv[1:]:  # of a variable of the shell that is not set
                raise SettingsError("an argument is empty: give a value, or leave its option out")
            main(*args, **kwargs)
        except NasError as error:
            sys.exit(f"error: {error}")
        except OSError as error:
            if error.filename is not None:
                sys.exit(f"error: {error.filename}: {error.strerror}")
            if error.errno != errno.ENOSPC:
                raise
            sys.stdout = io.StringIO()  # Python writes once more at its end
            sys.exit(f"error: the output cannot be written: {error.strerror}")

    return command
