"""How far a search is, as an artifact of its flow run."""

from __future__ import annotations

import time
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from nas_core.base.errors import first_line
from nas_core.base.logs import Logger
from nas_core.search.journal import Record
from nas_core.search.loop import Observer, Search

SECONDS_BETWEEN_TRIES = 30.0


class ProgressBar(Observer):
    """The share of the candidates that are trained, and the best so far.

    Where Prefect's server is away, the search goes on, and the next candidate brings it up to date.
    """

    def __init__(self, logger: Logger) -> None:
        self.logger = logger
        self._artifact: UUID | None = None
        self._best: Record | None = None
        self._try_after = 0.0
        self._told = False

    def on_begin(self, search: Search) -> None:
        self.search = search
        for record in search.journal.candidates:
            self._take(record)
        self._show()

    def on_record(self, record: Record) -> None:
        self._take(record)
        self._show()

    def on_end(self) -> None:
        self._try_after = 0.0
        self._show()

    def _take(self, record: Record) -> None:
        if record.reward is not None and (
            self._best is None or record.reward > (self._best.reward or 0.0)
        ):
            self._best = record

    def _show(self) -> None:
        if time.monotonic() < self._try_after:
            return
        done = len(self.search.journal.candidates)
        planned = self.search.settings.search.num_candidates
        share = min(100.0, 100 * done / planned)
        words = f"{self.search.folder.name}: {done} of {planned} candidates"
        if self._best:
            words += f"; best reward {self._best.reward:.4f} ({self._best.id[:6]})"
        try:
            if self._artifact is None:
                key = f"progress-{self.search.folder.name.replace('_', '-')}"
                created = create_progress_artifact(share, key, description=words)
                self._artifact = cast(UUID, created)  # in a flow that is not async
            else:
                update_progress_artifact(self._artifact, share, words)
        except httpx.HTTPError as error:
            self._try_after = time.monotonic() + SECONDS_BETWEEN_TRIES
            if not self._told:
                self.logger.warning("Prefect shows no progress: %s", first_line(error))
                self._told = True
