"""What the whole suite shares: a Prefect server, and real data where the environment names it."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# The networks of the tests are so small that threads cost more than they bring. Set before torch
# is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The many processes that tests start find compiled what the first one compiles.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Read when Ray is imported, and inherited by its nodes. Without, Ray keeps a token in ~/.ray.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
# MLflow would start ten processes for work that nobody asks for.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
# What no test looks at, and what a server would ask its database for every five seconds.
os.environ.update(
    {
        f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false"
        for service in ("TRIGGERS", "LATE_RUNS", "PAUSE_EXPIRATIONS", "CLEANUP_RECONCILER")
    }
)

import hypothesis
import psutil
import pytest
from filelock import FileLock

from tests.serving import answers, free_port

# Who runs the tests in the background may have Ctrl-C ignored, or hangups with nohup, and the
# processes that tests start and interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

SECONDS_TO_START = 480


@pytest.fixture(autouse=True)
def _events_go_to_the_server_of_the_test() -> Iterator[None]:
    """Prefect's worker of events stays with the first server that it sent one to.

    It would lose what a later test of this process tells another server.
    """
    yield
    if events := sys.modules.get("prefect.events.worker"):
        events.EventsWorker.drain_all(timeout=30)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all processes which run tests share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def empty_store(shared_folder: Path) -> Iterator[Callable[[Path], None]]:
    """Writes an empty MLflow store; also where the program makes one in this process.

    MLflow takes 3 CPU seconds for the tables, so all stores but one are copies.
    """
    store = sys.modules.get("tasks.tracking.store")
    if store is None:  # no test of this run records anything
        yield lambda path: None
        return
    make, template = store._create_tables, shared_folder / "empty-store.db"

    def copy(path: Path) -> None:
        with FileLock(f"{template}.lock"):
            if not template.exists():
                make(template.with_suffix(".new"))
                template.with_suffix(".new").rename(template)
        shutil.copyfile(template, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_create_tables", copy)
        yield copy


@pytest.fixture(scope="session")
def prefect_home(shared_folder: Path) -> Callable[[Path], Path]:
    """Makes a folder Prefect's home, with a database: a server takes 11 CPU seconds to make one."""
    template = shared_folder / "prefect-home"
    with FileLock(f"{template}.lock"):
        if not (template / "prefect.db").exists():
            subprocess.run(
                [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
                env={**os.environ, "PREFECT_HOME": str(template)},
                check=True,
                capture_output=True,
            )

    def new(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for path in template.glob("prefect.db*"):
            shutil.copy(path, folder)
        return folder

    return new


@pytest.fixture(scope="session")
def prefect_server(
    tmp_path_factory: pytest.TempPathFactory, prefect_home: Callable[[Path], Path]
) -> Iterator[str]:
    """A real Prefect server on SQLite of its own; yields its API's address."""
    home = prefect_home(tmp_path_factory.mktemp("prefect"))
    port = free_port()
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "prefect", "server", "start"]
    log = home / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            cwd=home,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}/api"
    try:
        if not answers(f"{address}/health", server, SECONDS_TO_START):
            pytest.fail(f"the Prefect server did not start:\n{log.read_text()[-4000:]}")
        yield address
    finally:
        _end_tree(server.pid)
        server.wait()


@pytest.fixture(scope="session")
def camvid_dir() -> Path:
    """The folder of the real CamVid."""
    return _named_by("NAS_CAMVID_DIR", "a copy of CamVid")


@pytest.fixture(scope="session")
def encoder_weights() -> Path:
    """The file with MobileNetV2's ImageNet weights."""
    return _named_by("NAS_ENCODER_WEIGHTS", "a file with the encoder's ImageNet weights")


@pytest.fixture(scope="session")
def benchmark_tables() -> Path:
    """The folder with tables of other people's networks."""
    return _named_by("NAS_BENCHMARKS_DIR", "a folder with nasbench_mr_cityscapes.csv")


def _named_by(variable: str, content: str) -> Path:
    named = os.environ.get(variable)
    if not named:
        pytest.skip(f"{variable} is not set to {content}")
    path = Path(named).resolve()
    if not path.exists():
        pytest.fail(f"{variable} is {named}, which does not exist: set it to {content}")
    return path


def _end_tree(pid: int) -> None:
    """Kill a process and its descendants: they hold nothing that is worth an orderly end."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    tree = [process, *process.children(recursive=True)]
    for one in tree:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(tree, timeout=30)
