"""Where the record lives: the tracking URI, and a client that is known to reach it."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

# MLflow would send usage statistics from every call that logs, and draw progress bars over ours.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from alembic.util import CommandError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from nas_core.base.addresses import encoded_part, redacted, without_credentials
from nas_core.base.errors import RunError, ServiceError, UnavailableError, first_line
from nas_core.base.files import check_regular, check_writable, write_atomically
from nas_core.base.http import answers_in_time
from nas_core.base.locks import exclusive
from nas_core.base.logs import Logger
from nas_core.base.paths import artifacts_folder

T = TypeVar("T")

SQLITE = "sqlite:///"
# A server that has just started on a busy machine takes some seconds for its first answer.
SECONDS_TO_ANSWER = 10
# MLflow repeats a request for minutes, in which a search would stand still. Here one that fails is
# made again later, see `patiently` and `SearchLog`.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS_TO_ANSWER))

# It prints the traceback of what `service_errors` says in a line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
# It prints the traceback of a Ctrl-C that strikes while a connection is given back.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)

PATIENCE = 600.0  # seconds
SECONDS_BETWEEN_TRIES = 5.0
# It stands before the reason, and concerns only who writes MLflow.
_ADVICE_OF_SQLALCHEMY = re.compile(r"\(raised as a result of Query-invoked autoflush;[^)]*\)")
WHERE_SET = "the address comes from tracking.uri in params.yaml or from MLFLOW_TRACKING_URI"
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def tracking_uri(setting: str, root: Path) -> str:
    """The tracking URI: the setting, `MLFLOW_TRACKING_URI`, or SQLite in the artifacts folder.

    The path of an SQLite file becomes absolute; a relative one starts at `root`.

    Raises:
        ServiceError: the URI, or that of `MLFLOW_REGISTRY_URI`, is malformed, or MLflow could not
            load a model from this folder.
    """
    uri = setting or os.environ.get("MLFLOW_TRACKING_URI", "")
    # MLflow looks at its registry when a model is trained, which is after hours.
    registry = os.environ.get("MLFLOW_REGISTRY_URI", "")
    place = "tracking.uri" if setting else "MLFLOW_TRACKING_URI"
    for name, given in ((place, uri), ("MLFLOW_REGISTRY_URI", registry)):
        try:
            if given:
                _check_form(given)
        except ServiceError as error:
            raise ServiceError(f"{name}: {error}") from None
    if artifact_location(uri, root) and (encoded := encoded_part(str(root.absolute()))):
        raise ServiceError(
            f"the project's folder {root.absolute()} holds {encoded}, which MLflow reads as "
            f"{unquote(encoded)!r} when it loads a model: rename the folder"
        )
    if not uri:
        return _sqlite_uri(artifacts_folder(root).absolute() / "mlflow.db")
    return _sqlite_uri(root.absolute() / _sqlite_path(uri)) if uri.startswith("sqlite") else uri


def artifact_location(uri: str, root: Path) -> str | None:
    """Where the artifacts of a new experiment go; None leaves it to the tracking server."""
    if urlsplit(uri).scheme in ("http", "https"):
        return None
    return (artifacts_folder(root).absolute() / "mlflow").as_uri()


def database_file(uri: str) -> Path | None:
    """The SQLite file of the store at `uri`, if it is one."""
    return _sqlite_path(uri) if uri.startswith(SQLITE) else None


def connect(uri: str) -> MlflowClient:
    """A client of the store at `uri`, which is created first if it is an SQLite file.

    Raises:
        ServiceError: the store does not answer within seconds, or is not MLflow's.
    """
    parts = urlsplit(uri)
    if uri.startswith(SQLITE):
        _create_database(_sqlite_path(uri), uri)
    elif port := DATABASE_PORTS.get(parts.scheme.split("+")[0]):
        if parts.hostname:
            _check_port(uri, parts.hostname, parts.port or port)
        with service_errors(uri):
            # Once: MLflow would try ten times, for minutes, before it says what is wrong.
            create_engine(uri, poolclass=NullPool).connect().close()
    if parts.scheme in ("http", "https"):
        token = os.environ.get("MLFLOW_TRACKING_TOKEN", "")
        if not (token.isascii() and token.isprintable()):
            # What refuses it in a header would show it.
            raise ServiceError(
                "MLFLOW_TRACKING_TOKEN has a line break or another character that no token has: "
                "correct it or unset it"
            )
        _check_pace(uri)
    with service_errors(uri):
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def ensure_experiment(client: MlflowClient, name: str, location: str | None) -> str:
    """The id of the experiment of that name, created if need be.

    Raises:
        ServiceError: the experiment was deleted, or the store refuses.
    """
    uri = client.tracking_uri
    with service_errors(uri):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # Another process was first.
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise ServiceError(
            f"MLflow at {redacted(uri)}: experiment {name!r} was deleted; restore it with "
            "'mlflow experiments restore', or choose another name in params.yaml"
        )
    return str(experiment.experiment_id)


@contextmanager
def service_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow and its database drivers raise into a ServiceError that names `uri`.

    It is an UnavailableError where the same request may succeed later.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError, OSError, ImportError) as error:
        said = _ADVICE_OF_SQLALCHEMY.sub("", without_credentials(str(error), uri))
        reason = said.strip().partition("\n")[0].rstrip(".")
        if cause := re.search(r"Max retries exceeded .*\(Caused by .*?: (.*?)\"?\)\)$", reason):
            reason = f"it does not answer ({cause[1]})"
        if "failed with error code 401" in reason:
            reason = (
                "it refuses the password: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
                "must be those of one of its users"
            )
        kind = UnavailableError if _may_pass(error) else ServiceError
        # Without the cause: its text may hold the credentials.
        raise kind(f"MLflow at {redacted(uri)}: {reason[:400]}; {WHERE_SET}") from None
    except ValueError as error:
        if not str(error).startswith("Failed to convert"):  # what MLflow says of its variables
            raise
        raise ServiceError(f"{first_line(error)}: correct it in the environment") from None


def patiently(call: Callable[[], T], logger: Logger) -> T:
    """The result of `call`, which is made again for `PATIENCE` seconds while MLflow is away.

    Raises:
        ServiceError: MLflow refuses, or does not come back.
    """
    deadline = time.monotonic() + PATIENCE
    warned = False
    while True:
        try:
            return call()
        except UnavailableError as error:
            if time.monotonic() > deadline:
                raise
            if not warned:
                logger.warning("%s; trying again for %.0f minutes", error, PATIENCE / 60)
                warned = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, MlflowException):
        return error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
    return not isinstance(error, (CommandError, ImportError))


def _check_form(uri: str) -> None:
    shown = redacted(uri)
    try:
        parts = urlsplit(uri)
        has_host = bool(parts.hostname)
        _ = parts.port
    except ValueError as error:
        raise ServiceError(
            f"tracking URI {shown!r} is malformed: {without_credentials(str(error), uri)}"
        ) from None
    is_database = parts.scheme.split("+")[0] in ("sqlite", *DATABASE_PORTS)
    if not is_database and parts.scheme not in ("http", "https"):
        raise ServiceError(
            f"tracking URI {shown!r} is an unsupported URI: expected https://host, "
            "sqlite:///path.db or postgresql://host/database"
        )
    if parts.scheme in ("http", "https") and not has_host:
        raise ServiceError(f"tracking URI {shown!r} names no host")
    if parts.scheme.startswith("sqlite") and (
        not uri.startswith(SQLITE) or _sqlite_path(uri).name in ("", ":memory:")
    ):
        raise ServiceError(
            f"tracking URI {shown!r} names no file; expected sqlite:///relative/path.db or "
            "sqlite:////absolute/path.db"
        )
    if uri.startswith(SQLITE) and "?" in uri:
        raise ServiceError(
            f"tracking URI {shown!r}: options after a ? have no effect; leave them out, or write "
            "%3F for a ? in the name of the file"
        )


def _sqlite_path(uri: str) -> Path:
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0]))


def _sqlite_uri(path: Path) -> str:
    # SQLAlchemy decodes the path, MLflow partly does not: encode what must be and no more.
    return SQLITE + str(path).replace("%", quote("%")).replace("?", quote("?"))


def _create_database(path: Path, uri: str) -> None:
    """Create an SQLite store unless there is one.

    MLflow's own creation crashes when processes do it at once, and a half-made file stays after a
    crash; here one process makes it beside its place.
    """
    try:
        with exclusive(path):
            if not path.exists():
                # SQLite says as little of it as of what passes: MLflow would try for minutes.
                check_writable(path.parent, WHERE_SET)
                with service_errors(uri):
                    write_atomically(path, lambda temporary: _create_tables(temporary))
        check_regular(path)  # to open a pipe would wait for ever
        with path.open("rb") as file:
            magic = file.read(16)
    except RunError as error:
        raise ServiceError(f"MLflow's database {path} cannot be made: {error}") from None
    except OSError as error:
        raise ServiceError(f"MLflow's database {path} cannot be used: {error.strerror}") from None
    if magic != b"SQLite format 3\0":
        raise ServiceError(
            f"MLflow's database {path} is not an SQLite file; move it away or set tracking.uri in "
            "params.yaml"
        )


def _create_tables(path: Path) -> None:
    MlflowClient(_sqlite_uri(path))


def _check_pace(uri: str) -> None:
    # Without the password, which HTTP clients log: to be refused is an answer, too.
    request = f"{redacted(uri).rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1"
    if not answers_in_time(request, SECONDS_TO_ANSWER):
        raise UnavailableError(
            f"MLflow at {redacted(uri)}: it does not answer within {SECONDS_TO_ANSWER} s; "
            f"{WHERE_SET}"
        )


def _check_port(uri: str, host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), timeout=SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ServiceError(
            f"MLflow at {redacted(uri)}: it does not answer ({error}); {WHERE_SET}"
        ) from None
