"""The latencies of a search's networks, kept beside its journal: none is measured twice.

Without torch, which takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from nas_core.base.documents import Document
from nas_core.search.journal import Record

# Not latencies.json, which an earlier version filled with those of PyTorch.
LATENCY_FILE = "latency.json"
MAX_MILLISECONDS = 1e9


class MeasuredBy(BaseModel):
    """What latencies depend on beside their networks: `search.latency`, and an image's size."""

    model_config = ConfigDict(frozen=True, strict=True)

    command: str
    threads: int = Field(ge=1, lt=2**31)
    height: int = Field(ge=1, lt=2**31)
    width: int = Field(ge=1, lt=2**31)

    def in_words(self) -> str:
        by = f"by {self.command}" if self.command else "in ONNX Runtime"
        threads = "" if self.command else f" with {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{by}{threads} at {self.width}x{self.height}"


class Latencies(Document):
    """latency.json: milliseconds for one image, by id."""

    remedy = "delete it to measure them again"

    measured_by: MeasuredBy
    milliseconds: dict[str, Annotated[float, Field(gt=0, le=MAX_MILLISECONDS)]]


def read_latencies(path: Path, measured_by: MeasuredBy | None = None) -> dict[str, float]:
    """Milliseconds by id; empty if there is no file.

    Args:
        measured_by: empty if the file's are measured by anything else; None: whatever they are.

    Raises:
        RunError: the file cannot be read, or is none of latencies.
    """
    if not path.exists():
        return {}
    found = Latencies.read(path)
    return found.milliseconds if measured_by in (None, found.measured_by) else {}


def with_latencies(records: Iterable[Record], latencies: Mapping[str, float]) -> list[Record]:
    """The records, with the latencies that they lack, as far as those are known."""
    return [
        record
        if record.latency_ms is not None or record.id not in latencies
        else record.model_copy(update={"latency_ms": latencies[record.id]})
        for record in records
    ]
