"""The rounds of a search: sample, train what is new, learn; the journal is the truth of them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.futures import PrefectFuture

from flows.context import Context
from flows.progress import Progress
from nas_core.errors import CandidateError, RunError
from nas_core.genotype import Genotype
from nas_core.search import run
from nas_core.search.costs import CandidateCost, shaped_reward
from nas_core.search.journal import Journal, Record
from nas_core.workers import Workers
from tasks.candidates import aggregate_rewards, sample_candidates, train_on_proxy
from tasks.search_log import SearchLog

# A strategy that has converged proposes what is known; it gets this many rounds to find more.
MAX_ROUNDS_WITHOUT_NEW = 25


@dataclass(frozen=True)
class _Pending:
    """A proposal that the journal lacks; `training` is None if its network was trained before."""

    genotype: Genotype
    cost: CandidateCost
    training: PrefectFuture[dict[str, Any]] | None
    started: float


class Rounds:
    """Carries out round by round.

    With n workers, n candidates train at a time. They enter the journal in the order of the
    proposals, and the next begins when the oldest has entered: so what each candidate may know of
    earlier ones does not depend on how long any of them took.
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

    def run_next(self) -> bool:
        """Run one round, or what is left of it; False when the search is complete.

        Raises:
            RunError: too many candidates failed in a row, nothing new is proposed any more, or the
                disk is full.
        """
        if len(self.journal.candidates) >= self.search.num_candidates:
            return False
        settings, root = self.context.settings, self.context.root
        number = run.current_round(self.folder)
        _check_novelty(self.journal, number)
        proposals = sample_candidates(self.folder, settings, root, number)
        num_known = len(self._of_round(number))
        for genotype, cost in proposals[num_known:]:
            while self._must_wait_for(genotype):
                self._settle_oldest(number)
            if self._num_begun() >= self.search.num_candidates:
                break
            self.pending.append(self._begin(genotype, cost))
        while self.pending:
            self._settle_oldest(number)
        known = self._of_round(number)
        if len(known) < len(proposals):
            return False
        rewards = [record.reward for record in known]
        aggregate_rewards(self.folder, settings, root, number, rewards)
        self.log.update()
        return True

    def _of_round(self, number: int) -> list[Record]:
        return [record for record in self.journal.records if record.round == number]

    def _must_wait_for(self, genotype: Genotype) -> bool:
        """Whether all workers have work, or one trains this very network."""
        same = any(one.genotype.id == genotype.id for one in self.pending)
        return len(self.pending) >= self.workers.num or same

    def _num_begun(self) -> int:
        training = sum(one.training is not None for one in self.pending)
        return len(self.journal.candidates) + training

    def _begin(self, genotype: Genotype, cost: CandidateCost) -> _Pending:
        """Train a candidate, unless the journal has its network."""
        settings = self.context.settings
        training = None
        if not any(record.id == genotype.id for record in self.journal.candidates):
            number = self._num_begun() + 1
            training = train_on_proxy.submit(
                self.workers,
                self.folder,
                settings,
                self.context.root,
                genotype.to_dict(),
                number,
                genotype.id[:6],
                run.candidate_thresholds(
                    self.search, settings.seed, number, self.journal.candidates
                ),
            )
        return _Pending(genotype, cost, training, time.perf_counter())

    def _settle_oldest(self, number: int) -> None:
        """Wait for the oldest pending proposal and enter what became of it into the journal."""
        record = self._record(self.pending[0], number)
        self.pending.popleft()
        self.journal.append(record)
        self.log.update()
        get_run_logger().info(self.progress.line(record))
        _check_failures(self.journal, self.search.max_failures)

    def _record(self, pending: _Pending, number: int) -> Record:
        genotype, cost = pending.genotype, pending.cost
        common: dict[str, Any] = {
            "index": len(self.journal.records),
            "round": number,
            "id": genotype.id,
            "genotype": genotype.to_dict(),
            "seed": run.candidate_seed(self.context.settings.seed, genotype.id),
            **cost.to_dict(),
        }
        candidates = self.journal.candidates
        if pending.training is None:
            earlier = next(record for record in candidates if record.id == genotype.id)
            return Record(**common, candidate=None, status="repeat", reward=earlier.reward)
        common["candidate"] = len(candidates) + 1
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
