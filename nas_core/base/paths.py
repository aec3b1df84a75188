"""Where everything lies, under the project's folder."""

from __future__ import annotations

from pathlib import Path

from nas_core.config import Settings


def artifacts_folder(root: Path) -> Path:
    """Everything that runs produce."""
    return root / "artifacts"


def prepared_folder(root: Path, settings: Settings) -> Path:
    """The decoded dataset."""
    return artifacts_folder(root) / "prepared" / settings.name


def searches_folder(root: Path) -> Path:
    """One folder a search, with its journal and candidates."""
    return artifacts_folder(root) / "searches"


def trainings_folder(root: Path) -> Path:
    """One folder a full training, with its checkpoint, weights and figures."""
    return artifacts_folder(root) / "trainings"


def fidelity_folder(root: Path) -> Path:
    """One folder a setting of the proxy, with what it gave each architecture."""
    return artifacts_folder(root) / "fidelity"


def looks_file(root: Path) -> Path:
    """A line for each time that a network was run on a test split."""
    return artifacts_folder(root) / "test_looks.jsonl"


def results_folder(root: Path, settings: Settings, stage: str) -> Path:
    """What a stage leaves for the next one and for DVC: small tables and final weights."""
    return artifacts_folder(root) / "results" / settings.name / stage
