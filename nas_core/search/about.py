"""What a search's journal does not tell, and how far it is. Without torch and pandas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from nas_core.base.documents import Document, Number
from nas_core.base.errors import RunError
from nas_core.base.locks import holder
from nas_core.search.journal import Journal
from nas_core.search.racing import Race

ABOUT_FILE = "about.json"
_MAX_COUNT = 10**9

State = Literal["running", "complete", "stopped"]


class About(Document):
    """about.json. What else it tells of a search's origin, as the commit, is `origin`.

    Attributes:
        began: seconds since the epoch.
        num_candidates: that it is to train.
        race: that confirms the best of them; None: they are not confirmed.
    """

    model_config = ConfigDict(extra="allow")

    remedy = "delete it, and the search writes it again when it goes on"

    began: Annotated[Number, Field(ge=0, lt=1e11)]
    num_candidates: Annotated[int, Field(gt=0, le=_MAX_COUNT)]
    race: Race | None = None

    @property
    def origin(self) -> dict[str, str]:
        extra = self.model_extra or {}
        return {key: value for key, value in extra.items() if isinstance(value, str)}


def write_about(
    folder: Path,
    began: float,
    num_candidates: int,
    origin: Mapping[str, str],
    race: Race | None = None,
) -> None:
    """Keep what a search's journal does not tell, see `About`; the time of its beginning stays."""
    if before := read_about(folder):
        began = before.began
    about = {**origin, "began": began, "num_candidates": num_candidates, "race": race}
    About.model_validate(about).write(folder / ABOUT_FILE)


def read_about(folder: Path) -> About | None:
    """None if there is none, or it is damaged: what it tells is not needed to go on."""
    try:
        return About.read(folder / ABOUT_FILE)
    except RunError:
        return None


def count_in(section: Any, key: str) -> int | None:
    """A count in a section of a file that anybody may have edited; None where there is none."""
    count = section.get(key) if isinstance(section, Mapping) else None
    return count if type(count) is int and 0 < count <= _MAX_COUNT else None


def is_confirming(folder: Path, journal: Journal) -> bool:
    """Whether the search has all its candidates, and its best are not confirmed yet."""
    about, done = read_about(folder), journal.candidates
    if about is None or about.race is None or len(done) < about.num_candidates:
        return False
    return bool(about.race.open_runs(done[: about.num_candidates], journal.confirmations))


def search_state(folder: Path, journal: Journal) -> tuple[State, str | None, int]:
    """State, the process that works on it, and the number of candidates that it is to train."""
    about, done = read_about(folder), len(journal.candidates)
    begun = count_in(journal.header.settings.get("search"), "num_candidates")
    planned = about.num_candidates if about else begun or done
    held_by = holder(folder)
    if done >= planned and not is_confirming(folder, journal):
        return "complete", held_by, planned
    return ("running" if held_by else "stopped"), held_by, planned
