"""Where a record's artifacts lie. MLflow's database holds the full path of each.

So a project that was moved or copied would write to the place that it came from. MLflow has no
call that changes the paths, so those in a project's own SQLite file are changed in its tables.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient

from nas_core.base.addresses import redacted
from nas_core.base.errors import ServiceError
from nas_core.base.files import resolved
from nas_core.base.locks import exclusive
from tasks.tracking.store import SECONDS_TO_ANSWER, artifact_location, database_file

log = logging.getLogger(__name__)

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def adopt_artifacts(uri: str, root: Path) -> None:
    """Have the record of a project that was moved or copied lead to the artifacts below `root`.

    Only in an SQLite file below `root`, after `connect`; in another store nothing is changed.

    Raises:
        ServiceError: the artifacts still lie where the project came from, and there alone.
    """
    here = artifact_location(uri, root)
    database = database_file(uri)
    if here is None or database is None:
        return
    if not resolved(database).is_relative_to(resolved(root)):
        return
    try:
        with (
            exclusive(database),
            closing(sqlite3.connect(database, SECONDS_TO_ANSWER, isolation_level=None)) as tables,
        ):
            for old in _foreign_locations(tables, here):
                _check_copied(tables, old, here, database)
                tables.execute("BEGIN IMMEDIATE")
                for table, column in COLUMNS:
                    _replace_beginnings(tables, table, column, old, here)
                tables.execute("COMMIT")
                _say_once(
                    f"{database} led to the artifacts of {_path(old)}, where this project came "
                    f"from; now it leads to {_path(here)}"
                )
    except sqlite3.Error as error:
        raise ServiceError(f"MLflow's database {database} cannot be used: {error}") from None


def warn_of_foreign_location(client: MlflowClient, experiment_id: str, root: Path) -> None:
    """Say so if an experiment keeps its artifacts in another project's folder."""
    here = artifact_location(client.tracking_uri, root)
    if here is None:
        return
    experiment = client.get_experiment(experiment_id)
    if _is_foreign(experiment.artifact_location, here):
        _say_once(
            f"MLflow at {redacted(client.tracking_uri)}: experiment {experiment.name!r} keeps its "
            f"artifacts in another project, {_path(experiment.artifact_location)}: set another "
            "name in params.yaml, or tracking.uri to a store of this project's own"
        )


def _foreign_locations(tables: sqlite3.Connection, here: str) -> list[str]:
    rows = tables.execute("SELECT DISTINCT artifact_location FROM experiments")
    return [location for (location,) in rows.fetchall() if _is_foreign(location, here)]


def _is_foreign(location: str | None, here: str) -> bool:
    """Whether it is a project's folder, see `artifact_location`, and not that of `here`."""
    if not location or not location.startswith("file:") or location == here:
        return False
    old, new = _path(location), _path(here)
    if old.parts[-2:] != new.parts[-2:]:
        return False  # somebody chose it
    same = old.exists() and new.exists() and old.samefile(new)
    return not same and resolved(old) != resolved(new)


def _check_copied(tables: sqlite3.Connection, old: str, here: str, database: Path) -> None:
    for location in _recorded(tables, old):
        name = _path(location).relative_to(_path(old))
        if _path(location).exists() and not (_path(here) / name).exists():
            raise ServiceError(
                f"{database} leads to artifacts in {_path(old)}, where this project came from, "
                f"and they are not all in {_path(here)}: copy that folder, or move the database "
                "away to begin a new record"
            )


def _recorded(tables: sqlite3.Connection, old: str) -> Iterator[str]:
    for table, column in COLUMNS[1:3]:
        beginning = f"{old}/"
        yield from (
            location
            for (location,) in tables.execute(
                f"SELECT {column} FROM {table} WHERE substr({column}, 1, ?) = ?",
                (len(beginning), beginning),
            )
        )


def _replace_beginnings(
    tables: sqlite3.Connection, table: str, column: str, old: str, new: str
) -> None:
    tables.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
    )


def _path(location: str) -> Path:
    return Path(unquote(urlsplit(location).path))


@cache
def _say_once(message: str) -> None:
    log.warning("%s", message)
