"""The latencies of a search's networks, kept beside its journal: none is measured twice.

Without torch, which takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from nas_core.base.errors import RunError
from nas_core.base.files import read_json
from nas_core.search.journal import Record

LATENCY_FILE = "latencies.json"


def read_latencies(path: Path) -> dict[str, float]:
    """Milliseconds by id; empty if there is no file.

    Raises:
        RunError: the file cannot be read, or is none of latencies.
    """
    if not path.exists():
        return {}
    try:
        content = read_json(path)
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or not all(
        type(value) is float and 0 < value < 1e9 for value in content.values()
    ):
        raise RunError(f"{path} is no file of latencies: delete it to measure them again")
    return content


def with_latencies(records: Iterable[Record], latencies: Mapping[str, float]) -> list[Record]:
    """The records, with the latencies that they lack, as far as those are known."""
    return [
        record
        if record.latency_ms is not None or record.id not in latencies
        else record.model_copy(update={"latency_ms": latencies[record.id]})
        for record in records
    ]
