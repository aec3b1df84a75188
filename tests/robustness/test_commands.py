"""Command lines: a message, an exit code, and a project that is as it was.

A message is one or two lines on stderr, or the box that typer draws about wrong usage; that of a
dataset has a line for each problem, 20 at most. Commands run in this process, and a few in one of
their own, as a person starts them.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.logging.configuration import setup_logging
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.command_line import run_nas
from tests.robustness.cases import LONGEST_LINE, MOST_LINES, SECRET, listed, snapshot

pytestmark = pytest.mark.timeout(120)

# Else the first command does it, and later ones log into what the test of that one captured.
setup_logging()

TRAINED = "artifacts/trainings/arch1-0123"
ERROR = "error: "


def check_said(out: str, err: str) -> None:
    assert "Traceback" not in out + err and SECRET not in out + err
    if "╭─ Error" in err:
        return
    lines = err.strip().splitlines()
    most = MOST_LINES if "DataError: dataset " in err else 2
    assert 1 <= len(lines) <= most and ERROR in err, err[:3000]
    assert max(map(len, lines)) <= LONGEST_LINE, err[:3000]


def run(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str, str]:
    return run_nas(monkeypatch, capsys, *arguments)


@pytest.mark.parametrize(
    "arguments", listed("commands"), ids=lambda words: ascii(" ".join(words)[:60])
)
def test_commands(
    project: Path,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = snapshot(project)
    words = [TRAINED if word == "T" else word for word in arguments]
    # Nothing listens there, so that no command begins to work.
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        code, out, err = run(words, monkeypatch, capsys)
    assert code not in (0, None), out + err
    if arguments == ["data"]:
        assert "Usage" in out + err
    else:
        check_said(out, err)
    after = snapshot(project)
    after.pop("artifacts/services", None)  # the empty folder in which `nas up` waits for its turn
    assert after == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([b"describe", b"\xff\xfe.json"], "cannot be read"),
        ([b"describe", b"x" * 3000 + b".json"], "File name too long"),
        ([b"data", b"check", b"x" * 3000], "File name too long"),
        ([b"predict", b"images", b"--model", b"\xff", b"--out", b"o"], "unknown model"),
        ([b"search", b"-S", b"search.strategy=\xff"], "search.strategy"),
        ([b"search", b"-S", b"seed=" + b"[" * 3000], "not a YAML value"),
    ],
)
def test_a_process_of_its_own(project: Path, arguments: list[bytes], message: str) -> None:
    before = snapshot(project)
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli.main import main; main()", *arguments],
        capture_output=True,
        timeout=100,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    assert done.returncode == 1, out + err
    check_said(out, err)
    assert message in err
    assert snapshot(project) == before


def test_a_terminal_without_a_size() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli.main import main; main()", "--help"],
        capture_output=True,
        timeout=100,
        env={**os.environ, "COLUMNS": "0"},
        text=True,
        check=True,
    )
    assert "Usage:" in done.stdout and "leaderboard" in done.stdout


def test_a_name_that_is_no_text_can_be_written_to(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("\udcff", "[/red]", "[bold"):
        arguments = ["predict", "images", "--model", TRAINED, "--out", folder]
        code, out, err = run(arguments, monkeypatch, capsys)
        assert code in (0, None) and "1 of 1 images" in out, out + err
        assert (project / folder / "a.png").exists()


@pytest.mark.parametrize("arguments", [["train", "arch9"], ["fidelity", "arch0", "arch9"]])
def test_an_unknown_architecture_is_refused_before_prefect_is_asked(
    project: Path,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        code, _, err = run(arguments, monkeypatch, capsys)
    assert code == 1 and "arch9" in err and "PREFECT_API_URL" not in err


def test_a_draft_for_a_folder_whose_name_has_two_lines(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "own" / "dataset.yaml").unlink()
    (project / "own").rename(project / "a\nb")
    for said in ("do so on lines 4 to 5 of the draft", "is there: edit it"):
        code, _, err = run(["data", "check", str(project / "a\nb")], monkeypatch, capsys)
        assert code == 1 and said in err
        check_said("", err)


@pytest.mark.parametrize("strange", ["journal.jsonl", "training.json"])
def test_a_search_or_a_training_that_is_damaged(
    project: Path, strange: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in project.rglob(strange):
        path.write_bytes(b"\x00" * 100)
    before = snapshot(project)
    command = {
        "journal.jsonl": ["leaderboard"],
        "training.json": ["ship", TRAINED, "a", "--data-licence", "x"],
    }[strange]
    code, out, err = run(command, monkeypatch, capsys)
    assert code == 1 and strange in err
    check_said(out, err)
    assert snapshot(project) == before


@pytest.mark.parametrize(
    "command",
    [["leaderboard", "--run", "small-1234"], ["report", "small-1234"], ["pick", "small-1234"]],
)
def test_a_journal_with_sums_of_another_program(
    project: Path,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (path,) = project.rglob("journal.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    body = lines[3].replace(b'"reward":0.2', b'"reward":2.0').rpartition(b',"checksum"')[0]
    checksum = hashlib.sha256(body).hexdigest()[:8].encode()
    lines[3] = body + b',"checksum":"' + checksum + b'"}\n'
    path.write_bytes(b"".join(lines))
    before = snapshot(project)
    code, out, err = run(command, monkeypatch, capsys)
    assert code == 1 and "small-1234/journal.jsonl, line 4: reward: 2.0 is above 1; " in err
    check_said(out, err)
    assert snapshot(project) == before
