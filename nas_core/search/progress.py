"""Lines that say how far a search is."""

from __future__ import annotations

import logging
import time

from nas_core.base.logs import Logger
from nas_core.base.times import duration
from nas_core.search.confirming import race_of
from nas_core.search.journal import Confirmation, Record
from nas_core.search.loop import Observer, Search
from nas_core.search.ranking import ranking
from nas_core.space.architectures import short_name

log = logging.getLogger(__name__)


class Progress(Observer):
    """Logs a line for each record, and estimates the time left from what this process trained."""

    def __init__(self, logger: Logger = log) -> None:
        self.logger = logger

    def on_begin(self, search: Search) -> None:
        done = search.journal.candidates
        self.search, self.race = search, race_of(search.settings)
        self.num_candidates = search.settings.search.num_candidates
        self.num_done = len(done)
        self.best = max((r for r in done if r.is_scored), key=_reward, default=None)
        self.started = time.monotonic()
        self.num_trained = 0
        if done:
            self.logger.info("%s: going on after %d candidates", search.folder.name, len(done))
        self.logger.info("%s", search.meta_val)

    def on_warning(self, message: str) -> None:
        self.logger.warning("%s", message)

    def on_record(self, record: Record) -> None:
        level = logging.WARNING if record.status == "failed" else logging.INFO
        self.logger.log(level, "%s", self.line(record))

    def on_confirmation(self, confirmation: Confirmation) -> None:
        self.logger.info("%s", self.confirming_line(confirmation))

    def confirming_line(self, confirmation: Confirmation) -> str:
        """Describe a new confirmation, with what the candidate's rewards are by now."""
        journal, one = self.search.journal, confirmation
        of = f"seed {one.run} of {self.race.max_seeds} at most"
        what = f"confirming {short_name(one.confirms)} · {of}"
        if one.status == "failed":
            return f"{what} · FAILED: {one.reason}"
        candidates = [record for record in journal.candidates if record.id == one.confirms]
        (ranked,) = ranking(candidates, journal.confirmations)
        return f"{what} · reward {one.reward:.4f} · mean of {len(ranked.runs)} {ranked.reward:.4f}"

    def line(self, record: Record) -> str:
        """Take a new record into account and describe it."""
        name = short_name(record.id)
        if record.candidate is None:
            return f"{name} was trained before: reward {_shown(record)} from the journal"
        self.num_done += 1
        self.num_trained += 1
        if record.is_scored and (self.best is None or _reward(record) > _reward(self.best)):
            self.best = record
        best = "none scored yet"
        if self.best:
            best = f"best {_shown(self.best)} ({short_name(self.best.id)})"
        what = f"reward {_shown(record)}" if record.is_scored else f"FAILED: {record.reason}"
        early = ", stopped early" if record.status == "stopped early" else ""
        seconds = (time.monotonic() - self.started) / self.num_trained
        left = duration(seconds * (self.num_candidates - self.num_done))
        return (
            f"candidate {record.candidate}/{self.num_candidates} · {name} · {what}{early}"
            f" · {best} · {sum(record.seconds.values()):.0f} s · about {left} left"
        )


def _reward(record: Record) -> float:
    assert record.reward is not None
    return record.reward


def _shown(record: Record) -> str:
    return "none" if record.reward is None else f"{record.reward:.4f}"
