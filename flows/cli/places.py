"""The folders that a command needs to write to, seen to before it starts anything."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

from nas_core.base.errors import RunError
from nas_core.base.files import check_writable, expanded
from nas_core.base.paths import artifacts_folder


def check_current_folder() -> None:
    """Raises a RunError where it is gone: nothing could be found from there."""
    try:
        Path.cwd()
    except OSError as error:
        raise RunError(
            f"the current folder cannot be found ({error.strerror}): change to one that is there"
        ) from None


def check_places(root: Path) -> None:
    """See that the artifacts, Prefect's state and temporary files have a place.

    Prefect itself would try for minutes.

    Raises:
        RunError: one of them cannot be written.
    """
    check_writable(artifacts_folder(root), "make it writable, or work in a copy of the project")
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise RunError(
            "there is no folder for temporary files: set TMPDIR to one that can be written"
        ) from None
    remedy = "set PREFECT_HOME (or HOME) to a folder that can be written"
    try:
        check_writable(expanded(os.environ.get("PREFECT_HOME") or "~/.prefect"), remedy)
    except RunError:
        # Prefect's files of settings may name another one; to read them takes seconds.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of what is said here
            from prefect.settings import Settings

            check_writable(Settings().home, remedy)
