"""What a search's journal does not tell, and how far it is. Without torch and pandas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from nas_core.base.files import read_json, write_json
from nas_core.base.locks import holder
from nas_core.search.journal import Journal

ABOUT_FILE = "about.json"
_MAX_COUNT = 10**9

State = Literal["running", "complete", "stopped"]


def write_about(folder: Path, began: float, num_candidates: int, more: Mapping[str, Any]) -> None:
    """Keep what a search's journal does not tell; the time of its first beginning stays.

    Args:
        began: seconds since the epoch.
        num_candidates: that it is to train.
        more: as the commit of the code.
    """
    first = read_about(folder).get("began", began)
    write_json(folder / ABOUT_FILE, {**more, "began": first, "num_candidates": num_candidates})


def read_about(folder: Path) -> dict[str, Any]:
    """See `write_about`; empty if there is none, or it is damaged."""
    try:
        about = read_json(folder / ABOUT_FILE)
    except (OSError, ValueError):
        return {}
    if not isinstance(about, dict):
        return {}
    began = about.get("began")
    whole = isinstance(began, int | float) and began is not True and 0 <= began < 1e11
    return about if whole and count_in(about, "num_candidates") else {}


def count_in(section: Any, key: str) -> int | None:
    """A count in a section of a file that anybody may have edited; None where there is none."""
    count = section.get(key) if isinstance(section, Mapping) else None
    return count if type(count) is int and 0 < count <= _MAX_COUNT else None


def search_state(folder: Path, journal: Journal) -> tuple[State, str | None, int]:
    """State, the process that works on it, and the number of candidates that it is to train."""
    about, done = read_about(folder), len(journal.candidates)
    begun = count_in(journal.header.settings.get("search"), "num_candidates")
    planned = about.get("num_candidates") or begun or done
    held_by = holder(folder)
    if done >= planned:
        return "complete", held_by, planned
    return ("running" if held_by else "stopped"), held_by, planned
