"""`nas init`: a project of one's own."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from flows.cli.terminal import console
from nas_core.base.addresses import encoded_part
from nas_core.base.errors import RunError, SettingsError
from nas_core.base.files import nearest, resolved
from nas_core.base.project import with_text


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="New or empty; `.` is the current one.")
    ],
) -> None:
    """Make a project of your own: settings, profiles, stages of DVC, deployments of Prefect."""
    from flows.new_project import lay_out

    place = with_text(resolved(folder))
    if encoded := encoded_part(str(place)):
        raise SettingsError(
            f"{place} holds {encoded}, which MLflow would not find again: choose another name"
        )
    if not (found := nearest(place)).is_dir():
        name = folder if found == place else found
        raise SettingsError(f"{name} is no folder: give a new or an empty one")
    if place.is_dir() and any(place.iterdir()):
        raise SettingsError(f"{folder} is not empty: give a new or an empty folder")
    try:
        in_git = lay_out(place)
    except OSError as error:
        raise RunError(
            f"{place} cannot be made ({error.strerror}): give a folder where there is room and may "
            "be written"
        ) from None
    named = str(folder) if not str(folder).startswith("-") else f"./{folder}"  # no option of cd
    console.print(
        f"written: {folder}; its README.md says how to begin, as with\n"
        f"    cd {quote(named)} && nas search -p synthetic",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    if not in_git:
        console.print("git made no repository: `dvc repro` wants `git init` in the folder first")
