"""A whole search: sample, train what is new, learn, round by round. It needs no server.

    with Search.open(settings, root) as search:
        candidates = search.run([Progress()])

`examples/search_without_servers.py` is a complete one. How a training reaches a processor is the
part of `workers.Workers`: in processes, on Ray, or in this very process. `Observer`s are told what
happened: `progress.Progress` logs it, tasks/ records it in MLflow. `Steps` are for those who show
what is carried out, as flows/ do with a task of Prefect for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from nas_core.base.closing import Closing
from nas_core.base.paths import prepared_folder, searches_folder
from nas_core.config import Settings
from nas_core.data.meta_val import MetaVal
from nas_core.data.prepared import PreparedData
from nas_core.models.compute import Compute
from nas_core.models.encoder import encoder_weights
from nas_core.models.state import state_digest
from nas_core.search.candidates import (
    Outcome,
    confirm_candidate,
    keep_files,
    proxy_task,
    score_candidate,
)
from nas_core.search.confirming import ConfirmingRun, confirm_best, race_of
from nas_core.search.costs import Costs, needs_latency
from nas_core.search.identity import (
    open_journal,
    search_folder,
    search_identity,
    why_anew,
)
from nas_core.search.journal import Confirmation, Journal, Record
from nas_core.search.latencies import LATENCY_FILE, with_latencies
from nas_core.search.measuring import check_latency
from nas_core.search.ranking import Ranked, ranking
from nas_core.search.rewards import CandidateCost
from nas_core.search.rounds import Rounds, costs_of
from nas_core.search.scheduling import Candidate, Schedule
from nas_core.search.start import check_start, start_networks
from nas_core.space.genotype import Genotype
from nas_core.training.proxy_task import divide
from nas_core.workers.local import Workers
from nas_core.workers.room import candidate_bytes, make_workers


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
            NasError: the dataset is not prepared, the encoder's weights, the device, the program of
                search.latency.command or a network of search.start_from are not there, one of these
                is over a limit, or another process works on this search.
        """
        compute = Compute.from_settings(settings.compute)
        check_latency(settings.search.latency, root)
        data = PreparedData.open(prepared_folder(root, settings))
        encoder = state_digest(encoder_weights(settings, root))
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
                settings.search.latency,
                root,
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
            schedule = Schedule(self, observers, steps, threads)
            try:
                schedule.run()
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
        """The candidates, the best with their latency; nothing may be in training.

        The best are those that the race confirms and that are trained fully: measuring all would
        take as long as some of their trainings. What is known is not measured again, so that an
        interruption loses none.

        Raises:
            RunError: see `Costs.latency`.
        """
        race = race_of(self.settings)
        best = [one.record for one in self.ranked if one.record.status == "finished"]
        latencies = {
            record.id: self.costs.latency(Genotype.from_dict(record.genotype))
            for record in best[: max(race.candidates, race.top)]
            if record.latency_ms is None
        }
        return with_latencies(self.candidates, latencies)
