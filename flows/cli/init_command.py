"""`nas init`: a project of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nas_core.base.errors import SettingsError
from nas_core.config import with_text

console = Console()


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="New or empty; `.` is the current one.")
    ],
) -> None:
    """Make a project of your own: settings, profiles, stages of DVC, deployments of Prefect."""
    from flows.project import lay_out

    place = with_text(folder.resolve())
    if place.exists() and not place.is_dir():
        raise SettingsError(f"{folder} is a file: give a new or an empty folder")
    if place.is_dir() and any(place.iterdir()):
        raise SettingsError(f"{folder} is not empty: give a new or an empty folder")
    in_git = lay_out(place)
    console.print(
        f"written: {folder}; its README.md says how to begin, as with\n"
        f"    cd {folder} && nas search -p synthetic",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    if not in_git:
        console.print("git is not here: `dvc repro` wants `git init` in the folder first")
