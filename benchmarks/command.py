"""How the commands of the benchmarks end: a user's error is a message, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from nas_core.base.errors import NasError, SettingsError

P = ParamSpec("P")


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
            if error.filename is None:
                raise
            sys.exit(f"error: {error.filename}: {error.strerror}")

    return command
