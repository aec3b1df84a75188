"""The end of a search: its best are trained again with other seeds, see `racing`.

What is trained stands in the journal, in the order of the race, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextvars import copy_context
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from nas_core.base.errors import CandidateError
from nas_core.base.seeds import derive_seed
from nas_core.config import Settings
from nas_core.search.candidates import Outcome
from nas_core.search.journal import Confirmation, Record
from nas_core.search.racing import Race
from nas_core.search.rewards import CandidateCost, shaped_reward
from nas_core.search.scheduling import check_failures
from nas_core.space.architectures import short_name
from nas_core.space.genotype import Genotype

if TYPE_CHECKING:
    from nas_core.search.loop import Observer, Search, Steps

# Of all candidates: in a short search, more candidates do more than a larger race (docs/search.md).
MOST_ENTRANTS = 0.25


@dataclass(frozen=True)
class ConfirmingRun:
    """A further training of a candidate."""

    record: Record
    number: int
    """Of its seed, from 1."""
    seed: int

    @property
    def genotype(self) -> Genotype:
        return Genotype.from_dict(self.record.genotype)

    @property
    def short_id(self) -> str:
        return short_name(self.record.id)


def race_of(settings: Settings) -> Race:
    """The race at the end of a search; the best by it are those that are trained fully."""
    search = settings.search
    entrants = min(search.confirm.candidates, int(MOST_ENTRANTS * search.num_candidates))
    return Race(
        candidates=entrants,
        max_seeds=search.confirm.max_seeds,
        top=max(1, settings.train.top),
    )


def confirm_best(
    search: Search, observers: Sequence[Observer], steps: Steps, threads: Executor
) -> None:
    """Carry out the race of a search that has all its candidates, from wherever it stands.

    Raises:
        RunError: too many trainings failed in a row, or the disk is full.
    """
    race, journal = race_of(search.settings), search.journal
    while runs := race.open_runs(search.candidates, journal.confirmations):
        confirming = [
            # One seed for all: they get the same batches and crops, and differ the less by luck.
            ConfirmingRun(record, number, derive_seed(search.settings.seed, "confirm", number))
            for record, number in runs
        ]
        for run, future in _ended(search, confirming, steps, threads):
            confirmation = _confirmation(search, run, future)
            journal.append(confirmation)
            for observer in observers:
                observer.on_confirmation(confirmation)
            check_failures(
                journal.confirmations,
                search.settings.search.max_failures,
                "trainings that were to confirm the best",
                "turn it off by search.confirm.candidates=0",
            )


def _ended(
    search: Search, runs: Sequence[ConfirmingRun], steps: Steps, threads: Executor
) -> Iterator[tuple[ConfirmingRun, Future[Outcome]]]:
    """Each run in order, once it is at its end. No more are begun than workers are free."""
    waiting, begun = iter(runs), list[Future[Outcome]]()
    for number, run in enumerate(runs):
        while True:
            training = [future for future in begun if not future.done()]
            for new in islice(waiting, search.workers.num - len(training)):
                begun.append(threads.submit(copy_context().run, steps.confirm, search, new))
            if begun[number].done():
                break
            wait([future for future in begun if not future.done()], return_when=FIRST_COMPLETED)
        yield run, begun[number]


def _confirmation(search: Search, run: ConfirmingRun, future: Future[Outcome]) -> Confirmation:
    record = run.record
    try:
        outcome = future.result()
    except CandidateError as error:
        return Confirmation(
            confirms=record.id, run=run.number, status="failed", seed=run.seed, reason=str(error)
        )
    cost = CandidateCost(record.num_parameters, record.macs, record.latency_ms)
    return Confirmation(
        confirms=record.id,
        run=run.number,
        status="finished",
        reward=shaped_reward(outcome.scores[-1], cost, search.settings.search.reward),
        scores=outcome.scores,
        metrics=outcome.metrics,
        seed=run.seed,
        seconds=outcome.seconds,
    )
