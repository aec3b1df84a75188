"""What a search's journal does not tell, and how far it is. Without torch and pandas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from nas_core.base.files import read_json, write_json
from nas_core.base.locks import holder
from nas_core.search.journal import Journal
from nas_core.search.racing import Race

ABOUT_FILE = "about.json"
_MAX_COUNT = 10**9

State = Literal["running", "complete", "stopped"]


def write_about(
    folder: Path,
    began: float,
    num_candidates: int,
    more: Mapping[str, Any],
    race: Race | None = None,
) -> None:
    """Keep what a search's journal does not tell; the time of its first beginning stays.

    Args:
        began: seconds since the epoch.
        num_candidates: that it is to train.
        more: as the commit of the code.
        race: that confirms the best of them; None: they are not confirmed.
    """
    first = read_about(folder).get("began", began)
    written = {**more, "began": first, "num_candidates": num_candidates}
    write_json(folder / ABOUT_FILE, written | ({"race": asdict(race)} if race else {}))


def read_about(folder: Path) -> dict[str, Any]:
    """See `write_about`; empty if there is none, or it is damaged."""
    try:
        about = read_json(folder / ABOUT_FILE)
    except (OSError, ValueError):
        return {}
    if not isinstance(about, dict):
        return {}
    began = about.get("began")
    if not isinstance(began, int | float) or isinstance(began, bool) or not 0 <= began < 1e11:
        return {}
    return about if count_in(about, "num_candidates") else {}


def count_in(section: Any, key: str) -> int | None:
    """A count in a section of a file that anybody may have edited; None where there is none."""
    count = section.get(key) if isinstance(section, Mapping) else None
    return count if type(count) is int and 0 < count <= _MAX_COUNT else None


def is_confirming(folder: Path, journal: Journal) -> bool:
    """Whether the search has all its candidates, and its best are not confirmed yet."""
    about, done = read_about(folder), journal.candidates
    planned, values = about.get("num_candidates"), about.get("race")
    if not planned or len(done) < planned or not isinstance(values, dict):
        return False
    if {*values} != {*Race.__annotations__} or any(type(one) is not int for one in values.values()):
        return False
    return bool(Race(**values).open_runs(done[:planned], journal.confirmations))


def search_state(folder: Path, journal: Journal) -> tuple[State, str | None, int]:
    """State, the process that works on it, and the number of candidates that it is to train."""
    about, done = read_about(folder), len(journal.candidates)
    begun = count_in(journal.header.settings.get("search"), "num_candidates")
    planned = about.get("num_candidates") or begun or done
    held_by = holder(folder)
    if done >= planned and not is_confirming(folder, journal):
        return "complete", held_by, planned
    return ("running" if held_by else "stopped"), held_by, planned
