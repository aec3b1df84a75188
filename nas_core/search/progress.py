"""Lines that say how far a search is."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from nas_core.base.logs import Logger
from nas_core.search.journal import Record
from nas_core.search.loop import Observer, Search

log = logging.getLogger(__name__)


class Progress(Observer):
    """Logs a line for each record, and estimates the time left from what this process trained."""

    def __init__(self, logger: Logger = log) -> None:
        self.logger = logger

    def on_begin(self, search: Search) -> None:
        done = search.journal.candidates
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

    def line(self, record: Record) -> str:
        """Take a new record into account and describe it."""
        if record.candidate is None:
            return f"{record.id[:6]} was trained before: reward {_shown(record)} from the journal"
        self.num_done += 1
        self.num_trained += 1
        if record.is_scored and (self.best is None or _reward(record) > _reward(self.best)):
            self.best = record
        best = f"best {_shown(self.best)} ({self.best.id[:6]})" if self.best else "none scored yet"
        what = f"reward {_shown(record)}" if record.is_scored else f"FAILED: {record.reason}"
        early = ", stopped early" if record.status == "stopped early" else ""
        seconds = (time.monotonic() - self.started) / self.num_trained
        left = timedelta(seconds=round(seconds * (self.num_candidates - self.num_done)))
        return (
            f"candidate {record.candidate}/{self.num_candidates} · {record.id[:6]} · {what}{early}"
            f" · {best} · {sum(record.seconds.values()):.0f} s · about {left} left"
        )


def _reward(record: Record) -> float:
    assert record.reward is not None
    return record.reward


def _shown(record: Record) -> str:
    return "none" if record.reward is None else f"{record.reward:.4f}"
