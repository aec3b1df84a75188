"""The files that a search keeps of each candidate. Without torch, which takes seconds to import."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from nas_core.base.files import MAX_JSON, read_limited
from nas_core.search.journal import Value

_LOSSES = TypeAdapter(dict[str, list[Value]])


def candidate_files(folder: Path, genotype_id: str) -> dict[str, Path]:
    """What is kept of a candidate, by name, in the folder of its search."""
    place = folder / "candidates" / genotype_id
    names = ("genotype.json", "weights.safetensors", "confusion_matrix.csv", "losses.json")
    return {name.partition(".")[0]: place / name for name in names}


def drawing_file(folder: Path, genotype_id: str) -> Path:
    """Where the drawing of a candidate is kept, in the folder of its search."""
    return candidate_files(folder, genotype_id)["genotype"].with_name("architecture.svg")


def read_losses(path: Path) -> dict[str, list[float]]:
    """The loss of each epoch, by stage.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    return _LOSSES.validate_json(read_limited(path, MAX_JSON), strict=True)
