"""kill -9 at random moments: what is finished in the end equals what was never disturbed."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.servers import orphans
from nas_core.loading import load_settings
from nas_core.search.loop import Search
from nas_core.workers.local import InProcessWorkers
from tests.chaos.harness import (
    Project,
    Server,
    check_mlflow,
    kill_tree,
    seeded_random,
    wait_for,
    workers_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
# So many that the search goes on until the last kill.
NUM_CANDIDATES = 16
SEARCH = ("search", "--stage", "search", "-S", f"search.num_candidates={NUM_CANDIDATES}")
ACTIVE = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


@pytest.fixture
def project(tmp_path: Path, undisturbed: Project, prefect: Server, mlflow: Server) -> Project:
    """The same project before its search and training, recorded by the MLflow server."""
    project = Project(
        tmp_path / "disturbed",
        {**undisturbed.environment, "MLFLOW_TRACKING_URI": mlflow.health.removesuffix("/health")},
    )
    shutil.copytree(undisturbed.folder / "raw", project.folder / "raw")
    shutil.copytree(
        undisturbed.folder / "artifacts" / "prepared", project.folder / "artifacts" / "prepared"
    )
    return project


def test_a_search_survives_kills_of_everything(
    project: Project, undisturbed: Project, prefect: Server, mlflow: Server
) -> None:
    rng = seeded_random()
    kinds = ["command", "worker", "prefect", "mlflow"]
    # One of each kind first: none is left for the end, when little is to be done any more.
    victims = [*rng.sample(kinds, len(kinds)), "command"]
    command = project.start(*SEARCH)
    killed = dict.fromkeys(kinds, 0)
    known: dict[str, int] = {}
    try:
        for victim in victims:
            struck = False
            # The command may be starting or between two trainings: then once more, later.
            while not struck and len(project.records()) < NUM_CANDIDATES:
                if command.poll() is not None:
                    command = project.start(*SEARCH)
                _wait_for_a_moment(rng, project, command)
                if project.journal:
                    trained = project.prefix()
                    assert known.items() <= trained.items(), "trained again"
                    known = trained
                if victim == "worker":
                    _wait_for_a_worker(command)
                going_on = command.poll() is None and len(project.records()) < NUM_CANDIDATES
                struck = _kill(victim, command, prefect, mlflow, rng.uniform(0, 2)) and going_on
            killed[victim] += struck
        while command.wait(600) != 0:
            command = project.start(*SEARCH)
    finally:
        kill_tree(command.pid)
        for server in (prefect, mlflow):
            if server.process is None:
                server.start()
    print(killed)
    assert all(killed.values()), "not all struck a search that went on"
    # Closes what the kills left open, but for what began just now, and has nothing else to do.
    time.sleep(orphans.TIME_TO_CLAIM.total_seconds())
    assert project.run(*SEARCH) == 0
    assert project.outcome() == undisturbed.outcome()
    assert known.items() <= project.prefix().items()
    assert "Traceback" not in project.log.rpartition("going on")[2]
    check_mlflow(project.environment["MLFLOW_TRACKING_URI"], NUM_CANDIDATES)
    assert _active_runs(project) == []


def _wait_for_a_moment(
    rng: random.Random, project: Project, command: subprocess.Popen[bytes]
) -> None:
    """A random time, which ends with the next record at the latest, or shortly after.

    Without that bound it would be over before the last kill; with it, kills strike at every
    moment: at the start, in a training, between the writes of one record and of the next.
    """
    most = len(project.records()) + 1
    deadline = time.monotonic() + rng.uniform(0, 45)
    while time.monotonic() < deadline and command.poll() is None:
        if len(project.records()) >= most:
            time.sleep(rng.uniform(0, 1))
            return
        time.sleep(0.02)


def _wait_for_a_worker(command: subprocess.Popen[bytes]) -> None:
    """Or for the end of the command, which may have no work left for one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and command.poll() is None and not workers_of(command.pid):
        time.sleep(0.02)


