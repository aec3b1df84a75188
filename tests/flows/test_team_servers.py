"""The servers of deploy/: real Prefect, MLflow and PostgreSQL, started with the compose file's own
commands and environments, and an S3 server in place of its container. A search by one of a team.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import httpx
import psutil
import psycopg
import pytest
import yaml
from moto.server import ThreadedMotoServer

from nas_core.base.errors import ServiceError
from tasks.tracking.store import connect as connect_store
from tests.serving import answers, free_port
from tests.tiny import tiny

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[2] / "deploy"
SECRETS = {
    "POSTGRES_PASSWORD": "pg secret",
    "S3_ACCESS_KEY": "key",
    "S3_SECRET_KEY": "s3-secret",
    "PREFECT_AUTH": "nas:prefect-secret",
    "MLFLOW_PASSWORD": "mlflow-secret",
    "MLFLOW_SECRET_KEY": "any text",
    "ADAS_PASSWORD": "adas own secret",
}
PARAMS = tiny(search={"num_candidates": 2, "proxy": {"epochs_b": 0}})


@dataclass
class Team:
    """Where the servers are, and the environment of who works with them."""

    postgres_port: int
    s3: Any
    environment: dict[str, str]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    ports = {name: free_port() for name in ("postgres:5432", "s3:8333", "prefect", "mlflow")}
    started: list[subprocess.Popen[bytes]] = []
    with postgresql(ports["postgres:5432"]):
        with connect(ports["postgres:5432"], "postgres") as connection:
            for statement in (DEPLOY / "databases.sql").read_text().split(";\n"):
                if statement.strip():
                    connection.execute(statement)
        s3_server = ThreadedMotoServer(port=ports["s3:8333"], verbose=False)
        s3_server.start()
        s3 = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{ports['s3:8333']}",
            aws_access_key_id=SECRETS["S3_ACCESS_KEY"],
            aws_secret_access_key=SECRETS["S3_SECRET_KEY"],
            region_name="us-east-1",
        )
        services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
        s3.create_bucket(Bucket=services["s3"]["environment"]["S3_BUCKET"])
        try:
            for name in ("prefect", "mlflow"):
                started.append(start(name, services[name], ports, folder))
            for path, server in zip(
                (f"{ports['prefect']}/api/health", f"{ports['mlflow']}/health"),
                started,
                strict=True,
            ):
                wait_for(f"http://127.0.0.1:{path}", server, folder)
            httpx.post(
                f"http://127.0.0.1:{ports['mlflow']}/api/2.0/mlflow/users/create",
                auth=("admin", SECRETS["MLFLOW_PASSWORD"]),
                json={"username": "ada", "password": SECRETS["ADAS_PASSWORD"]},
                timeout=60,
            ).raise_for_status()
            yield Team(
                ports["postgres:5432"],
                s3,
                {
                    **os.environ,
                    "PREFECT_API_URL": f"http://127.0.0.1:{ports['prefect']}/api",
                    "PREFECT_API_AUTH_STRING": SECRETS["PREFECT_AUTH"],
                    "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
                    "MLFLOW_TRACKING_USERNAME": "ada",
                    "MLFLOW_TRACKING_PASSWORD": SECRETS["ADAS_PASSWORD"],
                },
            )
        finally:
            for server in started:
                end(server)
            s3_server.stop()


@contextmanager
def postgresql(port: int) -> Iterator[None]:
    """A PostgreSQL of this machine that asks for the password."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(found[-1]) if found else None)
    if initdb is None:
        pytest.skip("PostgreSQL is not installed")
    # It refuses to run as root, and nobody but its owner may enter the folders of pytest.
    as_root = os.geteuid() == 0
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if as_root else []
    with tempfile.TemporaryDirectory(prefix="nas-postgresql-") as name:
        folder = Path(name)

        def run(program: str, *arguments: str) -> None:
            command = [*user, str(Path(initdb).parent / program), "-D", str(folder / "data")]
            subprocess.run(
                [*command, *arguments], cwd="/", stdout=subprocess.DEVNULL, check=True, timeout=120
            )

        password = folder / "password"
        password.write_text(SECRETS["POSTGRES_PASSWORD"])
        if as_root:
            for path in (folder, password):
                shutil.chown(path, "postgres", "postgres")
        run("initdb", "--username=postgres", "--auth=scram-sha-256", f"--pwfile={password}")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
        run("pg_ctl", "start", "--wait", "-o", options, "-l", str(folder / "log"))
        try:
            yield
        finally:
            run("pg_ctl", "stop", "--wait", "--mode=immediate")


def connect(port: int, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host="127.0.0.1", port=port, user="postgres", dbname=database,
        password=SECRETS["POSTGRES_PASSWORD"], autocommit=True,
    )  # fmt: skip


