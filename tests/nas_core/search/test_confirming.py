"""The best of a search are trained again: in order, once, and on after an interruption."""

import hashlib
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.load import PARAMS, StandInCosts, stand_in
from nas_core.base.errors import CandidateError, RunError
from nas_core.config import Settings
from nas_core.loading import validate_settings
from nas_core.search import loop
from nas_core.search.about import search_state, write_about
from nas_core.search.candidates import Outcome
from nas_core.search.confirming import ConfirmingRun, race_of
from nas_core.search.journal import Confirmation, Journal
from nas_core.search.loop import Observer, Search, Steps
from nas_core.search.progress import Progress
from nas_core.search.ranking import ranking
from nas_core.search.scheduling import Candidate
from nas_core.workers.local import InProcessWorkers, ProcessWorkers


def settings_of(**search: Any) -> Settings:
    changes = {
        "strategy": "random",
        "batch_size": 2, "num_candidates": 16, "early_stopping": {"enabled": False},
        "confirm": {"candidates": 4, "max_seeds": 3}, **search,
    }  # fmt: skip
    return validate_settings(
        {**PARAMS, "search": {**PARAMS["search"], **changes}, "train": {"top": 2}}, "test"
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "score_candidate", stand_in)
    monkeypatch.setattr(loop, "Costs", StandInCosts)


def noise(*about: Any) -> float:
    return int(hashlib.sha256(repr(about).encode()).hexdigest()[:6], 16) / 16**6 - 0.5


class Noisy(Steps):
    """Further trainings whose rewards differ by less than those of the networks, or fail."""

    def __init__(self, fails: Sequence[tuple[int, int]] = (), stop_after: int = 1000) -> None:
        """
        Args:
            fails: places in the race, from 0, and numbers of seeds.
            stop_after: so many trainings there is an interruption.
        """
        self.fails, self.stop_after = fails, stop_after
        self.done: list[tuple[str, int]] = []
        self.places: dict[str, int] = {}
        self.lock = threading.Lock()

    def confirm(self, search: Search, run: ConfirmingRun) -> Outcome:
        with self.lock:
            place = self.places.setdefault(run.record.id, len(self.places))
            if len(self.done) >= self.stop_after:
                raise KeyboardInterrupt
            self.done.append((run.record.id, run.number))
        if (place, run.number) in self.fails:
            raise CandidateError("no luck")
        assert run.record.reward is not None
        # Those that began first may end last.
        time.sleep(0.02 * (1 + noise(run.record.id)) if search.workers.num > 1 else 0)
        score = min(1.0, max(0.0, run.record.reward + 0.6 * noise(run.record.id, run.seed)))
        return Outcome((0.1, score), {"mean_iou": score}, {"stage_a": 1.0}, False)


def run(
    root: Path, settings: Settings, steps: Steps | None = None, num: int = 1, *more: Observer
) -> list[Confirmation]:
    workers = InProcessWorkers() if num == 1 else ProcessWorkers(num, 100)
    with Search.open(settings, root, workers) as search:
        search.run(more, steps or Noisy())
        return search.journal.confirmations


def journal_of(root: Path) -> Journal:
    (path,) = root.glob("artifacts/searches/*/journal.jsonl")
    return Journal.read(path)


def test_the_best_are_trained_again_and_ranked_by_their_means(root: Path) -> None:
    settings = settings_of()
    found = run(root, settings)
    journal = journal_of(root)
    assert journal.confirmations == found and len(journal.candidates) == 16
    best = sorted(journal.candidates, key=lambda record: -(record.reward or 0.0))[:4]
    assert [one.confirms for one in found[:4]] == [record.id for record in best]
    assert [one.run for one in found] == sorted(one.run for one in found)
    assert race_of(settings).open_runs(journal.candidates, found) == []
    by_run = {one.run: one.seed for one in found}
    assert all(one.seed == by_run[one.run] for one in found), "common seeds"
    assert len({*by_run.values()}) == len(by_run)
    for one in ranking(journal.candidates, found)[:4]:
        assert one.is_confirmed and one.reward_error


def test_no_proposal_and_no_first_reward_depends_on_it(prepared: Path, tmp_path: Path) -> None:
    found = []
    for number, confirm in enumerate([{"candidates": 0}, {"candidates": 4, "max_seeds": 2}]):
        again = shutil.copytree(prepared, tmp_path / str(number))
        run(again, settings_of(strategy="evolution", num_candidates=12, confirm=confirm))
        (folder,) = (again / "artifacts" / "searches").iterdir()
        records = [one.model_copy(update={"seconds": {}}) for one in journal_of(again).records]
        found.append((folder.name, records, (folder / "strategy.pt").read_bytes()))
    assert found[0] == found[1]


