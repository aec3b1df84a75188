"""One of several full trainings fails, as its processes are killed for real."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from nas_core.base.locks import holder
from tests.command_line import run_nas
from tests.tiny import tiny

PARAMS = tiny(
    dataset={"synthetic": {"num_train": 4, "num_val": 2, "num_test": 2}},
    train={"top": 0, "also": ["arch0", "arch1", "camvid0"]},
    runner={"workers": 2},
)
OTHERS = ["arch1", "camvid0"]


@pytest.fixture(scope="module", autouse=True)
def server(prefect_server: str) -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@contextmanager
def killed(project: Path, label: str) -> Iterator[None]:
    """Meanwhile each process that trains a network is killed."""
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.01):
            for folder in project.glob(f"artifacts/trainings/{label}-*"):
                if (named := holder(folder)) and (pid := int(named.split()[1])) != os.getpid():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        ended.set()
        killer.join()


def trained(project: Path) -> dict[str, int]:
    """The labels of the trainings that are complete, and when they were."""
    complete = project.glob("artifacts/trainings/*/training.json")
    return {path.parent.name.partition("-")[0]: path.stat().st_mtime_ns for path in complete}


def with_scores(project: Path) -> set[str]:
    """The labels of the trainings that have their scores."""
    scored = project.glob("artifacts/trainings/*/test.json")
    return {path.parent.name.partition("-")[0] for path in scored}


def recorded(project: Path) -> set[str]:
    """The labels of the trainings in MLflow."""
    client = MlflowClient(f"sqlite:///{project}/artifacts/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`nas.kind` = 'training'")
    return {run.info.run_name.removeprefix("train ") for run in runs}


@pytest.mark.parametrize(
    ("command", "advice", "tests"),
    [
        (("search", "--stage", "train"), "or take it out of train.also", False),
        (("search",), "or take it out of train.also", True),
        (
            ("verify", *(word for name in ("arch0", *OTHERS) for word in ("--architecture", name))),
            "or leave it out: --architecture and --seed name the others",
            True,
        ),
    ],
    ids=["search --stage train", "search", "verify"],
)
def test_the_others_are_finished_and_the_next_call_tries_it_again(
    project: Path,
    command: tuple[str, ...],
    advice: str,
    tests: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, *_ = run_nas(monkeypatch, capsys, "search", "--stage", "prepare")
    assert code == 0
    with killed(project, "arch0"):
        code, _, error = run_nas(monkeypatch, capsys, *command)
    assert code == 1
    *_, last = error.strip().splitlines()
    assert "arch0" in last and "its process ended 3 times" in last and last.endswith(advice)
    before = trained(project)
    assert {*before} == {*OTHERS} == recorded(project)
    assert with_scores(project) == ({*OTHERS} if tests else set())
    code, *said = run_nas(monkeypatch, capsys, *command)
    assert code == 0, said
    after = trained(project)
    assert {*after} == recorded(project) == {"arch0", *OTHERS}
    assert before.items() <= after.items()
