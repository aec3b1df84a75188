"""The latencies of a search's networks, kept beside its journal: none is measured twice.

Without torch, which takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel

from nas_core.base.documents import Document
from nas_core.search.journal import Record

LATENCY_FILE = "latencies.json"


class Latencies(Document, RootModel[dict[str, Annotated[float, Field(gt=0, lt=1e9)]]]):
    """latencies.json: milliseconds for one image, by id."""

    remedy = "delete it to measure them again"


def read_latencies(path: Path) -> dict[str, float]:
    """Milliseconds by id; empty if there is no file.

    Raises:
        RunError: the file cannot be read, or is none of latencies.
    """
    return Latencies.read(path).root if path.exists() else {}


def with_latencies(records: Iterable[Record], latencies: Mapping[str, float]) -> list[Record]:
    """The records, with the latencies that they lack, as far as those are known."""
    return [
        record
        if record.latency_ms is not None or record.id not in latencies
        else record.model_copy(update={"latency_ms": latencies[record.id]})
        for record in records
    ]
