"""Projects that are moved and copied, with a real store and a registered model."""

import json
import logging
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow.pyfunc
import pytest

from nas_core.base.errors import ServiceError
from nas_core.space.architectures import ARCHITECTURES
from tasks.tracking import location
from tasks.tracking.location import adopt_artifacts
from tasks.tracking.registry import TrainingEntry, log_training
from tasks.tracking.store import connect, tracking_uri
from tasks.tracking.tracker import Tracker
from tests.robustness.cases import snapshot


@pytest.fixture(autouse=True)
def said_anew() -> None:
    location._say_once.cache_clear()


@pytest.fixture
def trained(root: Path, tracker: Tracker, weights: Path) -> Path:
    """A project with a search, a training and its registered model in the record."""
    tracker.log_files(tracker.start_search("s", "search", {}), [weights])
    entry = TrainingEntry("arch0", "t1", weights, 1, 1, 0, 1.0, 2.0, val={"mean_iou": 0.5})
    log_training(tracker, entry, "camvid")
    return root


def opened(root: Path) -> Tracker:
    return Tracker(tracking_uri("", root), "camvid", {}, root)


def check_own(root: Path) -> None:
    """Its model loads, its files are found and new ones are written below it, all by its record."""
    tracker = opened(root)
    mlflow.set_tracking_uri(tracker.uri)
    try:
        mlflow.pyfunc.load_model("models:/camvid@champion")
    finally:
        mlflow.set_tracking_uri(None)
    run = tracker.start_search("s", "search", {})
    assert [file.path for file in tracker.client.list_artifacts(run)] == ["model.safetensors"]
    genotype = root / "genotype.json"
    genotype.write_text(json.dumps(ARCHITECTURES["arch0"].to_dict()))
    new = tracker.start_search("t", "search", {})
    tracker.log_files(new, [genotype])
    assert (root / "artifacts" / "mlflow" / new / "artifacts" / "genotype.json").is_file()


def test_a_moved_project_has_its_artifacts(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = tmp_path / "mövéd here" / "project"
    moved.parent.mkdir()
    trained.rename(moved)
    check_own(moved)
    assert not trained.exists()
    assert [line for line in caplog.messages if "came from" in line] == [
        f"{moved}/artifacts/mlflow.db led to the artifacts of {trained}/artifacts/mlflow, where "
        f"this project came from; now it leads to {moved}/artifacts/mlflow"
    ]


def test_a_copy_has_its_own_and_the_original_keeps_its_own(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    before = snapshot(trained)
    check_own(copy)
    assert snapshot(trained) == before
    copied = snapshot(copy)
    check_own(trained)
    assert snapshot(copy) == copied


def test_a_copy_without_the_artifacts_is_refused(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "artifacts").mkdir(parents=True)
    shutil.copy(trained / "artifacts" / "mlflow.db", copy / "artifacts")
    before = snapshot(copy)
    with pytest.raises(ServiceError, match=rf"leads to artifacts in {trained}.*copy that folder"):
        opened(copy)
    assert snapshot(copy) == before
    shutil.copytree(trained / "artifacts" / "mlflow", copy / "artifacts" / "mlflow")
    check_own(copy)


def test_a_link_to_the_project_is_the_project(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "link").symlink_to(trained)
    database = (trained / "artifacts" / "mlflow.db").read_bytes()
    opened(tmp_path / "link")
    assert (trained / "artifacts" / "mlflow.db").read_bytes() == database
    assert not caplog.messages


def test_a_place_that_somebody_chose_stays(root: Path, tmp_path: Path) -> None:
    uri = tracking_uri("", root)
    chosen = (tmp_path / "big disk").as_uri()
    connect(uri).create_experiment("camvid", artifact_location=chosen)
    tracker = opened(root)
    assert tracker.client.get_experiment(tracker.experiment_id).artifact_location == chosen


def test_another_projects_store_is_left_alone_and_that_is_said_once(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri, other = tracking_uri("", trained), tmp_path / "other"
    database = (trained / "artifacts" / "mlflow.db").read_bytes()
    for _ in range(2):
        Tracker(uri, "camvid", {}, other)
    assert (trained / "artifacts" / "mlflow.db").read_bytes() == database
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "'camvid' keeps its artifacts in another project" in caplog.text


def test_a_crash_in_between_changes_nothing(trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    trained.rename(moved)
    code = (
        "import os, sys; from pathlib import Path; from tasks.tracking import location, store;"
        "change = location._replace_beginnings;"
        "location._replace_beginnings = lambda *a: (change(*a), a[1] == 'runs' and os._exit(7));"
        "root = Path(sys.argv[1]); location.adopt_artifacts(store.tracking_uri('', root), root)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(moved)], check=False)
    assert done.returncode == 7
    (tables,) = [sqlite3.connect(moved / "artifacts" / "mlflow.db")]
    ((found,),) = tables.execute("SELECT artifact_location FROM experiments WHERE name = 'camvid'")
    tables.close()
    assert found == f"file://{trained}/artifacts/mlflow"
    check_own(moved)


def test_a_locked_database_is_an_error_of_one_line(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved"
    trained.rename(moved)
    monkeypatch.setattr(location, "SECONDS_TO_ANSWER", 0.1)
    other = sqlite3.connect(moved / "artifacts" / "mlflow.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(ServiceError, match=r"mlflow\.db cannot be used: database is locked"):
            adopt_artifacts(tracking_uri("", moved), moved)
    finally:
        other.close()