def test_any_number_of_workers_confirms_the_same(prepared: Path, tmp_path: Path) -> None:
    found = []
    for num in (1, 3):
        again = shutil.copytree(prepared, tmp_path / str(num))
        with Search.open(settings_of(), again, InProcessWorkers()) as search:
            search.settings = settings_of(confirm={"candidates": 0})
            search.run()
        found.append(run(again, settings_of(), Noisy(fails=[(1, 1)]), num))
    assert found[0] == found[1]


@pytest.mark.parametrize("stop_after", [0, 1, 5])
def test_an_interruption_loses_nothing_and_does_nothing_twice(
    prepared: Path, tmp_path: Path, stop_after: int
) -> None:
    whole, parts = (shutil.copytree(prepared, tmp_path / name) for name in ("whole", "parts"))
    expected = run(whole, settings_of(), steps := Noisy())
    assert len(expected) > 5
    before = Noisy(stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(parts, settings_of(), before)
    assert len(journal_of(parts).confirmations) == stop_after
    (folder,) = (parts / "artifacts" / "searches").iterdir()
    write_about(folder, 1.0, 16, {}, race_of(settings_of()))
    assert search_state(folder, journal_of(parts))[0] == "stopped"
    after = Noisy()
    assert run(parts, settings_of(), after) == expected
    assert sorted(before.done + after.done) == sorted(steps.done)
    assert search_state(folder, journal_of(parts))[0] == "complete"
    again = Noisy()
    assert run(parts, settings_of(), again) == expected and not again.done


def test_a_longer_search_confirms_what_is_among_its_best_by_then(root: Path) -> None:
    first = run(root, settings_of())
    steps = Noisy()
    longer = run(root, settings_of(num_candidates=24), steps)
    assert longer[: len(first)] == first
    assert len(longer) - len(first) == len(steps.done)
    assert len({(one.confirms, one.run) for one in longer}) == len(longer)
    more = run(root, settings_of(num_candidates=24, confirm={"candidates": 4, "max_seeds": 5}))
    assert more[: len(longer)] == longer


def test_a_failed_training_is_a_state_and_not_a_number(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    found = run(root, settings_of(), Noisy(fails=[(1, 1)]), 1, Progress())
    failed = [one for one in found if one.status == "failed"]
    assert [(one.run, one.reward, one.scores, one.reason) for one in failed] == [
        (1, None, (), "no luck")
    ]
    assert any(one.confirms == failed[0].confirms and one.run == 2 for one in found)
    lines = [line for line in caplog.messages if line.startswith("confirming")]
    assert len(lines) == len(found)
    assert lines[0].startswith(f"confirming {found[0].confirms[:6]} · seed 1 of 3 at most · reward")
    assert lines[1].endswith("seed 1 of 3 at most · FAILED: no luck")


def test_too_many_failures_in_a_row_stop_it_and_it_goes_on(root: Path) -> None:
    all_of_them = [(place, 1) for place in range(4)]
    settings = settings_of(max_failures=2)
    with pytest.raises(RunError, match="the last 2 trainings that were to confirm the best failed"):
        run(root, settings, Noisy(fails=all_of_them))
    assert len(journal_of(root).confirmations) == 2
    assert [one.status for one in run(root, settings)][:3] == ["failed", "failed", "finished"]


class Told(Observer):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_record(self, record: Any) -> None:
        self.told.append(record.candidate)

    def on_confirmation(self, confirmation: Confirmation) -> None:
        self.told.append((confirmation.confirms, confirmation.run))

    def on_end(self) -> None:
        self.told.append("end")


def test_observers_are_told_before_the_end(root: Path) -> None:
    told = Told()
    found = run(root, settings_of(), Noisy(), 1, told)
    assert told.told == [*range(1, 17), *((one.confirms, one.run) for one in found), "end"]


class NoTraining(Steps):
    def train(self, search: Search, candidate: Candidate) -> Outcome:
        raise AssertionError

    def confirm(self, search: Search, run: ConfirmingRun) -> Outcome:
        raise AssertionError


def test_a_search_whose_best_are_known_is_left_alone(root: Path) -> None:
    settings = settings_of(confirm={"candidates": 0})
    assert run(root, settings) == []
    run(root, settings, NoTraining())
    # As many as are trained fully need no telling apart.
    run(root, settings_of(confirm={"candidates": 2}), NoTraining())


def test_real_trainings_with_other_seeds(root: Path) -> None:
    proxy = {
        "height": 32,
        "width": 32,
        "agg_size": 8,
        "epochs_a": 1,
        "epochs_b": 1,
        "batch_size": 2,
    }
    settings = settings_of(num_candidates=12, proxy=proxy, confirm={"max_seeds": 1})
    found = run(root, settings, Steps())
    assert len(found) == 3 and all(one.status == "finished" for one in found)
    assert all(len(one.scores) == 2 and one.reward == one.scores[-1] for one in found)
    assert all("mean_iou" in one.metrics and one.seconds["stage_b"] > 0 for one in found)
    own = {record.id: record for record in journal_of(root).candidates}
    assert all(one.seed != own[one.confirms].seed for one in found)
