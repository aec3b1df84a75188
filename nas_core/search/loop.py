"""A whole search: sample, train what is new, learn, round by round. It needs no server.

    with Search.open(settings, root) as search:
        candidates = search.run([Progress()])

`examples/search_without_servers.py` is a complete one. How a training reaches a processor is the
part of `workers.Workers`: in processes, on Ray, or in this very process. `Observer`s are told what
happened: `progress.Progress` logs it, tasks/ records it in MLflow. `Steps` are for those who show
what is carried out, as flows/ do with a task of Prefect for each.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections import deque
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from nas_core.base.closing import Closing
from nas_core.base.errors import CandidateError, RunError
from nas_core.base.paths import prepared_folder, searches_folder
from nas_core.config import Settings
from nas_core.data.meta_val import MetaVal
from nas_core.data.prepared import PreparedData
from nas_core.models.compute import Compute
from nas_core.models.encoder import load_encoder_weights
from nas_core.models.state import state_digest
from nas_core.search.candidates import (
    Outcome,
    confirm_candidate,
    keep_files,
    proxy_task,
    score_candidate,
)
from nas_core.search.confirming import ConfirmingRun, confirm_best
from nas_core.search.costs import CandidateCost, Costs, needs_latency, shaped_reward
from nas_core.search.identity import (
    candidate_seed,
    candidate_thresholds,
    open_journal,
    search_folder,
    search_identity,
    why_anew,
)
from nas_core.search.journal import Confirmation, Journal, Record
from nas_core.search.latencies import LATENCY_FILE, with_latencies
from nas_core.search.ranking import Ranked, ranking
from nas_core.search.rounds import Rounds, costs_of
from nas_core.search.start import check_start, start_networks
from nas_core.space.genotype import Genotype
from nas_core.training.proxy import divide
from nas_core.workers.local import Workers
from nas_core.workers.room import candidate_bytes, make_workers

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
        return self.genotype.id[:6]


class Observer:
    """Is told what happens in a search, in the order of the journal. To be overridden."""

    def on_begin(self, search: Search) -> None:
        """Before the first round of this process."""

    def on_warning(self, message: str) -> None:
        """Something is not as it should be, and the search goes on."""

    def on_record(self, record: Record) -> None:
        """A proposal has its record in the journal."""

    def on_round(self, number: int, diagnostics: dict[str, float]) -> None:
        """The strategy has learned from a round."""

    def on_confirmation(self, confirmation: Confirmation) -> None:
        """A further training of one of the best is in the journal."""

    def on_end(self) -> None:
        """All candidates are trained, and the best confirmed."""


class Steps:
    """How the steps of a search are carried out: here at once. To be overridden.

    `train` and `confirm` are called from several threads, in copies of the context of the search's
    thread.
    """

    def sample(self, search: Search, number: int) -> list[tuple[Genotype, CandidateCost]]:
        return search.sample(number)

    def train(self, search: Search, candidate: Candidate) -> Outcome:
        return search.train(candidate)

    def learn(self, search: Search, number: int) -> dict[str, float]:
        return search.learn(number)

    def confirm(self, search: Search, run: ConfirmingRun) -> Outcome:
        return search.confirm(run)

    def rebuild_diagnostics(self, search: Search) -> list[str]:
        return search.rebuild_diagnostics()


class Search(Closing):
    """A search and what it works with. Use as a context manager, or `close`: it holds its folder.

    Attributes:
        folder: of its journal, its strategy and its candidates; named by all that decides what it
            finds, see `identity.search_identity`.
        journal: what became of each proposal; the truth of the search.
        rounds: the strategy, between rounds in memory.
    """

    def __init__(
        self,
        settings: Settings,
        root: Path,
        folder: Path,
        journal: Journal,
        costs: Costs,
        workers: Workers,
        start: Sequence[Genotype] = (),
    ) -> None:
        """See `open`."""
        self.settings, self.root, self.folder = settings, root, folder
        self.start = start
        self.journal, self.costs, self.workers = journal, costs, workers
        self.begins_anew: str | None = None
        """A warning, if one with the same settings is there and cannot be gone on with."""

    @classmethod
    def open(cls, settings: Settings, root: Path, workers: Workers | None = None) -> Search:
        """Begin a search, or go on with it.

        Args:
            root: the project's folder, with the dataset prepared in it; see `prepared_folder`.
            workers: what carries out the trainings, and is closed with the search; what the
                settings name if not given.

        Raises:
            NasError: the dataset is not prepared, the encoder's weights, the device or a network
                of search.start_from are not there, one of these is over a limit, or another process
                works on this search.
        """
        compute = Compute.from_settings(settings.compute)
        data = PreparedData.open(prepared_folder(root, settings))
        encoder = state_digest(load_encoder_weights(settings.encoder.weights, root))
        start = start_networks(settings.search, root)
        identity = search_identity(settings, data.search_hash, encoder, compute, start)
        folder = search_folder(searches_folder(root), settings.name, identity)
        if workers is None:
            workers = make_workers(
                settings,
                compute,
                most=settings.search.most_at_a_time,
                num_bytes=candidate_bytes(settings, len(data.split("train"))),
                time_limit=settings.runner.time_limit,
            )
        try:
            costs = Costs(
                folder / LATENCY_FILE,
                settings.network,
                data.num_classes,
                (data.height, data.width),
                compute,
            )
            check_start(start, settings.search, costs)
            begins = not (folder / "journal.jsonl").exists()
            journal = open_journal(folder / "journal.jsonl", settings, identity)
            search = cls(settings, root, folder, journal, costs, workers, start)
            if begins:
                search.begins_anew = why_anew(folder, settings.name, identity)
            return search
        except BaseException:
            workers.close()
            raise

    def close(self) -> None:
        """End the workers, and let go of the folder."""
        self.workers.close()
        self.journal.close()

    @cached_property
    def rounds(self) -> Rounds:
        settings = self.settings
        rounds = Rounds(self.folder, settings.search, settings.seed, self.costs, self.start)
        rounds.check_recorded(self.journal.records)
        return rounds

    @property
    def meta_val(self) -> MetaVal:
        """The training images that score the candidates."""
        data = PreparedData.open(prepared_folder(self.root, self.settings))
        return divide(data, self.settings.search.proxy, self.settings.search.meta_val)

    @property
    def candidates(self) -> list[Record]:
        """The first `search.num_candidates` networks that were trained."""
        return self.journal.candidates[: self.settings.search.num_candidates]

    @property
    def ranked(self) -> list[Ranked]:
        """These, the best first, by the mean of their rewards where they are confirmed."""
        return ranking(self.candidates, self.journal.confirmations)

    def run(self, observers: Sequence[Observer] = (), steps: Steps | None = None) -> list[Record]:
        """Go on until `search.num_candidates` networks are trained and the best of them confirmed.

        After an interruption, another that is opened goes on from the last line of the journal.

        Returns:
            The candidates, in the order of their training; see `ranked`.

        Raises:
            RunError: too many candidates failed in a row, nothing new is proposed any more, or the
                disk is full.
        """
        steps = steps or Steps()
        with self.workers.waiting_room() as threads:
            loop = _Loop(self, observers, steps, threads)
            try:
                loop.run()
                confirm_best(self, observers, steps, threads)
            except BaseException:
                # Else the threads would wait for what is in training.
                self.workers.close()
                raise
        for observer in observers:
            observer.on_end()
        return self.candidates

    def of_round(self, number: int) -> list[Record]:
        return [record for record in self.journal.records if record.round == number]

    def sample(self, number: int) -> list[tuple[Genotype, CandidateCost]]:
        """What the strategy proposes in a round, within the limits, and what each costs.

        With its latency only where the search depends on that: then nothing may be in training.
        """
        latency = needs_latency(self.settings.search)
        return [
            (proposal.genotype, self.costs.of(proposal.genotype, latency=latency))
            for proposal in self.rounds.propose(number)
        ]

    def train(self, candidate: Candidate) -> Outcome:
        """Train a candidate on the proxy task in a worker, and keep its files.

        Raises:
            NasError: see `score_candidate` and `Workers.call`.
        """
        shared = self.workers.share(proxy_task, self.settings, self.root)
        outcome, files = self.workers.call(
            score_candidate, shared, self.settings, candidate.genotype, candidate.thresholds
        )
        keep_files(self.folder, candidate.genotype.id, files)
        return outcome

    def confirm(self, run: ConfirmingRun) -> Outcome:
        """Train a candidate again, with another seed and to its end.

        Raises:
            NasError: see `train_candidate` and `Workers.call`.
        """
        shared = self.workers.share(proxy_task, self.settings, self.root)
        return self.workers.call(confirm_candidate, shared, self.settings, run.genotype, run.seed)

    def learn(self, number: int) -> dict[str, float]:
        """Teach the strategy the rewards of the current round; returns its diagnostics."""
        records = self.of_round(number)
        return self.rounds.learn(
            [record.reward for record in records],
            [costs_of(record, self.settings.search) for record in records],
        )

    def rebuild_diagnostics(self) -> list[str]:
        """Make the diagnostics of the rounds again, where they are lost; returns warnings."""
        rounds = self.rounds
        warnings = [
            f"{rounds.path} lacked rounds that the search has learned from: it is made again"
        ]
        num_rebuilt = rounds.rebuild_diagnostics(self.journal.records)
        if num_rebuilt < rounds.current:
            warnings.append(
                f"{rounds.path}: after round {num_rebuilt} of {rounds.current} this machine "
                "proposes otherwise than the search did; the rounds from there on stay without "
                "diagnostics, which changes no result"
            )
        return warnings

    def measure_latencies(self) -> list[Record]:
        """The candidates, those that finished with their latency; nothing may be in training.

        What is known is not measured again, so that an interruption loses none.

        Raises:
            RunError: the disk is full.
        """
        finished = [record for record in self.candidates if record.status == "finished"]
        latencies = {
            record.id: self.costs.latency(Genotype.from_dict(record.genotype))
            for record in finished
        }
        return with_latencies(self.candidates, latencies)


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


class _Loop:
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
        _check_failures(self.journal, self.settings.max_failures)

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
