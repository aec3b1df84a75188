from __future__ import annotations

import hashlib
import json
import logging
import re
import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nas_core.base.errors import RunError
from nas_core.config import SearchSettings
from nas_core.search.journal import (
    Confirmation,
    Header,
    Journal,
    Record,
    load_state,
    save_state,
)
from nas_core.search.strategy import make_strategy
from nas_core.space.decisions import sample
from nas_core.space.genotype import Genotype

JOURNALS = Path(__file__).parents[2] / "reference" / "journals"
HEADER = Header(format=1, settings={"seed": 0, "name": "größe"}, identity={"data": "abc"})


def make_record(index: int, status: str = "finished", **changes: Any) -> Record:
    genotype = sample(np.random.default_rng(index))
    values: dict[str, Any] = {
        "index": index,
        "round": index // 2,
        "candidate": None if status == "repeat" else index + 1,
        "id": genotype.id,
        "genotype": genotype.to_dict(),
        "status": status,
        "reward": None if status == "failed" else 0.1 * (index + 1),
        "scores": () if status == "failed" else (0.05, 0.1 * (index + 1)),
        "metrics": {"mean_iou": 1 / 3},
        "num_parameters": 250_000 + index,
        "macs": 10**9 + index,
        "seed": 7,
        "seconds": {"a": 1.5, "b": 2.0},
        "reason": "CandidateError: the loss is not finite · ∞\nstep 3"
        if status == "failed"
        else "",
    }
    return Record(**{**values, **changes})


def make_confirmation(index: int, run: int, **changes: Any) -> Confirmation:
    values: dict[str, Any] = {
        "confirms": make_record(index).id,
        "run": run,
        "status": "finished",
        "reward": 0.5,
        "scores": (0.4, 0.5),
        "metrics": {"mean_iou": 1 / 3},
        "seed": run,
        "seconds": {"a": 1.5},
    }
    return Confirmation(**{**values, **changes})


FAILED_RUN: dict[str, Any] = {
    "status": "failed", "reward": None, "scores": (), "metrics": {}, "seconds": {},
    "reason": "no result after 3600 s",
}  # fmt: skip


