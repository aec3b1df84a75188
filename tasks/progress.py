"""How far a flow run is, as progress artifacts: Prefect's pages and `nas run` show them as bars."""

from __future__ import annotations

import time
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from nas_core.base.errors import first_line
from nas_core.base.logs import Logger
from nas_core.search.journal import Confirmation, Record
from nas_core.search.loop import Observer, Search

SECONDS_BETWEEN_TRIES = 30.0


class ProgressBar:
    """A progress artifact of the run that it is first shown in.

    Where Prefect's server is away, the work goes on, and a later call brings it up to date.

    Args:
        key: lower-case letters, digits and dashes.
    """

    def __init__(self, logger: Logger, key: str) -> None:
        self.logger, self.key = logger, key
        self._artifact: UUID | None = None
        self._try_after = 0.0
        self._told = False

    def show(self, share: float, words: str, *, last: bool = False) -> None:
        """
        Args:
            share: 0 to 1.
            last: it is tried even where the server was away a moment ago.
        """
        if time.monotonic() < self._try_after and not last:
            return
        try:
            if self._artifact is None:
                created = create_progress_artifact(100 * share, self.key, description=words)
                self._artifact = cast(UUID, created)  # in a flow that is not async
            else:
                update_progress_artifact(self._artifact, 100 * share, words)
        except httpx.HTTPError as error:
            self._try_after = time.monotonic() + SECONDS_BETWEEN_TRIES
            if not self._told:
                self.logger.warning("Prefect shows no progress: %s", first_line(error))
                self._told = True


class SearchProgress(Observer):
    """The share of the candidates that are trained, and the best so far."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger
        self._best: Record | None = None

    def on_begin(self, search: Search) -> None:
        self.search = search
        key = f"progress-{search.folder.name.replace('_', '-')}"
        self._bar = ProgressBar(self.logger, key)
        for record in search.journal.candidates:
            self._take(record)
        self._show()

    def on_record(self, record: Record) -> None:
        self._take(record)
        self._show()

    def on_confirmation(self, confirmation: Confirmation) -> None:
        self._show()

    def on_end(self) -> None:
        self._show(last=True)

    def _take(self, record: Record) -> None:
        if record.reward is not None and (
            self._best is None or record.reward > (self._best.reward or 0.0)
        ):
            self._best = record

    def _show(self, *, last: bool = False) -> None:
        journal, planned = self.search.journal, self.search.settings.search.num_candidates
        done = len(journal.candidates)
        words = f"{done} of {planned} candidates"
        if self._best:
            words += f"; best reward {self._best.reward:.4f} ({self._best.id[:6]})"
        if journal.confirmations:
            words += f"; {len(journal.confirmations)} trained again"
        self._bar.show(min(1.0, done / planned), words, last=last)


class TrainingProgress:
    """The epochs of a full training.

    Args:
        label: of the architecture.
        identifier: its id.
    """

    def __init__(self, logger: Logger, label: str, identifier: str, epochs: int) -> None:
        self.label, self.epochs = label, epochs
        self._bar = ProgressBar(logger, f"training-{identifier}")
        self._val = ""

    def on_epoch(self, row: dict[str, float]) -> None:
        """Show a row of the training's history."""
        if "val_mean_iou" in row:
            self._val = f"; val mIoU {100 * row['val_mean_iou']:.1f} %"
        done = round(row["epoch"])
        words = f"{self.label}: epoch {done} of {self.epochs}{self._val}"
        self._bar.show(done / self.epochs, words, last=done == self.epochs)
