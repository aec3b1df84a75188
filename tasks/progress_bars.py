"""How far a flow run is, as progress artifacts: Prefect's pages and `nas run` show them as bars."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from nas_core.base.errors import first_line
from nas_core.base.logs import Logger
from nas_core.search.journal import Confirmation, Record
from nas_core.search.loop import Observer, Search
from nas_core.space.architectures import short_name

SECONDS_BETWEEN_TRIES = 30.0


class Courier:
    """Brings to Prefect's server what its pages show beside the runs: no work waits for that.

    Where the server is away, what is to be told is dropped, with a warning the first time; a later
    call brings it up to date.

    Args:
        missing: what the pages lack then, as the warning puts it.
    """

    def __init__(self, logger: Logger, missing: str) -> None:
        self._logger, self._missing = logger, missing
        self._try_after = 0.0
        self._warned = False

    def bring(self, request: Callable[[], None], *, last: bool = False) -> None:
        """
        Args:
            last: it is tried even where the server was away a moment ago.
        """
        if time.monotonic() < self._try_after and not last:
            return
        try:
            # Prefect's client would repeat a request for a minute.
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                request()
        except httpx.HTTPError as error:
            self._try_after = time.monotonic() + SECONDS_BETWEEN_TRIES
            if not self._warned:
                self._logger.warning("%s: %s", self._missing, first_line(error))
                self._warned = True


class ProgressBar:
    """A progress artifact of the run that it is first shown in.

    Args:
        key: lower-case letters, digits and dashes.
    """

    def __init__(self, logger: Logger, key: str) -> None:
        self.key = key
        self._courier = Courier(logger, "Prefect shows no progress")
        self._artifact: UUID | None = None

    def show(self, share: float, words: str, *, last: bool = False) -> None:
        """
        Args:
            share: 0 to 1.
            last: see `Courier.bring`.
        """
        self._courier.bring(partial(self._show, 100 * share, words), last=last)

    def _show(self, percent: float, words: str) -> None:
        if self._artifact is None:
            created = create_progress_artifact(percent, self.key, description=words)
            self._artifact = cast(UUID, created)  # in a flow that is not async
        else:
            update_progress_artifact(self._artifact, percent, words)


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
            words += f"; best reward {self._best.reward:.4f} ({short_name(self._best.id)})"
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
