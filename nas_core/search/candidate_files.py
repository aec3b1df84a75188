"""The files that a search keeps of each candidate. Without torch, which takes seconds to import."""

from __future__ import annotations

from pathlib import Path

from pydantic import RootModel

from nas_core.base.documents import Document
from nas_core.search.journal import Value


class Losses(Document, RootModel[dict[str, list[Value]]]):
    """losses.json: the mean loss of each epoch, by stage."""


def candidate_files(folder: Path, genotype_id: str) -> dict[str, Path]:
    """What is kept of a candidate, by name, in the folder of its search."""
    place = folder / "candidates" / genotype_id
    names = ("genotype.json", "weights.safetensors", "confusion_matrix.csv", "losses.json")
    return {name.partition(".")[0]: place / name for name in names}


def drawing_file(folder: Path, genotype_id: str) -> Path:
    """Where the drawing of a candidate is kept, in the folder of its search."""
    return candidate_files(folder, genotype_id)["genotype"].with_name("architecture.svg")
