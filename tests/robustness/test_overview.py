"""`nas status` and `nas report` beside files that anybody may have edited."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from nas_core.base.errors import RunError
from nas_core.base.locks import LOCK_FILE, RunLock, holder
from nas_core.search.about import ABOUT_FILE
from nas_core.search.journal import Header, Journal
from nas_core.training.record import EPOCHS_FILE
from tests.robustness.cases import refused

pytestmark = pytest.mark.timeout(30)

SEARCH = "artifacts/searches/small-1234"


def status() -> str:
    done = CliRunner().invoke(app, ["status"], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@contextmanager
def held(folder: Path, named: bytes = b"process 0 on x") -> Iterator[None]:
    (folder / LOCK_FILE).write_bytes(named)
    with (folder / LOCK_FILE).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def with_settings(path: Path, settings: dict[str, Any]) -> None:
    """The same journal, with a header of these settings."""
    records = Journal.read(path).records
    path.unlink()
    with Journal.create(path, Header(format=1, settings=settings, identity={})) as journal:
        for record in records:
            journal.append(record)


@pytest.mark.parametrize("workers", [0, -1, 0.0, 1e-308, True, "x", None, [1], 10**400])
def test_workers_that_are_no_count(project: Path, workers: Any) -> None:
    path = project / SEARCH / "journal.jsonl"
    with_settings(path, {"search": {"num_candidates": 9}, "runner": {"workers": workers}})
    with held(project / SEARCH):
        assert "candidate 5 of 9: 0 stopped early, 0 failed; about 0 s left" in status()


@pytest.mark.parametrize("planned", [0, -5, 9.5, True, "9", 10**400])
@pytest.mark.parametrize("where", ["journal", "about"])
def test_planned_candidates_that_are_no_count(project: Path, planned: Any, where: str) -> None:
    if where == "journal":
        with_settings(project / SEARCH / "journal.jsonl", {"search": {"num_candidates": planned}})
    else:
        about = {"began": 1.0, "num_candidates": planned}
        (project / SEARCH / ABOUT_FILE).write_text(json.dumps(about))
    with held(project / SEARCH):
        assert "candidate 5 of 5:" in status()


TRAINING = "artifacts/trainings/arch1-0123"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"\xff", b"\0" * 9, b"[" * 10**5, b'{"done": 1, "pla', b'{"done": 1}',
        b'{"done": 9, "planned": 3}', b'{"done": true, "planned": 3}',
        b'{"done": 1.0, "planned": 3}', b'{"done": -1, "planned": 3}',
        b'{"done": 1, "done": 2, "planned": 3}',
        b'{"done": 1, "planned": ' + b"9" * 6000 + b"}",
    ],
)  # fmt: skip
def test_epochs_that_are_damaged_are_said_to_be(project: Path, content: bytes) -> None:
    (project / TRAINING / EPOCHS_FILE).write_bytes(content)
    with held(project / TRAINING):
        said = " ".join(status().split())
    assert "arch1-0123 runs, process 0 on x; " in said and "the next epoch writes it anew" in said


def test_epochs_that_are_no_file(project: Path) -> None:
    os.mkfifo(project / TRAINING / EPOCHS_FILE)
    with held(project / TRAINING):
        assert "epochs.json cannot be read: not a regular file" in " ".join(status().split())
    (project / TRAINING / EPOCHS_FILE).unlink()
    with held(project / TRAINING):  # before the end of the first
        assert EPOCHS_FILE not in status()


def test_a_lock_that_is_a_pipe(project: Path) -> None:
    os.mkfifo(project / "own" / LOCK_FILE)
    assert holder(project / "own") is None


def test_a_lock_that_says_anything(project: Path) -> None:
    with held(project / SEARCH, b"\x1b[2J\xff[/red]\n" + b"9" * 10000):
        said = status()
        with pytest.raises(RunError, match="is in use by"):
            RunLock(project / SEARCH)
    assert "\x1b" not in said and "\\x1b[2J" in said and len(said) < 3000


@pytest.mark.parametrize("folder", ["artifacts", "artifacts/searches", "artifacts/trainings"])
def test_a_file_in_the_place_of_a_folder_is_not_called_an_empty_one(
    project: Path, folder: str
) -> None:
    shutil.rmtree(project / folder)
    (project / folder).write_text("x")
    with refused(f"{folder} is no folder: move it away"):
        CliRunner().invoke(app, ["status"], catch_exceptions=False)
