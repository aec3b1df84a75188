"""The rounds of a search: sample, train what is new, learn; the journal is the truth of them."""

from __future__ import annotations

import concurrent.futures
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.futures import PrefectConcurrentFuture, PrefectFuture

from flows.context import Context
from flows.progress import Progress
from nas_core.errors import CandidateError, RunError
from nas_core.genotype import Genotype
from nas_core.search import run
from nas_core.search.costs import CandidateCost, needs_latency, shaped_reward
from nas_core.search.journal import Journal, Record
from nas_core.workers import Workers
from tasks.candidates import aggregate_rewards, sample_candidates, train_on_proxy
from tasks.search_log import SearchLog

# A strategy that has converged proposes what is known; it gets this many rounds to find more.
MAX_ROUNDS_WITHOUT_NEW = 25


@dataclass
class _Pending:
    """A proposal that the journal lacks."""

    genotype: Genotype
    cost: CandidateCost
    round: int
    number: int | None
    """Of the candidate; None if its network was trained before, or is in training."""
    training: PrefectFuture[dict[str, Any]] | None = None
    """None until a worker is free."""
    started: float = 0.0

    @property
    def is_training(self) -> bool:
        return self.training is not None and not _done(self.training)


class Rounds:
    """Carries out round by round.

    The rounds that may be proposed are trained by as many workers as there are, and enter the
    journal in the order of the proposals. What a candidate may know of earlier ones depends on
    its round alone: so neither the number of the workers nor how long any of them took makes a
    difference to a search.
    """

    def __init__(
        self,
        context: Context,
        folder: Path,
        journal: Journal,
        log: SearchLog,
        workers: Workers,
    ) -> None:
        self.context, self.folder, self.journal = context, folder, journal
        self.log, self.workers = log, workers
        self.search = context.settings.search
        self.progress = Progress(self.search.num_candidates, journal.candidates)
        self.pending: deque[_Pending] = deque()
        self.planned_rounds = 0

    def run_next(self) -> bool:
        """Run the oldest open round to its end; False when the search is complete.

        Raises:
            RunError: too many candidates failed in a row, nothing new is proposed any more, or the
                disk is full.
        """
        number = run.current_round(self.folder)
        if len(self.journal.candidates) < self.search.num_candidates:
            _check_novelty(self.journal, number)
        last = number + self.search.rounds_ahead
        for ahead in range(max(self.planned_rounds, number), last + 1):
            self._plan(ahead)
        while self.pending and self.pending[0].round == number:
            self._settle_oldest()
        # Of a search that was killed after its last candidate, the last round may be full and not
        # learned from.
        rewards = [record.reward for record in self._of_round(number)]
        if len(rewards) < self.search.batch_size:
            return False
        self._quieten()
        aggregate_rewards(self.folder, self.context.settings, self.context.root, number, rewards)
        self.log.update()
        return True

    def _of_round(self, number: int) -> list[Record]:
        return [record for record in self.journal.records if record.round == number]

    def _plan(self, number: int) -> None:
        """Take up what the journal lacks of a round, up to the search's last candidate."""
        self.planned_rounds = number + 1
        if self._num_planned() >= self.search.num_candidates:
            return
        self._quieten()
        context = self.context
        proposals = sample_candidates(self.folder, context.settings, context.root, number)
        known = {record.id for record in self.journal.candidates}
        known |= {one.genotype.id for one in self.pending}
        for genotype, cost in proposals[len(self._of_round(number)) :]:
            if self._num_planned() >= self.search.num_candidates:
                break
            new = None if genotype.id in known else self._num_planned() + 1
            known.add(genotype.id)
            self.pending.append(_Pending(genotype, cost, number, new))

    def _quieten(self) -> None:
        """Wait until nothing is in training, if latencies may be measured next."""
        if needs_latency(self.search):
            concurrent.futures.wait(_in_training(self.pending))

    def _num_planned(self) -> int:
        return len(self.journal.candidates) + sum(one.number is not None for one in self.pending)

    def _keep_workers_busy(self) -> None:
        """Begin with what waits, in order, as far as workers are free."""
        free = self.workers.num - sum(one.is_training for one in self.pending)
        waiting = (one for one in self.pending if one.number is not None and one.training is None)
        for one in islice(waiting, max(0, free)):
            assert one.number is not None
            settings = self.context.settings
            known = one.round - self.search.rounds_ahead
            earlier = [record for record in self.journal.candidates if record.round < known]
            one.started = time.perf_counter()
            one.training = train_on_proxy.submit(
                self.workers,
                self.folder,
                settings,
                self.context.root,
                one.genotype.to_dict(),
                one.number,
                one.genotype.id[:6],
                run.candidate_thresholds(self.search, settings.seed, one.number, earlier),
            )

    def _settle_oldest(self) -> None:
        """Wait for the oldest pending proposal and enter what became of it into the journal."""
        self._keep_workers_busy()
        oldest = self.pending[0]
        while oldest.is_training:
            futures = _in_training(self.pending)
            concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED)
            self._keep_workers_busy()
        record = self._record(oldest)
        self.pending.popleft()
        self.journal.append(record)
        self.log.update()
        get_run_logger().info(self.progress.line(record))
        _check_failures(self.journal, self.search.max_failures)

    def _record(self, pending: _Pending) -> Record:
        genotype, cost = pending.genotype, pending.cost
        common: dict[str, Any] = {
            "index": len(self.journal.records),
            "round": pending.round,
            "id": genotype.id,
            "genotype": genotype.to_dict(),
            "seed": run.candidate_seed(self.context.settings.seed, genotype.id),
            **cost.to_dict(),
        }
        if pending.training is None:
            candidates = self.journal.candidates
            earlier = next(record for record in candidates if record.id == genotype.id)
            return Record(**common, candidate=None, status="repeat", reward=earlier.reward)
        common["candidate"] = pending.number
        try:
            outcome = pending.training.result()
        except CandidateError as error:
            seconds = {"until_failure": time.perf_counter() - pending.started}
            return Record(**common, status="failed", seconds=seconds, reason=str(error))
        return Record(
            **common,
            status="stopped early" if outcome["stopped_early"] else "finished",
            reward=shaped_reward(outcome["scores"][-1], cost, self.search.reward),
            scores=tuple(outcome["scores"]),
            metrics=outcome["metrics"],
            seconds=outcome["seconds"],
        )


