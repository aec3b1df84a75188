"""Servers and an undisturbed run that the tests of a module share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas_core.base.paths import prepared_folder
from nas_core.data.preparing import prepare
from nas_core.loading import load_settings
from nas_core.search.loop import Search
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training.lifecycle import train_architecture
from nas_core.workers.local import InProcessWorkers
from tests.chaos.harness import Project, Server
from tests.serving import free_port


@pytest.fixture(scope="module")
def prefect(
    tmp_path_factory: pytest.TempPathFactory, prefect_home: Callable[[Path], Path]
) -> Iterator[Server]:
    port, home = free_port(), prefect_home(tmp_path_factory.mktemp("prefect"))
    server = Server(
        ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        f"http://127.0.0.1:{port}/api/health",
        home,
        {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
    )
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def mlflow(
    tmp_path_factory: pytest.TempPathFactory, empty_store: Callable[[Path], None]
) -> Iterator[Server]:
    port, home = free_port(), tmp_path_factory.mktemp("mlflow")
    empty_store(home / "mlflow.db")
    server = Server(
        ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        f"http://127.0.0.1:{port}/health",
        home,
        {
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{home}/mlflow.db",
        },
    )
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prefect: Server
) -> Project:
    """The module's SEARCH and a training that ran in one piece, in this process without servers."""
    project = Project(
        tmp_path_factory.mktemp("undisturbed"),
        {"PREFECT_API_URL": prefect.health.removesuffix("/health")},
    )
    overrides = [part for part in request.module.SEARCH if "=" in part]
    root, settings = project.folder, load_settings(overrides=overrides, root=project.folder)
    prepare(settings.dataset, root, prepared_folder(root, settings))
    with Search.open(settings, root, InProcessWorkers()) as search:
        search.run()
    train_architecture(settings, root, "arch0", ARCHITECTURES["arch0"])
    return project
