"""Whole searches, without a server: what is proposed, trained, learned from and told."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.load import PARAMS, stand_in
from nas_core.base.errors import CandidateError, RunError
from nas_core.base.paths import prepared_folder, searches_folder
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.loading import validate_settings
from nas_core.models.compute import Compute
from nas_core.search import loop, measuring
from nas_core.search.candidates import Outcome
from nas_core.search.identity import Identity, candidate_seed, changed_parts, search_identity
from nas_core.search.journal import Journal, Record
from nas_core.search.latencies import LATENCY_FILE, read_latencies
from nas_core.search.loop import Observer, Search, Steps
from nas_core.search.progress import Progress
from nas_core.search.scheduling import Candidate
from nas_core.space.genotype import Genotype
from nas_core.training.proxy_task import ProxyTask
from nas_core.workers.local import InProcessWorkers, ProcessWorkers


def settings_of(**search: Any) -> Settings:
    changes = {"batch_size": 2, "num_candidates": 5, **search}
    return validate_settings({**PARAMS, "search": {**PARAMS["search"], **changes}}, "test")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "score_candidate", stand_in)


def run(
    root: Path,
    settings: Settings,
    observers: Sequence[Observer] = (),
    steps: Steps | None = None,
) -> list[Record]:
    with Search.open(settings, root, InProcessWorkers()) as search:
        search.run(observers, steps)
        return search.journal.records


def files_of(root: Path) -> dict[str, bytes]:
    (folder,) = (root / "artifacts" / "searches").iterdir()
    return {name: (folder / name).read_bytes() for name in ("strategy.pt", "rounds.jsonl")}


def without_times(records: Sequence[Record]) -> list[Record]:
    return [record.model_copy(update={"seconds": {}, "latency_ms": None}) for record in records]


def test_candidates_are_counted_in_the_order_of_their_rounds(root: Path) -> None:
    found = run(root, settings_of())
    assert [record.candidate for record in found] == [1, 2, 3, 4, 5]
    assert [record.round for record in found] == [0, 0, 1, 1, 2]
    assert len({record.id for record in found}) == 5
    assert all(record.reward == record.scores[-1] for record in found)


@pytest.mark.parametrize("strategy", ["ppo", "evolution"])
@pytest.mark.parametrize("ahead", [0, 1])
def test_a_search_in_parts_equals_one_in_one(
    prepared: Path, tmp_path: Path, strategy: str, ahead: int
) -> None:
    found = []
    for number, parts in enumerate([(7,), (1, 2, 4, 7)]):
        again = shutil.copytree(prepared, tmp_path / str(number))
        for num in parts:
            settings = settings_of(strategy=strategy, rounds_ahead=ahead, num_candidates=num)
            records = run(again, settings)
        found.append((without_times(records), files_of(again)))
    assert found[0] == found[1]
    assert [record.round for record in records] == [0, 0, 1, 1, 2, 2, 3]


class Slow(Steps):
    """Trainings that end in another order than they began, in the threads of three workers."""

    def train(self, search: Search, candidate: Candidate) -> Outcome:
        time.sleep(0.3 / candidate.number)
        with lock:
            begun.append(candidate.number)
        outcome, _ = stand_in(
            lambda: pytest.fail("it needs no task"),
            search.settings,
            candidate.genotype,
            candidate.thresholds,
        )
        return outcome


lock = threading.Lock()
begun: list[int] = []


def test_any_number_of_workers_finds_the_same(prepared: Path, tmp_path: Path) -> None:
    found = []
    settings = settings_of(rounds_ahead=1, num_candidates=6)
    for num in (1, 3):
        again = shutil.copytree(prepared, tmp_path / str(num))
        begun.clear()
        with Search.open(settings, again, ProcessWorkers(num, 100)) as search:
            search.run(steps=Slow())
            found.append(without_times(search.journal.records))
        assert sorted(begun) == [1, 2, 3, 4, 5, 6]
        assert (begun == sorted(begun)) == (num == 1)
    assert found[0] == found[1]


def test_a_search_killed_before_its_last_update_makes_it(root: Path) -> None:
    settings = settings_of(num_candidates=4)
    run(root, settings)
    learned = files_of(root)
    (folder,) = (root / "artifacts" / "searches").iterdir()
    for name in learned:
        (folder / name).unlink()
    # Both rounds are learned from again, from the journal alone.
    run(root, settings)
    assert files_of(root) == learned


@pytest.mark.parametrize("kept", [0, 1])
def test_a_journal_that_is_behind_its_strategy_is_refused(root: Path, kept: int) -> None:
    """As where it was deleted, or an older copy of it put back."""
    run(root, settings_of())
    (path,) = searches_folder(root).glob("*/journal.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:kept]))
    if not kept:
        path.unlink()
    message = r"strategy.pt has learned from \d+ rounds, and the journal has 0"
    with pytest.raises(RunError, match=message):
        run(root, settings_of())


def test_lost_diagnostics_are_made_again_with_a_word(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of()
    run(root, settings)
    (path,) = root.glob("artifacts/searches/*/rounds.jsonl")
    whole = path.read_bytes()
    path.unlink()
    run(root, settings, [Progress()])
    assert path.read_bytes() == whole
    assert f"{path} lacked rounds that the search has learned from" in caplog.text


def test_candidates_over_a_limit_are_never_trained(root: Path) -> None:
    limit = min(record.num_parameters for record in run(root, settings_of()))
    found = run(root, settings_of(constraints={"max_parameters": limit}))
    assert len(found) == 5 and all(record.num_parameters <= limit for record in found)


def test_a_reward_may_include_cost(root: Path) -> None:
    reward = {"cost": "macs", "target": 1e6, "exponent": -0.5}
    for record in run(root, settings_of(reward=reward)):
        assert record.quality is not None
        assert record.reward == pytest.approx(record.quality * (record.macs / 1e6) ** -0.5)


# Keeps a list of its calls, and gives the file's bytes for milliseconds.
BOARD = """#!/bin/sh
echo "$1" >> calls
%s
stat -c %%s "$1"
"""


def with_board(root: Path, first: str = "") -> Settings:
    """A search with a limit by latency, which a script in the project's folder measures."""
    (root / "board.sh").write_text(BOARD % first)
    (root / "board.sh").chmod(0o755)
    limits = {"max_latency_ms": 3_600_000}
    latency = {"command": "./board.sh {model}"}
    return settings_of(num_candidates=3, latency=latency, constraints=limits)