def _done(training: PrefectFuture[dict[str, Any]]) -> bool:
    # Its state would be asked of the server.
    assert isinstance(training, PrefectConcurrentFuture)
    return training.wrapped_future.done()


def _in_training(pending: Iterable[_Pending]) -> list[concurrent.futures.Future[Any]]:
    return [
        one.training.wrapped_future
        for one in pending
        if one.is_training and isinstance(one.training, PrefectConcurrentFuture)
    ]


def _check_failures(journal: Journal, most: int) -> None:
    last = journal.candidates[-most:]
    if len(last) == most and all(record.status == "failed" for record in last):
        raise RunError(
            f"the last {most} candidates failed, the latest with: {last[-1].reason}. Mend the "
            f"cause and run the same command, or raise search.max_failures"
        )


def _check_novelty(journal: Journal, number: int) -> None:
    latest = [r for r in journal.records if r.round >= number - MAX_ROUNDS_WITHOUT_NEW]
    if number >= MAX_ROUNDS_WITHOUT_NEW and all(r.status == "repeat" for r in latest):
        raise RunError(
            f"{len(journal.candidates)} candidates are trained, and the strategy proposed nothing "
            f"new in {MAX_ROUNDS_WITHOUT_NEW} rounds: lower search.num_candidates to "
            f"{len(journal.candidates)} to accept that"
        )
