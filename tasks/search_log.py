"""A search's record in MLflow, written while it goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nas_core.base.errors import ServiceError, UnavailableError
from nas_core.base.files import write_bytes
from nas_core.base.logs import Logger
from nas_core.search.candidate_files import Losses, candidate_files, drawing_file
from nas_core.search.candidates import damaged_files
from nas_core.search.journal import Confirmation, Record
from nas_core.search.loop import Observer, Search
from nas_core.search.ranking import ranking
from nas_core.space.genotype import Genotype
from tasks.tracking.store import patiently
from tasks.tracking.tracker import LATENCY, SEEDS, CandidateEntry, Tracker

# Metrics of the parent run that count what is recorded completely: a search that goes on records
# the rest.
NUM_CANDIDATES, NUM_ROUNDS = "progress/candidates", "progress/rounds"
# MLflow's page shows a group of charts for what stands before the slash, by the alphabet.
STRATEGY = "strategy/"
SECONDS_BETWEEN_TRIES = 30.0


class SearchLog(Observer):
    """The parent run of a search and the runs of its candidates.

    All that is recorded comes from the search's folder. So MLflow may be away for a while, or the
    search be interrupted anywhere: `update` records what is missing.
    """

    def __init__(
        self,
        tracker: Tracker,
        search: Search,
        logger: Logger,
        draw: Callable[[Genotype], bytes],
    ) -> None:
        """Begin the parent run, or go on with it; record what is missing there.

        Args:
            draw: an architecture as the content of an SVG file.

        Raises:
            ServiceError: MLflow does not answer.
        """
        self.tracker, self.search, self.logger = tracker, search, logger
        self.folder, self.journal = search.folder, search.journal
        self._draw = draw
        params = flatten(search.settings.model_dump(mode="json", exclude={"train", "tracking"}))
        self.run_id = tracker.start_search(self.folder.name, self.folder.name, params)
        recorded = tracker.latest_metrics(self.run_id)
        self._num_candidates = int(recorded.get(NUM_CANDIDATES, 0))
        self._num_rounds = int(recorded.get(NUM_ROUNDS, 0))
        known = (record.reward for record in self.journal.candidates[: self._num_candidates])
        self._best = max((reward for reward in known if reward is not None), default=-math.inf)
        self._try_after = -math.inf
        self._told_of: set[Path] = set()
        # Of those up to this number, MLflow may have a part.
        self._num_tried = len(self.journal.candidates)
        self._record_missing()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ends the parent run: finished, or killed if the search did not come to its end.

        Raises:
            ServiceError: the search is at its end, and MLflow does not come back.
        """
        try:
            yield
        except BaseException:
            with suppress(ServiceError):
                self.tracker.finish(self.run_id, "KILLED")
            raise
        patiently(self._record_missing, self.logger)
        patiently(lambda: self.tracker.finish(self.run_id), self.logger)

    def on_record(self, record: Record) -> None:
        self.update()

    def on_round(self, number: int, diagnostics: dict[str, float]) -> None:
        self.update()

    def update(self) -> None:
        """Record what the journal has and MLflow lacks, or leave it for later if MLflow is away.

        Raises:
            ServiceError: MLflow answers and refuses.
        """
        if time.monotonic() < self._try_after:
            return
        try:
            self._record_missing()
        except UnavailableError as error:
            self._try_after = time.monotonic() + SECONDS_BETWEEN_TRIES
            self.logger.warning("%s; the search goes on and records it later", error)

    def _record_missing(self) -> None:
        for record in self.journal.candidates[self._num_candidates :]:
            self._record_candidate(record)
            self._num_candidates += 1
        while (number := self._num_rounds) in self.search.rounds.diagnostics:
            diagnostics = self.search.rounds.diagnostics[number]
            named = {STRATEGY + name: value for name, value in diagnostics.items()}
            self.tracker.log_progress(self.run_id, number, {**named, NUM_ROUNDS: number + 1})
            self._num_rounds = number + 1

    def _record_candidate(self, record: Record) -> None:
        assert record.candidate is not None
        new = record.candidate > self._num_tried
        self._num_tried = max(self._num_tried, record.candidate)
        genotype = Genotype.from_dict(record.genotype)
        files = self._whole_files(record) if record.is_scored else {}
        drawing = drawing_file(self.folder, record.id)
        write_bytes(drawing, self._draw(genotype))
        # Of one that failed, or whose weights are lost, the time is not known.
        ended = files.get("weights", self.journal.path)
        finished = ended.stat().st_mtime
        curves = {}
        if "losses" in files:
            losses = Losses.read(files["losses"]).root
            curves = {f"loss_{stage}": values for stage, values in losses.items()}
        if record.is_scored:
            curves["validation_reward"] = list(record.scores)
        self.tracker.log_candidate(
            self.run_id,
            CandidateEntry(
                number=record.candidate,
                genotype=genotype,
                num_parameters=record.num_parameters,
                macs=record.macs,
                seed=record.seed,
                started=finished - sum(record.seconds.values()),
                finished=finished,
                metrics=_metrics(record),
                curves=curves,
                seconds=record.seconds,
                status=record.status,
                drawing=drawing,
                files=[*files.values()],
                failure=record.reason,
            ),
            new=new,
        )
        progress: dict[str, float] = {NUM_CANDIDATES: record.candidate}
        if record.reward is not None:
            self._best = max(self._best, record.reward)
            progress |= {"progress/reward": record.reward, "progress/best_reward": self._best}
        self.tracker.log_progress(self.run_id, record.candidate, progress)

    def _whole_files(self, record: Record) -> dict[str, Path]:
        """The candidate's files, by name; of what is missing or damaged it is said once."""
        files = candidate_files(self.folder, record.id)
        for name in damaged_files(self.folder, record.id):
            path = files.pop(name)
            if path not in self._told_of:
                self._told_of.add(path)
                self.logger.warning(
                    "%s is missing or damaged: MLflow gets candidate %d without it; restore it "
                    "from a copy before the search goes on, or train %s with `nas train`",
                    path,
                    record.candidate,
                    record.id,
                )
        return files


def _metrics(record: Record) -> dict[str, float]:
    """Scores and cost; `reward` is what the strategy learned from, cost included."""
    known = {"reward": record.reward, "quality": record.quality, LATENCY: record.latency_ms}
    return record.metrics | {name: value for name, value in known.items() if value is not None}


def final_metrics(
    candidates: Sequence[Record], confirmations: Sequence[Confirmation]
) -> dict[int, dict[str, float]]:
    """What a candidate's run gets at the end of the search, by its number.

    That is its latency and, where it is confirmed, the means that are in the place of its first
    scores from then on, with `reward_error` and `seeds`.
    """
    found: dict[int, dict[str, float]] = {}
    for one in ranking(candidates, confirmations):
        values = {LATENCY: one.record.latency_ms}
        if one.is_confirmed:
            names = dict.fromkeys(name for run in one.runs for name in run.metrics)
            values |= {name: one.metric(name) for name in names}
            values |= {"reward": one.reward, "quality": one.quality}
            values |= {"reward_error": one.reward_error, SEEDS: float(len(one.runs))}
        if one.record.candidate is not None:
            known = {name: value for name, value in values.items() if value is not None}
            found[one.record.candidate] = known
    return found


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
