"""In what order a search samples, trains and learns."""

from __future__ import annotations

import concurrent.futures
import time
from collections import deque
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from nas_core.base.errors import CandidateError, RunError
from nas_core.search.candidates import Outcome
from nas_core.search.costs import needs_latency
from nas_core.search.identity import candidate_seed, candidate_thresholds
from nas_core.search.journal import Confirmation, Journal, Record
from nas_core.search.rewards import CandidateCost, shaped_reward
from nas_core.space.architectures import short_name
from nas_core.space.genotype import Genotype

if TYPE_CHECKING:
    from nas_core.search.loop import Observer, Search, Steps

# A strategy that has converged proposes what is known; it gets this many rounds to find more.
MAX_ROUNDS_WITHOUT_NEW = 25


@dataclass(frozen=True)
class Candidate:
    """A network to train."""

    genotype: Genotype
    number: int
    """Among the trained ones, from 1."""
    thresholds: Sequence[float]
    """Scores below which the training ends early, one for each validation."""

    @property
    def short_id(self) -> str:
        return short_name(self.genotype.id)


@dataclass
class _Pending:
    """A proposal that the journal lacks."""

    genotype: Genotype
    cost: CandidateCost
    round: int
    number: int | None
    """Of the candidate; None if its network was trained before, or is in training."""
    training: concurrent.futures.Future[Outcome] | None = None
    """None until a worker is free."""
    started: float = 0.0

    @property
    def is_training(self) -> bool:
        return self.training is not None and not self.training.done()


