"""Where everything lies, under the project's folder."""

from __future__ import annotations

from os.path import lexists
from pathlib import Path

from nas_core.base.errors import RunError
from nas_core.config import Settings

_PACKAGE = Path(__file__).resolve().parents[1]


def artifacts_folder(root: Path) -> Path:
    """Everything that runs produce.

    Raises:
        RunError: a file has its name; so do those below.
    """
    return _folder(root / "artifacts")


def prepared_folder(root: Path, settings: Settings) -> Path:
    """The decoded dataset."""
    return _folder(artifacts_folder(root) / "prepared") / settings.name


def searches_folder(root: Path) -> Path:
    """One folder a search, with its journal and candidates."""
    return _folder(artifacts_folder(root) / "searches")


def trainings_folder(root: Path) -> Path:
    """One folder a full training, with its checkpoint, weights and figures."""
    return _folder(artifacts_folder(root) / "trainings")


def fidelity_folder(root: Path) -> Path:
    """One folder a setting of the proxy, with what it gave each architecture."""
    return _folder(artifacts_folder(root) / "fidelity")


def looks_file(root: Path) -> Path:
    """A line for each time that a network was run on a test split."""
    return artifacts_folder(root) / "test_looks.jsonl"


STAGES = ("search", "train", "evaluate", "compare", "fidelity", "verify")
"""What has a `results_folder`."""


def results_folder(root: Path, settings: Settings, stage: str) -> Path:
    """What a stage leaves for the next one and for DVC: small tables and final weights."""
    return artifacts_folder(root) / "results" / settings.name / stage


def models_folder(root: Path) -> Path:
    """Models that are handed on, with their cards."""
    return root / "models"


def shipped_models(root: Path | None) -> dict[str, Path]:
    """The weights of the models that have a name: a project's, and those of this program.

    Args:
        root: the project's folder, whose models go first; None outside of one.
    """
    # setup.py puts the checkout's there when it makes a wheel.
    installed = _PACKAGE / "shipped"
    folders = [installed if installed.is_dir() else models_folder(_PACKAGE.parent)]
    if root:
        folders.append(models_folder(root))
    found = {path.stem: path for folder in folders for path in folder.glob("*.safetensors")}
    return dict(sorted(found.items()))


def _folder(path: Path) -> Path:
    if lexists(path) and not path.is_dir():
        raise RunError(f"{path} is no folder: move it away")
    return path
