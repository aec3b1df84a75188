import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import campaign, rates
from benchmarks.gpu.box import DRY, RESULTS, Box
from nas_core.base.errors import CandidateError, RunError
from nas_core.config import Settings
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.genotype import Genotype
from nas_core.training.record import Training
from nas_core.workers.local import ProcessWorkers, Workers

APP = typer.Typer()
APP.command()(gpu.main)


def test_the_dry_run_goes_on_where_its_time_was_up(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    out = tmp_path / "out"

    def call(minutes: float) -> tuple[dict[str, object], list[str]]:
        done = CliRunner().invoke(APP, ["--dry-run", "--minutes", str(minutes), "--out", str(out)])
        assert done.exit_code == 0, done.output
        return json.loads((out / "results.json").read_text()), done.stdout.splitlines()

    monkeypatch.setattr(Box, "seconds_left", 0.0)
    found, lines = call(9)
    assert found["done"] == [] and "best: not begun" in lines
    monkeypatch.undo()
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    found, lines = call(30)
    assert found["done"] == [*gpu.STEPS]
    assert found["tests"]["exit"] == 0
    measured = found["rates"]
    assert measured.keys() == {"baseline_candidates_per_hour", "1", "2"}
    assert all(rate > 0 for num in ("1", "2") for rate in measured[num].values())
    assert [len(found[name]["best"]) for name in campaign.SEARCHES] == [2, 2]
    assert "held-out: 2 of 2 trainings" in lines and "winner: 2 of 2 trainings" in lines
    assert [row["label"] for row in found["taught"]["trainings"]] == ["alone", "taught"]
    teachers = {
        Training.read(path).recipe.train["teacher"]
        for path in (out / "artifacts/trainings").glob("*/training.json")
    }
    assert teachers == {"none", found["teacher"]["trainings"][0]["folder"]}
    # What was held out is no look at test.
    looks = [json.loads(line) for line in (out / "artifacts/test_looks.jsonl").open()]
    assert {look["data"] for look in looks} == {"synthetic"}
    # What is done is not done again.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again, _ = call(30)
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert again == found and not changed


def test_a_folder_that_cannot_be_used_is_named(small: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(APP, ["--out", str(tmp_path), "-S", f"dataset.path={os.devnull}"])
    assert done.exit_code == 1 and os.devnull in done.output


@pytest.mark.parametrize(
    ("place", "options", "said"),
    [
        ("params.yaml", [], "params.yaml"),
        ("params.yaml/out", [], "params.yaml"),
        ("loop", [], "loop"),
        ("x" * 300, [], "File name too long"),
        ("/proc/out", [], "/proc/out"),
        ("out", ["--minutes", "inf"], "--minutes"),
        ("out", ["--minutes", "nan"], "--minutes"),
        ("out", ["--minutes", "1e300"], "--minutes"),
        ("out", ["-S", "seed=1", "-S", "seed=2"], "-S seed is given twice"),
        ("out", ["-p", "synthetic"], "leave --profile out"),
    ],
)
def test_what_cannot_be_used_is_named_before_any_work(
    small: list[str], tmp_path: Path, place: str, options: list[str], said: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(APP, ["--dry-run", "--out", str(tmp_path / place), *options])
    assert done.exit_code in (1, 2) and isinstance(done.exception, SystemExit)
    assert said in done.output, done.output
    assert sorted(tmp_path.rglob("*")) == before


NETWORK = ARCHITECTURES["arch0"]
ROW = {"id": NETWORK.id, "genotype": NETWORK.to_dict()}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 10000,
        "{}",
        '{"done": [], "done": []}',
        '{"done": ["nosuch"]}',
        '{"done": ["tests"]}',
        '{"done": [], "rates": NaN}',
        '{"done": ["tests"], "tests": 3}',
        json.dumps({"done": ["search"], "search": {"best": [{}]}}),
        json.dumps({"done": ["search"], "search": {"best": [ROW | {"genotype": {}}]}}),
        json.dumps({"done": ["best"], "best": {"trainings": [], "planned": 0}}),
        json.dumps({"done": ["best"], "best": {"trainings": [{"id": "a"}], "planned": 1}}),
        json.dumps({"done": ["held-out"], "held-out": {"trainings": [{"id": "a"}], "planned": 1}}),
        json.dumps({"done": ["teacher"], "teacher": {"trainings": [], "planned": 1}}),
        json.dumps({"done": ["taught"], "taught": {"trainings": [{"label": "a"}], "planned": 1}}),
    ],
)
def test_results_that_are_damaged_are_refused(small: list[str], tmp_path: Path, text: str) -> None:
    (tmp_path / RESULTS).write_text(text)
    done = CliRunner().invoke(APP, ["--dry-run", "--out", str(tmp_path)])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert RESULTS in done.output and "restore it from a copy" in done.output
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("name", [RESULTS, rates.OUTCOMES])
def test_results_that_are_no_file_are_named(small: list[str], tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    done = CliRunner().invoke(APP, ["--dry-run", "--out", str(tmp_path)])
    assert done.exit_code == 1 and name in done.output
    assert not (tmp_path / "artifacts").exists()


def box(out: Path, tests: tuple[str, ...] = ()) -> Box:
    lengths = replace(DRY, tests=tests)
    return Box(Settings(), out, lengths, {"done": []}, time.monotonic() + 300)


TESTS = """
import os
import pytest

def test_passes(): pass

def test_ends_the_process(): os._exit(3)

def test_fails(): assert False

@pytest.mark.skipif(True, reason="there is no GPU")
def test_wants_a_gpu(): pass
"""


def test_tests_go_on_where_they_were_cut_off(tmp_path: Path) -> None:
    """Those that want a GPU first; one that takes the process down twice is left out."""
    file = tmp_path / "test_some.py"
    file.write_text(TESTS)
    used = box(tmp_path, (str(file),))
    found = used.found
    rates.run_tests(used)
    assert found["tests"] == {"passed": 1, "skipped": 1, "failed": [], "lost": [], "exit": 3}
    lines = (tmp_path / rates.OUTCOMES).read_text().split("\n")[1:]
    assert json.loads(lines[0])[0].endswith("test_wants_a_gpu")
    with (tmp_path / rates.OUTCOMES).open("a") as outcomes:
        outcomes.write('\n3\n["cut o')  # as a full disk leaves it
    rates.run_tests(used)
    rates.run_tests(used)
    failed, lost = found["tests"]["failed"], found["tests"]["lost"]
    assert [name.partition("::")[2] for name in (*failed, *lost)] == [
        "test_fails",
        "test_ends_the_process",
    ]
    assert found["tests"]["passed"] == 1 and found["tests"]["exit"] == 1
    assert "assert False" in (tmp_path / rates.LOG).read_text()
    before = (tmp_path / rates.OUTCOMES).read_bytes()
    rates.run_tests(used)
    assert found["tests"]["exit"] == 0 and (tmp_path / rates.OUTCOMES).read_bytes() == before


def test_a_step_that_fails_leaves_the_others_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(box: Box) -> None:
        raise CandidateError("out of memory")

    steps = {"tests": (0.5, fails), "rates": (0.5, lambda box: None), "best": (0.0, fails)}
    monkeypatch.setattr(gpu, "STEPS", steps)
    monkeypatch.setattr(gpu, "AFTER", {"best": ("tests",)})
    found: dict[str, object] = {"done": []}
    with pytest.raises(CandidateError, match="out of memory"):
        gpu.run(Settings(), tmp_path, found, DRY, 1.0)
    assert json.loads((tmp_path / RESULTS).read_text())["done"] == ["rates"]


@pytest.mark.parametrize("failing", [{"arch0"}, {"arch0", "arch1"}])
def test_a_training_that_fails_is_noted_and_the_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: set[str]
) -> None:
    def train(workers: Workers, settings: Settings, root: Path, label: str, _: Genotype) -> Path:
        if label in failing:
            raise CandidateError("out of memory")
        return used.root / label

    monkeypatch.setattr(campaign, "train", train)
    monkeypatch.setattr(campaign, "evaluate", lambda *_: SimpleNamespace(mean_iou=0.5))
    used = box(tmp_path)
    networks = {label: ARCHITECTURES[label] for label in ("arch0", "arch1")}
    settings = used.with_settings(train__splits="train+val", train__epochs=1)
    planned = campaign.with_seeds(settings, networks, 1)
    if failing == {*networks}:
        with pytest.raises(CandidateError, match="all trainings failed; the first: out of memory"):
            campaign.train_all(used, "claims", planned)
    else:
        campaign.train_all(used, "claims", planned)
    kept = json.loads((tmp_path / RESULTS).read_text())["claims"]
    assert gpu._line(kept) == f"{2 - len(failing)} of 2 trainings, {len(failing)} failed"
    assert {row["label"] for row in kept["failed"]} == failing
    assert kept["failed"][0]["reason"] == "out of memory" and kept["planned"] == 2
    assert [row["test"] for row in kept["trainings"]] == [0.5] * (2 - len(failing))


def test_the_winner_is_good_on_val_and_on_what_was_held_out() -> None:
    def found(val: dict[str, float], held_out: dict[str, float]) -> dict[str, Any]:
        return {
            "best": {"trainings": [{"id": one, "val": score} for one, score in val.items()]},
            "held-out": {"trainings": [{"id": one, "test": s} for one, s in held_out.items()]},
        }

    val = {"a": 0.6, "b": 0.5, "c": 0.4}
    assert campaign.decided(found(val, {"a": 0.2, "b": 0.4, "c": 0.45})) == "b"
    assert campaign.decided(found(val, {"b": 0.1, "c": 0.3})) == "c"
    assert campaign.decided(found(val, {})) == "a"


def test_a_teacher_helps_where_the_taught_are_better_on_both() -> None:
    def helps(*rows: tuple[str, dict[str, float]]) -> bool:
        trainings = [{"label": label, **scores} for label, scores in rows]
        return campaign.teacher_helps({"taught": {"trainings": trainings}})

    alone, taught = ("alone", {"val": 0.5, "test": 0.3}), ("taught", {"val": 0.4, "test": 0.5})
    assert helps(alone, taught) and not helps(alone, taught, ("taught", {"val": 0.3, "test": 0.3}))
    assert helps(("alone", {"val": 0.5}), ("taught", {"val": 0.6}))
    assert not helps(taught) and not helps(alone)


def test_what_fails_beside_others_ends_them() -> None:
    with ProcessWorkers(2, math.inf, 1) as workers:

        def job(number: int) -> None:
            if number == 0:
                raise CandidateError("out of memory")
            workers.call(time.sleep, 3600)

        with pytest.raises(RunError, match="out of memory"):
            rates._in_each(workers, job)


def test_sigterm_ends_it_as_an_exception() -> None:
    """In a process of its own: it took one down that had run other tests before."""
    code = (
        "import signal; from benchmarks.gpu import __main__ as gpu\n"
        "try:\n"
        "    with gpu._sigterm_raises(): signal.raise_signal(signal.SIGTERM)\n"
        "finally: print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=rates.ROOT
    )
    assert (done.returncode, done.stdout) == (143, "True\n"), done.stderr