class Schedule:
    """Carries out round by round.

    The rounds that may be proposed are trained by as many workers as there are, and enter the
    journal in the order of the proposals. What a candidate may know of earlier ones depends on
    its round alone: so neither the number of the workers nor how long any of them took makes a
    difference to a search.
    """

    def __init__(
        self,
        search: Search,
        observers: Sequence[Observer],
        steps: Steps,
        threads: concurrent.futures.Executor,
    ) -> None:
        self.search, self.observers, self.steps, self.threads = search, observers, steps, threads
        self.settings, self.journal = search.settings.search, search.journal
        self.pending: deque[_Pending] = deque()
        self.num_planned_rounds = 0

    def run(self) -> None:
        warnings = [self.search.begins_anew] if self.search.begins_anew else []
        if self.search.rounds.lack_diagnostics():
            warnings += self.steps.rebuild_diagnostics(self.search)
        for message in warnings:
            for observer in self.observers:
                observer.on_warning(message)
        for observer in self.observers:
            observer.on_begin(self.search)
        while self._run_round(self.search.rounds.current):
            pass

    def _run_round(self, number: int) -> bool:
        """Run the oldest open round to its end; False when the search is complete."""
        if not self._is_full():
            _check_novelty(self.journal, number)
        last = number + self.settings.rounds_ahead
        for ahead in range(max(self.num_planned_rounds, number), last + 1):
            self._plan(ahead)
        while self.pending and self.pending[0].round == number:
            self._settle_oldest()
        # Of a search that was killed after its last candidate, the last round may be full and not
        # learned from.
        if len(self.search.of_round(number)) < self.settings.batch_size:
            return False
        self._quieten()
        diagnostics = self.steps.learn(self.search, number)
        for observer in self.observers:
            observer.on_round(number, diagnostics)
        return True

    def _num_planned(self) -> int:
        return len(self.journal.candidates) + sum(one.number is not None for one in self.pending)

    def _is_full(self) -> bool:
        return self._num_planned() >= self.settings.num_candidates

    def _plan(self, number: int) -> None:
        """Take up what the journal lacks of a round, up to the search's last candidate."""
        self.num_planned_rounds = number + 1
        if self._is_full():
            return
        self._quieten()
        proposals = self.steps.sample(self.search, number)
        known = {record.id for record in self.journal.candidates}
        known |= {one.genotype.id for one in self.pending}
        for genotype, cost in proposals[len(self.search.of_round(number)) :]:
            if self._is_full():
                break
            new = None if genotype.id in known else self._num_planned() + 1
            known.add(genotype.id)
            self.pending.append(_Pending(genotype, cost, number, new))

    def _quieten(self) -> None:
        """Wait until nothing is in training, if latencies may be measured next."""
        if needs_latency(self.settings):
            concurrent.futures.wait(self._in_training())

    def _in_training(self) -> list[concurrent.futures.Future[Outcome]]:
        return [one.training for one in self.pending if one.training and one.is_training]

    def _keep_workers_busy(self) -> None:
        """Begin with what waits, in order, as far as workers are free."""
        num_free = self.search.workers.num - len(self._in_training())
        waiting = (one for one in self.pending if one.number is not None and one.training is None)
        for one in islice(waiting, max(0, num_free)):
            assert one.number is not None
            known = one.round - self.settings.rounds_ahead
            earlier = [record for record in self.journal.candidates if record.round < known]
            seed = self.search.settings.seed
            thresholds = candidate_thresholds(self.settings, seed, one.number, earlier)
            candidate = Candidate(one.genotype, one.number, thresholds)
            one.started = time.perf_counter()
            one.training = self.threads.submit(
                copy_context().run, self.steps.train, self.search, candidate
            )

    def _settle_oldest(self) -> None:
        """Wait for the oldest pending proposal and enter what became of it into the journal."""
        self._keep_workers_busy()
        oldest = self.pending[0]
        while oldest.is_training:
            concurrent.futures.wait(
                self._in_training(), return_when=concurrent.futures.FIRST_COMPLETED
            )
            self._keep_workers_busy()
        record = self._record(oldest)
        self.pending.popleft()
        self.journal.append(record)
        for observer in self.observers:
            observer.on_record(record)
        check_failures(
            self.journal.candidates,
            self.settings.max_failures,
            "candidates",
            "raise search.max_failures",
        )

    def _record(self, pending: _Pending) -> Record:
        genotype, cost = pending.genotype, pending.cost
        record = partial(
            Record,
            index=len(self.journal.records),
            round=pending.round,
            candidate=pending.number,
            id=genotype.id,
            genotype=genotype.to_dict(),
            num_parameters=cost.num_parameters,
            macs=cost.macs,
            latency_ms=cost.latency_ms,
            seed=candidate_seed(self.search.settings.seed, genotype.id),
        )
        if pending.training is None:
            candidates = self.journal.candidates
            earlier = next(one for one in candidates if one.id == genotype.id)
            return record(status="repeat", reward=earlier.reward)
        try:
            outcome = pending.training.result()
        except CandidateError as error:
            seconds = {"until_failure": time.perf_counter() - pending.started}
            return record(status="failed", seconds=seconds, reason=str(error))
        return record(
            status="stopped early" if outcome.stopped_early else "finished",
            reward=shaped_reward(outcome.scores[-1], cost, self.settings.reward),
            scores=outcome.scores,
            metrics=outcome.metrics,
            seconds=outcome.seconds,
        )


def check_failures(
    trainings: Sequence[Record] | Sequence[Confirmation], most: int, what: str, way_out: str
) -> None:
    """See that the last trainings did not all fail.

    Raises:
        RunError: the last `most` did.
    """
    last = trainings[-most:]
    if len(last) == most and all(one.status == "failed" for one in last):
        raise RunError(
            f"the last {most} {what} failed, the latest with: {last[-1].reason}. Mend the cause "
            f"and run the same command, or {way_out}"
        )


def _check_novelty(journal: Journal, number: int) -> None:
    latest = [r for r in journal.records if r.round >= number - MAX_ROUNDS_WITHOUT_NEW]
    if number >= MAX_ROUNDS_WITHOUT_NEW and all(r.status == "repeat" for r in latest):
        raise RunError(
            f"{len(journal.candidates)} candidates are trained, and the strategy proposed nothing "
            f"new in {MAX_ROUNDS_WITHOUT_NEW} rounds: lower search.num_candidates to "
            f"{len(journal.candidates)} to accept that"
        )
