"""nas up, run and down with real servers on free ports, and a stand-in for the search."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from flows.cli.watch import run_deployment_live
from flows.servers import deployments, services, serving
from flows.servers.prefect_server import ACTIVE, api, check_configured, runs_in_state
from nas_core.base.errors import RunError, ServiceError, SettingsError
from tests.serving import free_port

ROOT = Path(__file__).resolve().parents[2]
STANDIN = Path(__file__).parent / "standin"
PATIENCE = 550


@dataclass
class Project:
    """A project folder and a shell of its own, in which `nas up` has run."""

    folder: Path
    home: Path
    prefect_port: int
    mlflow_port: int
    said: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.prefect_port}/api"

    @property
    def environment(self) -> dict[str, str]:
        ours = ("PREFECT_", "MLFLOW_", "NAS_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        paths = os.pathsep.join([str(STANDIN), str(ROOT)])
        return {**kept, "PREFECT_HOME": str(self.home), "PYTHONPATH": paths, "COLUMNS": "200"}

    def start(self, *arguments: str, folder: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder or self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *arguments: str, folder: Path | None = None) -> str:
        process = self.start(*arguments, folder=folder)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
        return output

    def up(self) -> str:
        """`nas up` in this process, which saves it the imports."""
        console = Console(file=io.StringIO(), width=200)
        with (
            temporary_settings({PREFECT_API_URL: self.url}),
            mock.patch.dict(os.environ, self.environment, clear=True),
            mock.patch.object(serving, "MODULE", "standin_served"),
            mock.patch.object(deployments, "FLOWS", {"nas-search": "standin_flow.standin"}),
        ):
            services.up(self.folder, services.Options(), console)
        return said(console)

    def service(self, key: str) -> dict[str, Any]:
        record = json.loads((self.folder / "artifacts/services/services.json").read_text())
        service: dict[str, Any] = record["services"][key]
        return service

    def place(self) -> dict[str, Any]:
        """What the stand-in wrote about the place that it ran in."""
        place: dict[str, Any] = json.loads((self.folder / "place.json").read_text())
        return place

    def run_live(self, name: str, **parameters: Any) -> tuple[FlowRun | None, str]:
        console = Console(file=io.StringIO(), width=200)
        with temporary_settings({PREFECT_API_URL: self.url}):
            run = run_deployment_live(name, parameters, console)
        return run, said(console)

    def start_long_run(self) -> subprocess.Popen[str]:
        """A run that is under way, watched by `nas run` in a process of its own."""
        (self.folder / "place.json").unlink(missing_ok=True)
        (self.folder / "ended.txt").unlink(missing_ok=True)
        code = (
            "from rich.console import Console; from flows.cli.watch import run_deployment_live;"
            "run_deployment_live('nas-search/camvid', {'seconds': 600}, Console())"
        )
        watcher = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_for(lambda: (self.folder / "place.json").exists())
        return watcher


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def copy_settings(folder: Path) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    return folder


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, prefect_home: Callable[[Path], Path]
) -> Iterator[Project]:
    base = tmp_path_factory.mktemp("services")
    with brought_up(base, prefect_home(base / "home")) as project:
        yield project


@contextmanager
def brought_up(base: Path, home: Path) -> Iterator[Project]:
    """A project in a new folder of `base`, from `nas up` to `nas down`."""
    project = Project(copy_settings(base / "project"), home, free_port(), free_port())
    try:
        ports = ("--prefect-port", str(project.prefect_port))
        project.said = project.call(
            "standin_nas", "up", *ports, "--mlflow-port", str(project.mlflow_port)
        )
        yield project
    finally:
        project.call("standin_nas", "down")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def test_up_says_when_each_part_is_ready(project: Project) -> None:
    assert f"Prefect server   ready at http://127.0.0.1:{project.prefect_port}" in project.said
    assert f"MLflow UI        ready at http://127.0.0.1:{project.mlflow_port}" in project.said
    assert "ready: nas-search/camvid, nas-search/cityscapes, nas-search/synthetic" in project.said
    assert get(f"http://127.0.0.1:{project.mlflow_port}/health") == "OK"
    assert (project.folder / "artifacts/mlflow.db").exists()
    # The UI in the browser asks the server that shows it, whatever its name and port.
    ui = json.loads(get(f"http://127.0.0.1:{project.prefect_port}/ui-settings"))
    assert ui["api_url"] == "/api"


def test_a_new_shell_in_any_folder_runs_a_deployment(project: Project, tmp_path: Path) -> None:
    output = project.call(
        "prefect", "deployment", "run", "nas-search/synthetic", "--watch", "--watch-timeout", "200",
        "--param", 'search={"num_candidates": 8, "proxy": {"epochs_a": 1}}',
        folder=tmp_path,
    )  # fmt: skip
    assert "finished successfully" in output
    assert project.place() == {
        "project": str(project.folder),
        "root": str(project.folder),
        "folder": str(project.folder),
        "python": sys.executable,
        "profile": "synthetic",
        "stage": "all",
        "seed": 0,
        # Nothing else of the section is set: the flow takes the rest from the profile.
        "search": {"num_candidates": 8, "proxy": {"epochs_a": 1}},
    }


def test_up_again_says_what_is_up_and_registers_changed_settings(project: Project) -> None:
    params = project.folder / "params.yaml"
    params.write_text(params.read_text().replace("num_candidates: 32", "num_candidates: 33"))
    before = project.service("prefect"), project.service("mlflow")
    output = project.up()
    assert "Prefect server   is up already" in output
    assert "MLflow UI        is up already" in output
    assert (project.service("prefect"), project.service("mlflow")) == before
    with api(project.url) as client:
        deployment = client.read_deployment_by_name("nas-search/camvid")
    assert deployment.parameters["search"]["num_candidates"] == 33


def test_a_run_is_shown_until_it_ends(project: Project) -> None:
    run, shown = project.run_live("nas-search/camvid", seconds=1)
    assert run and run.state and run.state.is_completed()
    assert shown.count("candidate 1 of 2") == 1
    assert f"Run {run.name}: Completed after 0:0" in shown
    assert "Finished in state" not in shown


def test_nas_run_hands_on_parameters(project: Project) -> None:
    output = project.call(
        "standin_nas", "run", "nas-search/synthetic", "--param", "stage=prepare",
        "--param", "seed=7", "--param", 'search={"strategy": "random"}',
    )  # fmt: skip
    assert ": Completed after" in output
    place = project.place()
    assert (place["profile"], place["stage"], place["seed"]) == ("synthetic", "prepare", 7)
    assert place["search"] == {"strategy": "random"}


def test_a_failed_run_is_an_error_with_the_reason(project: Project) -> None:
    with pytest.raises(RunError, match=r"ended as Failed: .*the reason; its log is at http"):
        project.run_live("nas-search/camvid", fail=True)


def test_a_deployment_or_parameter_that_is_not_there_is_named(project: Project) -> None:
    with pytest.raises(ServiceError, match="'nas-search/camvit'; there are: nas-search/camvid, "):
        project.run_live("nas-search/camvit")
    with pytest.raises(SettingsError, match="no parameter 'serch'; did you mean 'search'"):
        project.run_live("nas-search/camvid", serch={})
    with pytest.raises(SettingsError, match=r"'search.proxy.epochs_a'.* less than the minimum"):
        project.run_live("nas-search/camvid", search={"proxy": {"epochs_a": 0}})


def test_ctrl_c_leaves_the_run_alone_and_a_killed_run_is_found(project: Project) -> None:
    watcher = project.start_long_run()
    watcher.send_signal(signal.SIGINT)
    shown, _ = watcher.communicate(timeout=PATIENCE)
    assert watcher.returncode == 0
    assert "it goes on. Watch it with `prefect flow-run watch" in shown
    assert "prefect flow-run cancel" in shown

    server = psutil.Process(project.service("deployments")["pid"])
    (run,) = server.children()
    output = project.up()
    assert "a run is active, so they keep the settings" in output
    assert run.is_running()

    server.kill()
    run.kill()
    output = project.up()
    assert "had lost its process: now marked as Crashed" in output
    assert not active_runs(project)


def active_runs(project: Project) -> list[FlowRun]:
    with api(project.url) as client:
        deployment = client.read_deployment_by_name("nas-search/camvid")
        return runs_in_state(client, [deployment.id], ACTIVE)


def test_somebody_elses_deployments_are_not_taken_over(project: Project, tmp_path: Path) -> None:
    other = copy_settings(tmp_path / "other")
    with (
        temporary_settings({PREFECT_API_URL: project.url}),
        pytest.raises(ServiceError, match=rf"served by somebody else.*{project.folder}"),
    ):
        bring_up(other, services.Options())
    assert not (other / "artifacts/mlflow.db").exists()


def test_down_ends_everything_and_lets_the_active_run_end_cleanly(project: Project) -> None:
    watcher = project.start_long_run()
    project.call("prefect", "deployment", "run", "nas-search/synthetic")
    keys = ("prefect", "mlflow", "deployments")
    processes = [psutil.Process(project.service(key)["pid"]) for key in keys]
    said = project.call("standin_nas", "down")
    assert "was waiting: cancelled" in said
    assert ": Cancelled" in said
    assert (project.folder / "ended.txt").read_text() == "cleanly"
    assert len(psutil.wait_procs(processes, timeout=10)[0]) == len(processes)
    profiles = tomllib.loads((project.home / "profiles.toml").read_text())["profiles"]
    assert "PREFECT_API_URL" not in profiles["ephemeral"]
    watcher.communicate(timeout=PATIENCE)
    assert watcher.returncode != 0
    assert "Nothing is up." in project.call("standin_nas", "down")


def bring_up(folder: Path, options: services.Options) -> None:
    services.up(folder, options, Console(file=io.StringIO()))


@pytest.fixture
def unconfigured() -> Iterator[None]:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


def test_a_busy_port_is_named_with_the_option(tmp_path: Path, unconfigured: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"port {port} .* --prefect-port"):
            bring_up(copy_settings(tmp_path / "project"), services.Options(prefect_port=port))


@pytest.mark.parametrize("address", ["http://nowhere.invalid:4200/api", "https://127.0.0.1:1/api"])
def test_a_remote_server_that_does_not_answer_is_named(tmp_path: Path, address: str) -> None:
    folder = copy_settings(tmp_path / "project")
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(ServiceError, match=rf"no Prefect server answers at {address}"),
    ):
        bring_up(folder, services.Options())


def test_options_that_contradict_the_configured_address(tmp_path: Path) -> None:
    folder = copy_settings(tmp_path / "project")
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}),
        pytest.raises(ServiceError, match=r"the options ask for http://127\.0\.0\.1:4999/api"),
    ):
        bring_up(folder, services.Options(prefect_port=4999))


def test_without_a_server_a_run_points_to_nas_up(unconfigured: None) -> None:
    with pytest.raises(ServiceError, match=r"no Prefect server is configured .*`nas up`"):
        run_deployment_live("nas-search/camvid", {}, Console(file=io.StringIO()))


def test_a_server_that_is_gone_is_named(unconfigured: None) -> None:
    assert check_configured() is None
    address = f"http://127.0.0.1:{free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(ServiceError, match=rf"no Prefect server answers at {address}.*`nas up`"),
    ):
        check_configured()