def num_calls(root: Path) -> int:
    return len((root / "calls").read_text().splitlines())


def kept_latencies(root: Path) -> dict[str, float]:
    (folder,) = (root / "artifacts" / "searches").iterdir()
    return read_latencies(folder / LATENCY_FILE)


def test_a_command_measures_what_a_search_proposes(root: Path) -> None:
    records = run(root, with_board(root))
    known = kept_latencies(root)
    assert known.items() >= {record.id: record.latency_ms for record in records}.items()
    assert len(set(known.values())) > 1
    # Each once, and the encoder before a network was known to meet the limit.
    assert num_calls(root) == len(known) + 1
    assert run(root, with_board(root)) == records and num_calls(root) == len(known) + 1


def test_a_command_that_fails_stops_the_search_which_then_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "SECONDS_BETWEEN", 0)
    failing = '[ $(wc -l < calls) -gt 2 ] && echo "no route to board" >&2 && exit 255'
    with pytest.raises(RunError, match=r"board\.sh /\S+ ended with 255; it said:\n +no route"):
        run(root, with_board(root, failing))
    assert len(kept_latencies(root)) == 1 and num_calls(root) == 2 + measuring.NUM_TRIES
    run(root, with_board(root))
    others = len(kept_latencies(root)) - 1
    assert others >= 2 and num_calls(root) == 2 + measuring.NUM_TRIES + others


KILLED = """
import sys
from pathlib import Path
from benchmarks.load import stand_in
from nas_core.config import Settings
from nas_core.models.compute import Compute
from nas_core.search import loop, measuring
from nas_core.workers.local import InProcessWorkers

loop.score_candidate = stand_in
settings = Settings.model_validate_json(sys.stdin.read())
with loop.Search.open(settings, Path(sys.argv[1]), InProcessWorkers()) as search:
    search.run()
"""