def write_journal(path: Path, records: Sequence[Record | Confirmation]) -> None:
    with Journal.create(path, HEADER) as journal:
        for record in records:
            journal.append(record)


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """A limit on the size of files stands in for a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "journal.jsonl"


def test_everything_comes_back(path: Path) -> None:
    records = [make_record(0), make_record(1, "failed"), make_record(2, "stopped early")]
    write_journal(path, records)
    journal = Journal.read(path)
    assert journal.header == HEADER
    assert journal.records == records
    assert Genotype.from_dict(journal.records[0].genotype).id == records[0].id
    lines = path.read_text().splitlines()
    first = json.loads(lines[0])
    assert list(first) == ["format", "settings", "identity", "checksum"]
    assert first["settings"] == HEADER.settings
    assert len(lines) == 4


def test_goes_on_where_it_was(path: Path) -> None:
    write_journal(path, [make_record(0)])
    with Journal.open(path) as journal:
        assert journal.records == [make_record(0)]
        journal.append(make_record(1))
        # On the disk at once, and there for a reader that holds no lock.
        assert Journal.read(path).records == [make_record(0), make_record(1)]
    assert Journal.open(path).records == [make_record(0), make_record(1)]


def repeat_of(record: Record, index: int) -> Record:
    changes: dict[str, Any] = {
        "index": index, "round": index // 2, "candidate": None, "status": "repeat",
        "scores": (), "metrics": {}, "seconds": {}, "reason": "",
    }  # fmt: skip
    return record.model_copy(update=changes)


def test_scored_and_candidates(path: Path) -> None:
    failed, first = make_record(0, "failed"), make_record(1)
    stopped = make_record(4, "stopped early", candidate=3)
    repeats = [repeat_of(first, 2), repeat_of(failed, 3)]
    write_journal(path, [failed, first, *repeats, stopped])
    journal = Journal.read(path)
    assert journal.candidates == [failed, first, stopped]
    assert journal.scored == {first.id: first, stopped.id: stopped}


def test_create_refuses_an_existing_journal(path: Path) -> None:
    write_journal(path, [make_record(0)])
    with pytest.raises(RunError, match=r"journal\.jsonl exists already"):
        Journal.create(path, HEADER)
    with Journal.open(path) as journal:
        assert len(journal.records) == 1


@pytest.mark.parametrize("begin", [Journal.open, Journal.read])
def test_missing_journal(path: Path, begin: Any) -> None:
    with pytest.raises(RunError, match=r"journal\.jsonl does not exist: no search"):
        begin(path)
    assert not path.parent.exists()


def test_two_writers(path: Path) -> None:
    with Journal.create(path, HEADER):
        with pytest.raises(RunError, match="in use by process"):
            Journal.open(path)
        assert Journal.read(path).records == []
    Journal.open(path).close()


def test_a_journal_that_cannot_be_opened_is_not_held(path: Path) -> None:
    path.parent.mkdir()
    for _ in range(2):
        path.write_text("nonsense\n")
        with pytest.raises(RunError, match="line 1"):
            Journal.open(path)


def test_reader_cannot_append(path: Path) -> None:
    write_journal(path, [])
    with pytest.raises(ValueError, match="not open for writing"):
        Journal.read(path).append(make_record(0))
    journal = Journal.open(path)
    journal.close()
    with pytest.raises(ValueError, match="not open for writing"):
        journal.append(make_record(0))


@given(data=st.data(), num_records=st.integers(1, 3))
def test_cut_within_the_last_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, num_records: int
) -> None:
    path = tmp_path_factory.mktemp("run") / "journal.jsonl"
    kinds = data.draw(
        st.lists(
            st.sampled_from(["finished", "stopped early", "failed"]),
            min_size=num_records,
            max_size=num_records,
        )
    )
    records = [make_record(index, kind) for index, kind in enumerate(kinds)]
    write_journal(path, records)
    content = path.read_bytes()
    last = content[:-1].rfind(b"\n") + 1
    cut = data.draw(st.integers(last, len(content) - 1))
    path.write_bytes(content[:cut])

    assert Journal.read(path).records == records[:-1]
    with Journal.open(path) as journal:
        assert journal.records == records[:-1]
        assert path.read_bytes() == content[:cut]
        journal.append(records[-1])
    assert path.read_bytes() == content


def test_half_written_line_is_reported_to_the_writer(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_journal(path, [make_record(0), make_record(1)])
    path.write_bytes(path.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        Journal.read(path)
        assert not caplog.records, "a reader may come in the middle of an append"
        Journal.open(path).close()
    (record,) = caplog.records
    assert "journal.jsonl: the last line is half written" in record.getMessage()


def test_full_disk_leaves_no_journal(path: Path) -> None:
    with largest_file(60), pytest.raises(RunError, match=r"journal\.jsonl cannot be written"):
        Journal.create(path, HEADER)
    assert not path.exists()
    Journal.create(path, HEADER).close()


def test_full_disk_leaves_the_journal_as_it_was(path: Path) -> None:
    """Part of the line gets written."""
    with Journal.create(path, HEADER) as journal:
        journal.append(make_record(0))
        size = path.stat().st_size
        with (
            largest_file(size + 40),
            pytest.raises(RunError, match=r"journal\.jsonl cannot be written: File too large"),
        ):
            journal.append(make_record(1))
        assert path.stat().st_size == size + 40
        assert journal.records == Journal.read(path).records == [make_record(0)]
        journal.append(make_record(1))
    assert Journal.read(path).records == [make_record(0), make_record(1)]


def line_of(record: Record, **changes: Any) -> str:
    return json.dumps({**record.model_dump(mode="json"), **changes})


def test_confirmations_come_back_beside_the_records(path: Path) -> None:
    first, second = make_record(0), make_record(1)
    further = [
        make_confirmation(0, 1),
        make_confirmation(1, 1),
        make_confirmation(0, 2, **FAILED_RUN),
    ]
    write_journal(path, [first, second, *further])
    with Journal.open(path) as journal:
        assert journal.records == journal.candidates == [first, second]
        assert journal.confirmations == further
        # A search that goes on has its later proposals after them.
        journal.append(make_record(2))
        journal.append(make_confirmation(0, 3))
    again = Journal.read(path)
    assert again.records == [first, second, make_record(2)]
    assert again.confirmations == [*further, make_confirmation(0, 3)]


@pytest.mark.parametrize("cut", [1, 40])
def test_a_half_written_confirmation_is_dropped(path: Path, cut: int) -> None:
    write_journal(path, [make_record(0), make_confirmation(0, 1), make_confirmation(0, 2)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Journal.open(path) as journal:
        assert journal.confirmations == [make_confirmation(0, 1)]
        journal.append(make_confirmation(0, 2))
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (make_confirmation(0, 1), "confirmation 1 of .*, expected 2"),
        (make_confirmation(0, 3), "confirmation 3 of .*, expected 2"),
        (make_confirmation(5, 1), "which is no candidate that finished"),
        (make_confirmation(1, 1), "which is no candidate that finished"),
    ],
    ids=["twice", "one left out", "of nothing", "of one that stopped early"],
)
def test_a_confirmation_out_of_order_is_named(path: Path, bad: Confirmation, problem: str) -> None:
    records = [make_record(0), make_record(1, "stopped early"), make_confirmation(0, 1)]
    write_journal(path, records)
    with Journal.open(path) as journal, pytest.raises(RunError, match=problem):
        journal.append(bad)
    path.write_text(
        re.sub(r',"checksum":"\w+"', "", path.read_text()) + bad.model_dump_json() + "\n"
    )
    with pytest.raises(RunError, match=rf"journal\.jsonl, line 5: .*{problem}"):
        Journal.read(path)


SHAPED = {"cost": "parameters", "target": 125_000, "exponent": -1.0}
LIMITS = {"max_parameters": 250_001, "max_macs": 10**9 + 1, "max_latency_ms": 10}
FIRST = make_record(0)
# Of lines that another program wrote, each with its checksum: what follows the records 0 and 1 and
# a confirmation of 0, and what is said of it.
CONTRADICTIONS: dict[str, tuple[Record | Confirmation, str]] = {
    "an id of another network": (
        make_record(2, id=FIRST.id),
        f"id {FIRST.id}, but its genotype has the id {make_record(2).id}",
    ),
    "no network": (
        make_record(2, genotype={"templates": [], "structure": []}),
        "genotype: templates has 0 entries, expected 3",
    ),
    "trained twice": (
        make_record(2, id=FIRST.id, genotype=FIRST.genotype),
        f"candidate {FIRST.id} is there twice: record 0 is its training",
    ),
    "a repeat of nothing": (
        make_record(2, "repeat", scores=()),
        f"a repeat of {make_record(2).id}, which no record before it trained",
    ),
    "a repeat with another reward": (
        repeat_of(FIRST, 2).model_copy(update={"reward": 0.3}),
        "reward is 0.3, but 0.1 in record 0, which it repeats",
    ),
    "a repeat of another size": (
        repeat_of(FIRST, 2).model_copy(update={"macs": 5}),
        f"macs is 5, but {FIRST.macs} in record 0, which it repeats",
    ),
    "a round left out": (make_record(2, round=2), "round 2, expected 0 or the next one"),
    "a score above 1": (make_record(2, scores=(1.5, 0.3)), "scores: 1.5 is not from 0 to 1"),
    "an mIoU above 1": (
        make_record(2, metrics={"mean_iou": 1.01}), "mean_iou: 1.01 is not from 0 to 1"
    ),
    "an accuracy below 0": (
        make_record(2, metrics={"mean_accuracy": -0.01}), "mean_accuracy: -0.01 is not from 0 to 1"
    ),
    "a reward below 0": (make_record(2, reward=-0.1, scores=()), "reward: -0.1 is below 0"),
    "a reward above 1": (make_record(2, reward=1.1, scores=()), "reward: 1.1 is above 1"),
    "a reward that is not its score": (
        make_record(2, reward=0.4), "reward is 0.4, but the last of its scores gives 0.3"
    ),
    "the candidate's own seed": (
        make_confirmation(1, 1, seed=7),
        f"confirms {make_record(1).id} with seed 7, which is that of its own training",
    ),
    "a seed twice": (
        make_confirmation(0, 2, seed=1),
        f"confirms {FIRST.id} with seed 1, which is that of an earlier confirmation",
    ),
    "a confirmed mIoU above 1": (
        make_confirmation(1, 1, metrics={"mean_iou": 2.0}), "mean_iou: 2.0 is not from 0 to 1"
    ),
    "a confirmed reward that is not its score": (
        make_confirmation(1, 1, reward=0.9), "reward is 0.9, but the last of its scores gives 0.5"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("bad", "problem"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_line_that_contradicts_those_before_it_is_named(
    path: Path, bad: Record | Confirmation, problem: str
) -> None:
    before = [FIRST, make_record(1), make_confirmation(0, 1)]
    write_journal(path, before)
    with Journal.open(path) as journal, pytest.raises(RunError, match=re.escape(problem)):
        journal.append(bad)
    assert Journal.read(path).records == before[:2]
    path.write_bytes(path.read_bytes() + journal_line(bad))
    for begin in (Journal.open, Journal.read):
        with pytest.raises(RunError, match=re.escape(f"journal.jsonl, line 5: {problem};")):
            begin(path)


def journal_line(content: Record | Confirmation) -> bytes:
    """A line with its checksum, whatever it says."""
    body = content.model_dump_json()[:-1]
    checksum = hashlib.sha256(body.encode()).hexdigest()[:8]
    return f'{body},"checksum":"{checksum}"}}\n'.encode()


@pytest.mark.parametrize(
    ("search", "changes", "problem"),
    [
        ({"reward": SHAPED}, {"reward": 0.2}, None),
        ({"reward": SHAPED}, {"reward": 1.2, "scores": ()}, None),
        ({"reward": SHAPED}, {"reward": 0.4}, "last of its scores gives 0.2"),
        ({"reward": {"cost": "latency_ms"}}, {}, "latency_ms is missing"),
        ({"reward": {"cost": "of a later version"}}, {}, None),
        ({"constraints": {}}, {"num_parameters": 10**9, "reward": 0.4, "scores": (0.4,)}, None),
        ({"constraints": LIMITS}, {"num_parameters": 250_001, "macs": 10**9 + 1}, None),
        ({"constraints": LIMITS}, {"num_parameters": 250_002}, "num_parameters is 250002, and"),
        ({"constraints": LIMITS}, {"macs": 10**9 + 2}, "macs is 1000000002, and the search"),
        ({"constraints": LIMITS}, {"latency_ms": 10.1}, "latency_ms is 10.1, and the search"),
    ],
)
def test_a_line_is_held_against_the_settings(
    path: Path, search: dict[str, Any], changes: dict[str, Any], problem: str | None
) -> None:
    record = make_record(0, **{"reward": 0.4, "scores": (0.4,)} | changes)
    header = HEADER.model_copy(update={"settings": {"search": search}})
    with Journal.create(path, header) as journal:
        if problem is None:
            journal.append(record)
        else:
            with pytest.raises(RunError, match=problem):
                journal.append(record)


@pytest.mark.parametrize("key", ["num_parameters", "macs"])
def test_a_network_has_parameters_and_takes_operations(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        make_record(0, **{key: 0})


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"reward":0.5', '"reward":0.6', "checksum"),
        ('"run":1', '"run":"1"', "not a confirmation of a journal: run"),
        ('"status":"finished","reward":0.5', '"status":"finished","reward":null', "reward: one"),
    ],
)
def test_a_changed_confirmation_is_named(path: Path, old: str, new: str, problem: str) -> None:
    write_journal(path, [make_record(0), make_confirmation(0, 1)])
    before, changed, after = path.read_text().rpartition(old)
    assert changed
    path.write_text(before + new + after)
    with pytest.raises(RunError, match=rf"line 3.*{problem}"):
        Journal.read(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"reward": None},
        {"reason": "none"},
        {"scores": ()},
        {**FAILED_RUN, "reason": ""},
        {**FAILED_RUN, "reward": 0.0},
        {"status": "stopped early"},
        {"run": 0},
        {"reward": float("nan")},
    ],
)
def test_inconsistent_confirmation(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Confirmation(**{**make_confirmation(0, 1).model_dump(), **changes})


BAD_LINES = {
    "not JSON": ('{"index": 1,', "not a record of a journal: not JSON"),
    "blank": ("", "not a record of a journal: not JSON"),
    "not UTF-8": (b"\xff\xfe", "not a record of a journal: not JSON"),
    "a list": ("[]", "a journal: expected keys and values"),
    "key missing": ('{"index": 1}', "round: is missing"),
    "unknown key": (line_of(make_record(1), colour="red"), "colour: unknown key"),
    "unknown status": (line_of(make_record(1), status="lost"), "status: expected 'finished'"),
    "a string for a number": (line_of(make_record(1), reward="0.5"), "reward: expected a number"),
    "NaN": (
        line_of(make_record(1), reward=float("nan")),
        "reward: expected a number that is",
    ),
    "twice": (line_of(make_record(0)), "record 0, expected 1"),
    "one left out": (line_of(make_record(2)), "record 2, expected 1"),
    "candidate left out": (line_of(make_record(1), candidate=3), "candidate 3, expected 2"),
}


@pytest.mark.parametrize(("line", "problem"), BAD_LINES.values(), ids=BAD_LINES)
@pytest.mark.parametrize("is_last", [True, False], ids=["at the end", "in the middle"])
def test_malformed_line_is_named(
    path: Path, line: str | bytes, problem: str, is_last: bool
) -> None:
    write_journal(path, [make_record(0)])
    bad = line if isinstance(line, bytes) else line.encode()
    rest = b"" if is_last else line_of(make_record(1)).encode() + b"\n"
    path.write_bytes(path.read_bytes() + bad + b"\n" + rest)
    for begin in (Journal.open, Journal.read):
        with pytest.raises(RunError, match=rf"journal\.jsonl, line 3: .*{problem}"):
            begin(path)


@pytest.mark.parametrize(
    ("old", "new", "number"),
    [
        ('"reward":0.2', '"reward":0.3', 3),
        ('"mean_iou":0.3', '"mean_iou":0.4', 2),
        ('"seed":0', '"seed":1', 1),
        ('"checksum":"', '"checksum":"0', 1),
        ('"macs":1000000001', '"macs": 1000000001', 3),
    ],
)
def test_a_changed_line_is_named(path: Path, old: str, new: str, number: int) -> None:
    write_journal(path, [make_record(0), make_record(1)])
    before, changed, after = path.read_text().partition(old)
    assert changed
    path.write_text(before + new + after)
    before = path.read_text()
    for begin in (Journal.open, Journal.read):
        with pytest.raises(RunError, match=rf"journal\.jsonl, line {number}.*checksum") as error:
            begin(path)
        assert len(str(error.value).splitlines()) == 1
    assert path.read_text() == before


def test_a_checksum_that_was_taken_away_is_noticed(path: Path) -> None:
    write_journal(path, [make_record(0)])
    path.write_text(re.sub(r',"checksum":"\w+"}\n$', "}\n", path.read_text()))
    with pytest.raises(RunError, match=r"line 2 has lost its checksum: .* restore"):
        Journal.read(path)


@given(place=st.floats(0, 0.999999), bit=st.integers(0, 7))
def test_no_bit_of_a_journal_changes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("run") / "journal.jsonl"
    write_journal(path, [make_record(0)])
    content = bytearray(path.read_bytes()[:-1])
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(bytes(content) + b"\n")
    with pytest.raises(RunError, match="line"):
        Journal.read(path)


# Written by the versions before and after journals had checksums: both stay readable.
@pytest.mark.parametrize("name", ["without_checksums", "with_checksums"])
def test_journals_of_released_versions_are_read(path: Path, name: str) -> None:
    path.parent.mkdir()
    shutil.copyfile(JOURNALS / f"{name}.jsonl", path)
    before = path.read_bytes()
    with Journal.open(path) as journal:
        assert journal.header.settings["name"] == "synthetic"
        statuses = [record.status for record in journal.records]
        assert statuses == [*["finished"] * 8, "repeat", "failed"]
        assert journal.records[6].reward == 0.22156869098074922
        for record in journal.records:
            assert Genotype.from_dict(record.genotype).id == record.id
        again = repeat_of(journal.records[-1], 10).model_copy(update={"round": 2})
        journal.append(again)
    assert path.read_bytes().startswith(before)
    assert Journal.read(path).records[-1] == again


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "the header is missing"),
        ('{"format":1', "the header is missing"),
        (line_of(make_record(0)) + "\n", "not a header of a journal"),
        (
            '{"format":2,"settings":{},"identity":{}}\n',
            "a journal of format 2, and this version reads format 1: go on with the version",
        ),
        ('{"settings":{},"identity":{}}\n', "not a header of a journal: format: is missing"),
    ],
    ids=["empty", "half written", "a record", "another format", "no format"],
)
def test_malformed_header_is_named(path: Path, content: str, problem: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(RunError, match=rf"journal\.jsonl, line 1: {problem}"):
        Journal.read(path)


def test_append_takes_only_the_next_record(path: Path) -> None:
    with Journal.create(path, HEADER) as journal:
        journal.append(make_record(0))
        for record in (make_record(0), make_record(2), make_record(1, candidate=1)):
            with pytest.raises(RunError, match="expected"):
                journal.append(record)
        journal.append(make_record(1))
    assert len(Journal.read(path).records) == 2


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        ("finished", {"reward": None}),
        ("stopped early", {"reward": None}),
        ("finished", {"reward": float("nan")}),
        ("finished", {"metrics": {"mean_iou": float("inf")}}),
        ("finished", {"candidate": None}),
        ("failed", {"reward": 0.0}),
        ("failed", {"reason": ""}),
        ("repeat", {"candidate": 1}),
        ("lost", {}),
    ],
)
def test_inconsistent_record(status: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_record(0, status, **changes)


@pytest.mark.parametrize("name", ["ppo", "random"])
def test_strategy_state_comes_back(tmp_path: Path, name: str) -> None:
    file = tmp_path / "run" / "strategy.pt"
    strategy = make_strategy(SearchSettings(strategy=name), seed=1)
    save_state(file, {"round": 3, "strategy": strategy.state_dict()})
    state = load_state(file)
    assert state["round"] == 3
    restored = make_strategy(SearchSettings(strategy=name), seed=2)
    restored.load_state_dict(state["strategy"])
    assert restored.ask(3) == strategy.ask(3)
    assert [entry.name for entry in file.parent.iterdir()] == ["strategy.pt"]


def test_missing_state(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"strategy\.pt cannot be read: No such file"):
        load_state(tmp_path / "strategy.pt")


def damaged(content: bytes) -> bytes:
    """One bit of the saved tensor is flipped."""
    position = content.index(torch.full((64,), 0.5).numpy().tobytes())
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"round: 3\n",
        damaged,
    ],
    ids=["empty", "half", "last byte", "text", "bit flipped"],
)
def test_unreadable_state(tmp_path: Path, change: Any) -> None:
    file = tmp_path / "strategy.pt"
    save_state(file, {"weights": torch.full((64,), 0.5)})
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(RunError, match=r"strategy\.pt is (truncated|damaged)"):
        load_state(file)


def test_foreign_state(tmp_path: Path) -> None:
    file = tmp_path / "strategy.pt"
    for foreign in ({"features.0.weight": torch.zeros(2)}, [1, 2], Path("x")):
        torch.save(foreign, file)
        with pytest.raises(RunError, match=r"strategy\.pt is .*no state of a search"):
            load_state(file)


def test_full_disk_leaves_the_old_state(tmp_path: Path) -> None:
    file = tmp_path / "strategy.pt"
    save_state(file, {"round": 1})
    with largest_file(100), pytest.raises(RunError, match=r"strategy\.pt cannot be written"):
        save_state(file, {"round": 2})
    assert load_state(file) == {"round": 1}
