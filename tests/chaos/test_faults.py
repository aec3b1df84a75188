"""Disks that fill, servers that go away, and candidates that hang, die or raise."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.search import nas_search
from nas_core.base.errors import UnavailableError
from nas_core.config import SearchSettings
from nas_core.search import loop
from tasks import search_log
from tasks.tracking import store
from tests.chaos.harness import Project, Server, check_mlflow, kill_tree, wait_for
from tests.command_line import run_nas

sys.path.append(str(Path(__file__).parents[1] / "standins"))

import standin_scores

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SEARCH = ("search", "--stage", "search")


@pytest.fixture
def project(
    tmp_path: Path, undisturbed: Project, monkeypatch: pytest.MonkeyPatch, prefect: Server
) -> Iterator[Project]:
    """A prepared project for flows in this process, recorded in an SQLite file."""
    project = _copy(undisturbed, tmp_path / "project")
    monkeypatch.setenv("NAS_PROJECT_DIR", str(project.folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with temporary_settings({PREFECT_API_URL: undisturbed.environment["PREFECT_API_URL"]}):
        yield project


@pytest.fixture
def plan(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says what becomes of the next candidates, in place of training them."""
    path = project.folder / "plan"
    monkeypatch.setenv(standin_scores.PLAN, str(path))
    monkeypatch.setattr(loop, "score_candidate", standin_scores.planned_score)
    return path


def _copy(source: Project, folder: Path) -> Project:
    """A project whose dataset is prepared and whose search has not begun."""
    project = Project(folder, dict(source.environment))
    for part in ("raw", "artifacts/prepared"):
        shutil.copytree(source.folder / part, folder / part)
    return project


def _search(num_candidates: int, seed: int = 0) -> None:
    settings = SearchSettings(num_candidates=num_candidates, max_failures=4)
    nas_search(stage="search", seed=seed, search=settings)


def test_candidates_that_fail_are_shown_as_failed_and_teach_nothing(
    project: Project, plan: Path
) -> None:
    plan.write_text("score raise memory killed killed killed killed score")
    _search(5)
    records = project.records()
    # The last one lost its worker once, and another one finished it.
    assert [record.status for record in records] == [
        "finished", "failed", "failed", "failed", "finished",
    ]  # fmt: skip
    reasons = [record.reason for record in records[1:4]]
    for reason, expected in zip(
        reasons,
        [
            "ZeroDivisionError: division by zero",
            "memory",
            "its process ended 3 times without a word",
        ],
        strict=True,
    ):
        assert expected in reason
    assert all(record.reward is None for record in records[1:4])
    client = MlflowClient(f"sqlite:///{project.folder}/artifacts/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`nas.kind` = 'candidate'")
    failed = {run.data.tags["nas.candidate"]: run for run in runs if run.info.status == "FAILED"}
    assert sorted(failed) == ["2", "3", "4"]
    assert all("reward" not in run.data.metrics for run in failed.values())
    assert [failed[key].data.tags["failure"] for key in sorted(failed)] == reasons


def test_mlflow_goes_away_and_comes_back(
    project: Project, plan: Path, mlflow: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not recorded while it was away is recorded later."""
    uri = mlflow.health.removesuffix("/health")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(search_log, "SECONDS_BETWEEN_TRIES", 1.0)
    plan.write_text("slow " * 8)

    def outage() -> None:
        wait_for(lambda: len(project.records()) >= 2, "two candidates")
        mlflow.kill()
        wait_for(lambda: len(project.records()) >= 5, "the search to go on without MLflow")
        mlflow.start()

    away = threading.Thread(target=outage)
    away.start()
    try:
        _search(8)
    finally:
        away.join()
    assert len(project.records()) == 8
    check_mlflow(uri, 8)


def test_mlflow_is_away_at_the_end(
    project: Project, plan: Path, mlflow: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search is complete; it says so that MLflow lacks a part, and the next time it has it."""
    uri = mlflow.health.removesuffix("/health")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(store, "PATIENCE", 2.0)
    plan.write_text("slow " * 4)

    def outage() -> None:
        wait_for(lambda: len(project.records()) >= 2, "two candidates")
        mlflow.kill()

    away = threading.Thread(target=outage)
    away.start()
    with pytest.raises(UnavailableError, match="it does not answer"):
        _search(4, seed=1)
    away.join()
    assert len(project.records()) == 4
    mlflow.start()
    _search(4, seed=1)
    runs = MlflowClient(uri).search_runs(
        [MlflowClient(uri).get_experiment_by_name("tiny").experiment_id],
        f"tags.`nas.search` = '{project.journal.parent.name}'",
    )
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert runs[0].data.metrics["progress/candidates"] == 4


def test_a_locked_database_is_waited_for(project: Project, plan: Path) -> None:
    plan.write_text("slow " * 6)
    database = project.folder / "artifacts" / "mlflow.db"

    def lock() -> None:
        wait_for(lambda: len(project.records()) >= 1, "a candidate")
        connection = sqlite3.connect(database, timeout=60)
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(40)
        connection.rollback()
        connection.close()

    locking = threading.Thread(target=lock)
    locking.start()
    _search(6)
    locking.join()
    check_mlflow(f"sqlite:///{database}", 6)


def test_prefect_goes_away_and_comes_back(
    project: Project, undisturbed: Project, prefect: Server
) -> None:
    """The search goes on, and ends as it should once the server is back."""
    command = project.start(*SEARCH)
    try:
        wait_for(lambda: len(project.records()) >= 2 or command.poll() is not None, "candidates")
        prefect.kill()
        wait_for(lambda: len(project.records()) >= 9 or command.poll() is not None, "the search")
        prefect.start()
        assert command.wait(300) == 0, project.log
    finally:
        kill_tree(command.pid)
        if prefect.process is None:
            prefect.start()
    assert project.outcome() == undisturbed.outcome()
    with get_client(sync_client=True) as client:
        states = {run.state_name for run in client.read_flow_runs() if run.name.endswith("search")}
    assert "Running" not in states


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB: a finished search takes 24, and 10 for its page."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("stage", ["search", "train"])
def test_a_full_disk_stops_the_work_until_there_is_room(
    small_disk: Path,
    undisturbed: Project,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = _copy(undisturbed, small_disk / "project")
    monkeypatch.setenv("NAS_PROJECT_DIR", str(project.folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    arguments = SEARCH if stage == "search" else ("train", "arch0")
    filler = small_disk / "filler"

    def fill() -> None:
        wait_for(lambda: _has_begun(project), "work to be lost")
        _fill(filler)

    filling = threading.Thread(target=fill)
    filling.start()
    with temporary_settings({PREFECT_API_URL: undisturbed.environment["PREFECT_API_URL"]}):
        code, _, error = run_nas(monkeypatch, capsys, *arguments)
        filling.join()
        assert code == 1
        assert "cannot be written: No space left on device" in error
        assert "Traceback" not in error
        filler.unlink()
        code, *output = run_nas(monkeypatch, capsys, *arguments)
        assert code == 0, output
    if stage == "search":
        assert project.outcome() == undisturbed.outcome()
    else:
        trained = "artifacts/trainings/arch0-*/model.safetensors"
        (weights,) = project.folder.glob(trained)
        (expected,) = undisturbed.folder.glob(trained)
        assert weights.read_bytes() == expected.read_bytes()


def _has_begun(project: Project) -> bool:
    return bool(project.records() or list(project.folder.glob("artifacts/trainings/*/check*.pt")))


def _fill(path: Path) -> None:
    with path.open("wb") as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    os.write(file.fileno(), bytes(size))
            except OSError:
                continue