def test_a_search_that_was_killed_measures_nothing_again(root: Path) -> None:
    settings = with_board(root, "[ $(wc -l < calls) -eq 3 ] && kill -9 $PPID")
    command = [sys.executable, "-c", KILLED, str(root)]
    environment = {**os.environ, "TMPDIR": str(root)}  # it leaves the ONNX file
    done = subprocess.run(
        command, input=settings.model_dump_json(), env=environment, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert num_calls(root) == 3 and len(kept_latencies(root)) == 1
    run(root, settings)
    others = len(kept_latencies(root)) - 1
    assert others >= 2 and num_calls(root) == 3 + others


def test_a_known_network_is_answered_from_the_journal(root: Path) -> None:
    settings = settings_of(num_candidates=2)
    with Search.open(settings, root, InProcessWorkers()) as search:
        _, (second, cost) = search.sample(0)
        # As if it had been trained before; the round's second proposal is the same network.
        earlier = Record(
            index=0, round=0, candidate=1, id=second.id, genotype=second.to_dict(),
            seed=candidate_seed(settings.seed, second.id), status="finished", reward=0.5,
            scores=(0.5,), **asdict(cost),
        )  # fmt: skip
        search.journal.append(earlier)
        search.run()
        repeat = search.journal.records[1]
    assert (repeat.status, repeat.id, repeat.reward) == ("repeat", second.id, 0.5)
    assert repeat.candidate is None and not repeat.scores


def failing(
    shared_task: Callable[[], ProxyTask],
    settings: Settings,
    genotype: Genotype,
    thresholds: Sequence[float],
) -> tuple[Outcome, dict[str, bytes]]:
    raise ZeroDivisionError("division by zero")


def test_too_many_failures_in_a_row_stop_the_search(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(max_failures=3)
    monkeypatch.setattr(loop, "score_candidate", failing)
    with pytest.raises(RunError, match=r"the last 3 candidates failed.*ZeroDivisionError"):
        run(root, settings)
    (folder,) = (root / "artifacts" / "searches").iterdir()
    monkeypatch.setattr(loop, "score_candidate", stand_in)
    found = run(root, settings)
    assert [record.status for record in found] == ["failed"] * 3 + ["finished"] * 2
    assert all(record.reward is None and record.reason for record in found[:3])
    assert list(folder.parent.iterdir()) == [folder]


class Told(Observer):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_begin(self, search: Search) -> None:
        self.told.append(("begin", len(search.journal.records)))

    def on_record(self, record: Record) -> None:
        self.told.append(record.index)

    def on_round(self, number: int, diagnostics: dict[str, float]) -> None:
        self.told.append(("round", number, "reward_mean" in diagnostics))


def test_observers_are_told_in_the_order_of_the_journal(root: Path) -> None:
    told = Told()
    run(root, settings_of(num_candidates=3), [told])
    assert told.told == [("begin", 0), 0, 1, ("round", 0, True), 2]
    told.told.clear()
    run(root, settings_of(num_candidates=4), [told])
    assert told.told == [("begin", 3), 3, ("round", 1, True)]


def test_progress_is_a_line_a_candidate(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nas_core.search.progress")
    run(root, settings_of(num_candidates=2), [Progress()])
    run(root, settings_of(num_candidates=3), [Progress()])
    lines = [line for line in caplog.messages if "candidate" in line]
    assert [line.partition(" ·")[0] for line in lines] == [
        "candidate 1/2", "candidate 2/2", f"{lines[2].split(':')[0]}: going on after 2 candidates",
        "candidate 3/3",
    ]  # fmt: skip


class Interrupted(Steps):
    def train(self, search: Search, candidate: Candidate) -> Outcome:
        if candidate.number == 2:
            raise KeyboardInterrupt
        return search.train(candidate)


def test_an_interruption_in_this_process_comes_at_once_and_loses_nothing(root: Path) -> None:
    settings = settings_of(num_candidates=3)
    with pytest.raises(KeyboardInterrupt):
        run(root, settings, steps=Interrupted())
    (path,) = root.glob("artifacts/searches/*/journal.jsonl")
    before = path.read_bytes()
    assert len(run(root, settings)) == 3
    assert path.read_bytes().startswith(before)


def test_one_search_is_held_by_one_at_a_time(root: Path) -> None:
    settings = settings_of()
    with (
        Search.open(settings, root, InProcessWorkers()),
        pytest.raises(RunError, match="is in use by process"),
    ):
        Search.open(settings, root, InProcessWorkers())
    run(root, settings)


def test_the_journal_of_another_search_is_not_gone_on_with(root: Path) -> None:
    run(root, settings_of(num_candidates=2))
    (other,) = root.glob("artifacts/searches/*/journal.jsonl")
    settings = settings_of(num_candidates=2, strategy="evolution")
    run(root, settings)
    (path,) = set(root.glob("artifacts/searches/*/journal.jsonl")) - {other}
    shutil.copyfile(other, path)
    with pytest.raises(RunError, match=r"jsonl, line 1: the journal of another search, by search"):
        run(root, settings)
    with Journal.open(path):  # nothing holds it
        pass


class Failing(Steps):
    def train(self, search: Search, candidate: Candidate) -> Outcome:
        raise CandidateError("no luck")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_a_failed_step_is_a_failed_candidate(root: Path) -> None:
    settings = settings_of(max_failures=2)
    with (
        Search.open(settings, root, ProcessWorkers(2, 100)) as search,
        pytest.raises(RunError, match="the last 2 candidates failed, the latest with: no luck"),
    ):
        search.run(steps=Failing())


def test_a_search_that_cannot_go_on_says_why_it_begins_anew(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(num_candidates=1)
    run(root, settings, [Progress()])
    run(root, settings_of(num_candidates=1, strategy="random"), [Progress()])
    run(root, settings_of(num_candidates=2), [Progress()])
    assert "begins anew" not in caplog.text
    monkeypatch.setattr("torch.__version__", "1.0")
    monkeypatch.setattr("nas_core.search.identity.code_digest", lambda entry: "another")
    run(root, settings, [Progress()])
    (warning,) = [line for line in caplog.messages if "begins anew" in line]
    assert warning.endswith("torch's version and the code of the search changed since")


def test_settings_that_another_version_had_are_a_reason_to_begin_anew() -> None:
    new = {"data": "x", "search": {"batch_size": 4, "meta_val": {"fraction": 0.1, "seed": 0}}}
    old = {"data": "x", "search": {"batch_size": 4, "meta_val_fraction": 0.1}}
    assert changed_parts(old, new) == {"settings"}
    assert changed_parts(old | {"data": "y"}, new) == {"data", "settings"}
    assert changed_parts({**old, "search": old["search"] | {"batch_size": 5}}, new) == {"search"}
    assert changed_parts(new, new) == set()


def test_a_search_says_what_its_meta_val_is(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(root, settings_of(num_candidates=1, meta_val={"fraction": 0.5}), [Progress()])
    (line,) = [line for line in caplog.messages if line.startswith("meta-val")]
    assert line.endswith("drawn one by one (search.meta_val.by is frames)")


@pytest.mark.parametrize(
    ("search", "latency", "same"),
    [
        ({}, {"threads": 2}, True),
        ({}, {"command": "true {model}"}, True),
        ({"constraints": {"max_latency_ms": 9.0}}, {"threads": 2}, False),
        ({"reward": {"cost": "latency_ms"}}, {"command": "true {model}"}, False),
        ({"strategy": "pareto", "pareto": {"costs": ["latency_ms"]}}, {"threads": 2}, False),
        ({"constraints": {"max_latency_ms": 9.0}}, {"time_limit": 5.0}, True),
    ],
)
def test_what_measures_latencies_is_part_of_a_search_that_depends_on_them(
    search: dict[str, Any], latency: dict[str, Any], same: bool
) -> None:
    about = ("", "", Compute(torch.device("cpu"), bf16=False), ())
    first, second = (
        search_identity(settings_of(**search, latency=one), *about) for one in ({}, latency)
    )
    assert (first == second) == same


@pytest.mark.parametrize(
    ("strategy", "sections"),
    [
        ("ppo", {"controller"}),
        ("reinforce", {"controller"}),
        ("evolution", {"evolution"}),
        ("pareto", {"pareto"}),
        ("random", set()),
    ],
)
def test_sections_of_other_strategies_are_no_part_of_a_search(
    strategy: str, sections: set[str]
) -> None:
    changes = {
        "controller": {"learning_rate": 0.02},
        "evolution": {"population_size": 30},
        "pareto": {"population_size": 30},
    }

    def identity(**search: Any) -> Identity:
        compute = Compute(torch.device("cpu"), bf16=False)
        return search_identity(settings_of(strategy=strategy, **search), "", "", compute, ())

    bound = {name for name, change in changes.items() if identity(**{name: change}) != identity()}
    assert bound == sections


def test_groups_are_part_of_what_a_search_is(prepared: Path) -> None:
    settings = settings_of()
    data = PreparedData.open(prepared_folder(prepared, settings))
    train = data.split("train")
    grouped = replace(train, groups=("one", *train.groups[1:]))
    assert replace(data, splits={**data.splits, "train": grouped}).search_hash != data.search_hash
