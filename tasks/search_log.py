"""A search's record in MLflow, written while it goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas_core.config import Settings
from nas_core.genotype import Genotype
from nas_core.search.journal import Journal, Record
from nas_core.training.record import read_object
from tasks.candidates import candidate_files
from tasks.tracking.tracker import CandidateEntry, Tracker


class SearchLog:
    """The parent run of a search and the runs of its candidates."""

    def __init__(
        self, tracker: Tracker, folder: Path, journal: Journal, settings: Settings
    ) -> None:
        """Begin the parent run, or go on with it; record what only the journal has."""
        self.tracker, self.folder, self.journal = tracker, folder, journal
        params = flatten(settings.model_dump(mode="json", exclude={"train", "tracking"}))
        self.run_id = tracker.start_search(folder.name, folder.name, params)
        self._best_reward = -math.inf
        recorded = tracker.logged_candidates(self.run_id)
        for record in journal.candidates:
            if record.candidate not in recorded:
                self.candidate(record)
            elif record.reward is not None:
                self._best_reward = max(self._best_reward, record.reward)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ends the parent run: finished, or killed if the search did not come to its end."""
        try:
            yield
        except BaseException:
            self.tracker.finish(self.run_id, "KILLED")
            raise
        self.tracker.finish(self.run_id)

    def candidate(self, record: Record) -> None:
        """Record the next candidate; one answered from the journal has its run already."""
        if record.candidate is None:
            return
        files = candidate_files(self.folder, record.id)
        finished = files["weights"].stat().st_mtime if record.is_scored else self._failed_at()
        curves = {}
        if record.is_scored:
            losses = read_object(files["losses"])
            curves = {f"loss_{stage}": values for stage, values in losses.items()}
            curves["validation_reward"] = list(record.scores)
        self.tracker.log_candidate(
            self.run_id,
            CandidateEntry(
                number=record.candidate,
                genotype=Genotype.from_dict(record.genotype),
                num_parameters=record.num_parameters,
                macs=record.macs,
                seed=record.seed,
                started=finished - sum(record.seconds.values()),
                finished=finished,
                metrics=_metrics(record),
                curves=curves,
                seconds=record.seconds,
                stopped_early=record.status == "stopped early",
                files=list(files.values()) if record.is_scored else [],
                failure=record.reason,
            ),
        )
        if record.reward is not None:
            self._best_reward = max(self._best_reward, record.reward)
            self.tracker.log_progress(
                self.run_id,
                record.candidate,
                {"candidate_reward": record.reward, "best_reward": self._best_reward},
            )

    def round(self, number: int, diagnostics: Mapping[str, float]) -> None:
        """Record the strategy's diagnostics after round `number`."""
        self.tracker.log_progress(self.run_id, number, diagnostics)

    def _failed_at(self) -> float:
        return self.journal.path.stat().st_mtime


def _metrics(record: Record) -> dict[str, float]:
    """Scores and cost; `reward` is what the strategy learned from, cost included."""
    known = {"reward": record.reward, "quality": record.quality, "latency_ms": record.latency_ms}
    return record.metrics | {name: value for name, value in known.items() if value is not None}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
