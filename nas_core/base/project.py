"""The folder of a project: the one with params.yaml."""

from __future__ import annotations

import os
from pathlib import Path

from nas_core.base.errors import SettingsError
from nas_core.base.files import resolved
from nas_core.base.setting_types import is_text

# Where this code lies; without a params.yaml if it is installed.
CHECKOUT = Path(__file__).resolve().parents[2]


def project_dir() -> Path:
    """The folder with params.yaml, to which all relative paths of the settings refer.

    `NAS_PROJECT_DIR`, or else the nearest folder with a params.yaml from the current one upwards,
    or else the checkout that this code lies in.

    Raises:
        SettingsError: there is no params.yaml in any of them, or the path is no text.
    """
    root = find_project()
    if root is None:
        raise SettingsError("no params.yaml here or above: nas init FOLDER makes a project")
    return root


def find_project() -> Path | None:
    """As `project_dir`; None where there is no params.yaml, for what can do without a project.

    Raises:
        SettingsError: `NAS_PROJECT_DIR` names a folder without one, or the path is no text.
    """
    if named := os.environ.get("NAS_PROJECT_DIR"):
        if not (Path(named) / "params.yaml").is_file():
            raise SettingsError(f"NAS_PROJECT_DIR is {named}, which has no params.yaml")
        return with_text(resolved(Path(named)))
    here = Path.cwd()
    for folder in (here, *here.parents, CHECKOUT):
        if (folder / "params.yaml").is_file():
            return with_text(folder)
    return None


def with_text(root: Path) -> Path:
    """A project's folder, whose path is recorded.

    Raises:
        SettingsError: it is no text.
    """
    try:
        is_text(str(root))
    except ValueError as error:
        raise SettingsError(f"the project's folder {root} {error}: rename or move it") from None
    return root