def start(
    name: str, service: dict[str, Any], ports: dict[str, int], folder: Path
) -> subprocess.Popen[bytes]:
    """A service of the compose file as a process of this machine, at its port of `ports`."""

    def here(text: str) -> str:
        text = re.sub(r"\$\{(\w+)[^}]*\}", lambda found: SECRETS.get(found[1], ""), text)
        for host in ("postgres:5432", "s3:8333"):
            text = text.replace(host, f"127.0.0.1:{ports[host]}")
        return text

    environment = {key: here(value) for key, value in service["environment"].items()}
    # The files of the compose file's volumes, at their places.
    for volume in service.get("volumes", ()):
        source, target, _ = volume.split(":")
        placed = folder / Path(target).name
        placed.write_text(here((DEPLOY / source).read_text()))
        environment = {key: str(placed) if value == target else value
                       for key, value in environment.items()}  # fmt: skip
    if not environment.get("MLFLOW_SERVER_ALLOWED_HOSTS"):
        environment.pop("MLFLOW_SERVER_ALLOWED_HOSTS", None)
    program, *arguments = shlex.split(service["command"])
    arguments[arguments.index("--host") + 1] = "127.0.0.1"
    arguments[arguments.index("--port") + 1] = str(ports[name])
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", program, *arguments],
            env={**os.environ, "PREFECT_HOME": str(folder / "home"), **environment},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def wait_for(address: str, server: subprocess.Popen[bytes], folder: Path) -> None:
    if not answers(address, server, 400):
        logs = "\n".join(path.read_text()[-3000:] for path in folder.glob("*.log"))
        pytest.fail(f"{address} does not answer:\n{logs}")


def end(server: subprocess.Popen[bytes]) -> None:
    tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    for process in tree:
        process.terminate()
    for process in psutil.wait_procs(tree, timeout=30)[1]:
        process.kill()
    server.wait()


def nas(project: Path, environment: dict[str, str], *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", "from flows.cli.main import main; main()", *arguments],
        env={**environment, "NAS_PROJECT_DIR": str(project)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    return f"{result.returncode}\n{result.stdout}{result.stderr}"


def test_a_search_is_recorded_on_postgresql_and_in_s3(team: Team, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    output = nas(tmp_path, team.environment, "search")
    assert output.startswith("0\n"), output

    with connect(team.postgres_port, "prefect") as prefect:
        runs = prefect.execute("SELECT name, state_type FROM flow_run").fetchall()
        tasks = prefect.execute("SELECT count(*) FROM task_run").fetchone()
    assert [state for _, state in runs] == ["COMPLETED"]
    assert tasks is not None and tasks[0] >= 4
    with connect(team.postgres_port, "mlflow") as mlflow:
        rewards = mlflow.execute("SELECT value FROM metrics WHERE key = 'reward'").fetchall()
        models = mlflow.execute("SELECT name FROM registered_models").fetchall()
        places = mlflow.execute("SELECT DISTINCT artifact_uri FROM runs").fetchall()
    assert len(rewards) >= 2
    assert models == [("nas-tiny",)]
    assert all(place.startswith("mlflow-artifacts:/") for (place,) in places)

    stored = [one["Key"] for one in team.s3.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert any(key.endswith("genotype.json") for key in stored)
    assert any(key.endswith("model.safetensors") for key in stored)
    assert not (tmp_path / "artifacts" / "mlflow").exists()
    assert not (tmp_path / "artifacts" / "mlflow.db").exists()

    # Another one of the team, elsewhere, who has neither the data nor the search.
    fetched = subprocess.run(
        [sys.executable, "-c",
         "import mlflow; print(mlflow.pyfunc.load_model('models:/nas-tiny/1').metadata.flavors)"],
        env=team.environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert fetched.returncode == 0, fetched.stderr


@pytest.mark.parametrize("left_out", ["PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_PASSWORD"])
def test_without_a_password_nothing_starts(left_out: str, team: Team, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    environment = {key: value for key, value in team.environment.items() if key != left_out}
    output = nas(tmp_path, environment, "search")
    assert output.startswith("1\n"), output
    assert left_out in output
    assert "Traceback" not in output
    assert not (tmp_path / "artifacts" / "searches").exists()
    for secret in SECRETS.values():
        assert secret not in output


def test_the_database_is_a_store_without_its_server_too(team: Team) -> None:
    def address(password: str) -> str:
        place = f"127.0.0.1:{team.postgres_port}/mlflow"
        return f"postgresql+psycopg://postgres:{quote(password)}@{place}"

    client = connect_store(address(SECRETS["POSTGRES_PASSWORD"]))
    assert client.get_experiment_by_name("tiny") is not None
    with pytest.raises(ServiceError, match="password authentication failed") as caught:
        connect_store(address("wrong secret"))
    assert "wrong" not in str(caught.value)
