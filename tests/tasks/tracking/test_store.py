import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from nas_core.base.errors import ServiceError, UnavailableError
from tasks.tracking import store
from tasks.tracking.store import connect, ensure_experiment, tracking_uri
from tasks.tracking.tracker import Tracker
from tests.robustness.cases import ANSWERS_WITHOUT_END, serving


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def test_the_setting_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert tracking_uri("", tmp_path) == f"sqlite:///{tmp_path}/artifacts/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri("", tmp_path) == "http://127.0.0.1:5000"
    assert tracking_uri("https://host/path", tmp_path) == "https://host/path"


def test_sqlite_paths_start_at_the_project(tmp_path: Path) -> None:
    assert tracking_uri("sqlite:///runs/m.db", tmp_path) == f"sqlite:///{tmp_path}/runs/m.db"
    assert tracking_uri("sqlite:////data/m.db", tmp_path) == "sqlite:////data/m.db"
    assert tracking_uri("", Path("relative")).startswith(f"sqlite:///{Path.cwd()}/relative/")


def test_the_reason_of_a_database_is_told_and_not_what_stands_before_it() -> None:
    said = (
        "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush "
        "block if this flush is occurring prematurely)\n"
        "(sqlite3.OperationalError) database is locked\n[SQL: INSERT ...]"
    )
    with (
        pytest.raises(ServiceError, match=r"m\.db: \(sqlite3.OperationalError\) database is lock"),
        store.service_errors("sqlite:///m.db"),
    ):
        raise MlflowException(said)


def test_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    root = tmp_path / "100% ünï ?"
    Tracker.check(tracking_uri("", root))
    assert (root / "artifacts" / "mlflow.db").stat().st_size > 100_000
    assert list(Path.cwd().iterdir()) == []


def test_a_folder_whose_models_could_not_be_loaded_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "a%2Fb"
    for setting in ("", "sqlite:///m.db", "postgresql://host/db"):
        with pytest.raises(ServiceError, match=r"a%2Fb holds %2F, which MLflow reads as '/'"):
            tracking_uri(setting, root)
    assert tracking_uri("http://host", root) == "http://host"  # the server has the artifacts


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://", "names no host"),
        ("http://[::1", "malformed"),
        ("http://user:secret@host:port", "malformed"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("htp://host", "unsupported URI"),
        ("http+unix://host", "unsupported URI"),
        ("http://xn--/", "http://xn--/: "),
        ("sqlite:///m.db?mode=ro", "have no effect; leave them out"),
        ("mlruns", "mlruns"),
        ("file:///tmp/mlruns", "sqlite"),
    ],
)
def test_malformed_and_unsupported_addresses(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(ServiceError, match=message) as error:
        connect(tracking_uri(uri, tmp_path))
    assert "secret" not in str(error.value) and "tracking.uri" in str(error.value)


def test_a_malformed_address_is_named_by_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "htp://user:secret@host")
        with pytest.raises(ServiceError, match=f"^{name}: .* unsupported URI") as error:
            tracking_uri("", tmp_path)
        assert "secret" not in str(error.value)
        monkeypatch.delenv(name)


@pytest.mark.parametrize("token", ["hunter2\nx", "hunter2\u20ac"])
def test_a_token_that_is_none_is_not_shown(
    closed_port: int, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    with pytest.raises(ServiceError, match=r"^MLFLOW_TRACKING_TOKEN has a line break") as error:
        connect(f"http://127.0.0.1:{closed_port}")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_an_address_that_refuses(closed_port: int, scheme: str) -> None:
    with pytest.raises(ServiceError) as error:
        connect(f"{scheme}://user:secret@127.0.0.1:{closed_port}/db")
    assert f"{scheme}://127.0.0.1:{closed_port}/db: it does not answer" in str(error.value)
    assert "tracking.uri" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_variable_of_mlflow_that_is_malformed(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")
    message = r"'soon' for MLFLOW_HTTP_REQUEST_TIMEOUT.*: correct it"
    with pytest.raises(ServiceError, match=message):
        connect(f"http://127.0.0.1:{closed_port}")


def test_a_server_that_never_answers(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.SECONDS_TO_ANSWER <= 10
    monkeypatch.setattr(store, "SECONDS_TO_ANSWER", 1)
    with pytest.raises(ServiceError, match="does not answer"):
        connect(f"http://127.0.0.1:{silent_port}")


@pytest.mark.parametrize("name", ANSWERS_WITHOUT_END)
def test_a_server_that_never_ends_its_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read succeeds, so the time-outs of reads do not help."""
    monkeypatch.setattr(store, "SECONDS_TO_ANSWER", 1)
    with serving(name) as address, pytest.raises(ServiceError, match="does not answer within 1 s"):
        connect(address.replace("http://", "http://user:secret@"))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "artifacts" / "mlflow.db"
    path.parent.mkdir()
    path.write_text("not a database at all, no")
    with pytest.raises(ServiceError, match=r"mlflow\.db is not an SQLite file"):
        connect(tracking_uri("", tmp_path))
    path.unlink()
    path.mkdir()
    with pytest.raises(ServiceError, match=r"mlflow\.db cannot be used"):
        connect(tracking_uri("", tmp_path))
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(ServiceError, match=r"mlflow\.db cannot be used: not a regular file"):
        connect(tracking_uri("", tmp_path))


def test_a_database_in_a_folder_that_takes_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(path: Path) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(store, "_create_tables", create)  # it would try for minutes
    with pytest.raises(ServiceError, match=r"/proc/x\.db cannot be made: /proc .* tracking\.uri"):
        connect("sqlite:////proc/x.db")


def test_a_database_of_another_version(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.executescript(
            "create table experiments(a); create table alembic_version(version_num);"
            "insert into alembic_version values('later')"
        )
    with pytest.raises(ServiceError, match=r"mlflow\.db: .*'later'") as raised:
        connect(uri)
    assert not isinstance(raised.value, UnavailableError)


def test_processes_may_create_the_store_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tasks.tracking.store import tracking_uri;"
        "from tasks.tracking.tracker import Tracker;"
        "root = Path(sys.argv[1]); Tracker(tracking_uri('', root), 'camvid', {}, root)"
        ".start_search(sys.argv[2], 'search', {})"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)])
        for number in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    tracker = Tracker(tracking_uri("", tmp_path), "camvid", {}, tmp_path)
    assert len(tracker.find_runs({"nas.kind": "search"})) == 2


def test_a_deleted_experiment(tracker: Tracker) -> None:
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(ServiceError, match="'camvid' was deleted; restore it"):
        ensure_experiment(tracker.client, "camvid", None)
