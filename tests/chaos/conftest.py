"""Servers and an undisturbed run that the tests of a module share."""

from collections.abc import Iterator

import pytest

from tests.chaos.harness import Project, Server, free_port


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port, home = free_port(), tmp_path_factory.mktemp("prefect")
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
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port, home = free_port(), tmp_path_factory.mktemp("mlflow")
    server = Server(
        ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        f"http://127.0.0.1:{port}/health",
        home,
        {
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{home}/mlflow.db",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
    )
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prefect: Server
) -> Project:
    """The module's SEARCH and a training that ran in one piece, recorded in an SQLite file."""
    project = Project(
        tmp_path_factory.mktemp("undisturbed"),
        {"PREFECT_API_URL": prefect.health.removesuffix("/health")},
    )
    for arguments in (
        ("search", "--stage", "prepare"),
        request.module.SEARCH,
        ("train", "arch0"),
    ):
        assert project.run(*arguments) == 0, project.log
    return project