def _kill(
    victim: str,
    command: subprocess.Popen[bytes],
    prefect: Server,
    mlflow: Server,
    seconds_away: float,
) -> bool:
    """Whether there was something to kill.

    A server is away from the command for some seconds. While it starts, the command stands still:
    else it would be through with its search before the other victims have their turn.
    """
    match victim:
        case "command":
            alive = command.poll() is None
            command.kill()
            command.wait()
            return alive
        case "worker":
            workers = workers_of(command.pid)
            for process in workers:
                process.kill()
            return bool(workers)
        case _:
            server = prefect if victim == "prefect" else mlflow
            server.kill()
            time.sleep(seconds_away)
            command.send_signal(signal.SIGSTOP)
            try:
                server.start()
            finally:
                command.send_signal(signal.SIGCONT)
            return True


def _active_runs(project: Project) -> list[Any]:
    with (
        temporary_settings({PREFECT_API_URL: project.environment["PREFECT_API_URL"]}),
        get_client(sync_client=True) as client,
    ):
        flows = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=ACTIVE))
            )
        )
        tasks = client.read_task_runs(
            task_run_filter=TaskRunFilter(
                state=TaskRunFilterState(type=TaskRunFilterStateType(any_=ACTIVE))
            )
        )
        return [(run.name, run.state_name) for run in (*flows, *tasks)]


def test_a_training_survives_kills(project: Project, undisturbed: Project) -> None:
    rng = seeded_random()
    num_epochs = 0
    for _ in range(2):
        command = project.start("train", "arch0")
        checkpoint = _checkpoint(project)
        before = checkpoint.stat().st_mtime_ns if checkpoint else 0
        wait_for(
            lambda before=before, command=command: (
                command.poll() is not None
                or ((found := _checkpoint(project)) and found.stat().st_mtime_ns > before)
            ),
            "the next epoch",
        )
        time.sleep(rng.uniform(0, 0.5))
        num_epochs += command.poll() is None
        kill_tree(command.pid)
        command.wait()
    assert num_epochs > 0, "it was over before the first kill"
    assert project.run("train", "arch0") == 0, project.log
    (weights,) = project.folder.glob("artifacts/trainings/arch0-*/model.safetensors")
    (expected,) = undisturbed.folder.glob("artifacts/trainings/arch0-*/model.safetensors")
    assert weights.read_bytes() == expected.read_bytes()
    assert _active_runs(project) == []


def _checkpoint(project: Project) -> Path | None:
    return next(project.folder.glob("artifacts/trainings/arch0-*/checkpoint.pt"), None)


def test_the_second_search_in_a_folder_is_told_who_has_it(project: Project) -> None:
    settings = load_settings(overrides=[SEARCH[-1]], root=project.folder)
    with Search.open(settings, project.folder, InProcessWorkers()):
        assert project.run(*SEARCH) == 1
    assert f"is in use by process {os.getpid()} on" in project.log


def test_a_temporary_prefect_server_is_ended_by_the_next_command(
    tmp_path: Path, undisturbed: Project, prefect_home: Callable[[Path], Path]
) -> None:
    """No server is configured: the command brings its own, which a kill -9 leaves if it hangs."""
    home = prefect_home(tmp_path / "prefect")
    project = Project(tmp_path / "alone", {"PREFECT_HOME": str(home)})
    shutil.copytree(undisturbed.folder / "raw", project.folder / "raw")
    prepare = ("search", "--stage", "prepare")
    command = project.start(*SEARCH)
    wait_for(lambda: "Beginning flow run" in project.log, "the flow to begin")
    found = psutil.Process(command.pid).children()
    servers = [process for process in found if "flows.servers.guarded_prefect" in process.cmdline()]
    assert len(servers) == 1
    servers[0].suspend()
    command.kill()
    command.wait()
    assert servers[0].is_running()
    assert project.run(*prepare) == 0, project.log
    assert not servers[0].is_running()
    assert "had lost its process: now marked as Crashed" in project.log
