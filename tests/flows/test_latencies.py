"""When a search measures latencies, and of what: with stand-ins for training and for the clock."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from benchmarks.load import PARAMS, stand_in
from flows.search import nas_search
from nas_core.analysis.leaderboard import read_search
from nas_core.base.errors import RunError
from nas_core.config import RunnerSettings, SearchSettings
from nas_core.search.journal import Journal, Record
from nas_core.search.measuring import Meter
from nas_core.workers.local import ProcessWorkers

FAST = 2  # so many trainings last no time: those of the first round
SECONDS = 1.5  # that each later one lasts


@pytest.fixture(scope="module", autouse=True)
def server(prefect_server: str) -> Iterator[str]:
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        yield prefect_server


class Machine:
    """What it does: how many trainings it has now, and had at each measurement."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.num_begun = self.num_training = 0
        self.at_measurements: list[int] = []
        self.stop_after: int | None = None

    def train(self, workers: ProcessWorkers, function: Any, *args: Any) -> Any:
        """In place of a call of `score_candidate`; each second candidate stops early."""
        with self.lock:
            self.num_begun += 1
            self.num_training += 1
            number = self.num_begun
        try:
            if number > FAST:
                time.sleep(SECONDS)
            outcome, files = stand_in(*args)
            return replace(outcome, stopped_early=number % 2 == 0), files
        finally:
            with self.lock:
                self.num_training -= 1

    def measure(self, *args: Any, **kwargs: Any) -> float:
        if len(self.at_measurements) == self.stop_after:
            raise RunError("the disk is full")
        self.at_measurements.append(self.num_training)
        return 10.0 + len(self.at_measurements)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()

    def train(self: ProcessWorkers, *args: Any) -> Any:
        return machine.train(self, *args)

    monkeypatch.setattr(ProcessWorkers, "call", train)
    monkeypatch.setattr(Meter, "measure", machine.measure)
    return machine


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    nas_search(stage="prepare")
    return tmp_path


def search(num_candidates: int, **changes: Any) -> None:
    """Search two at a time, the next round begun before the one before it has been learned from."""
    settings = SearchSettings(
        num_candidates=num_candidates, batch_size=2, rounds_ahead=1, strategy="random", **changes
    )
    nas_search(stage="search", search=settings, runner=RunnerSettings(workers=2))


def journal(project: Path) -> list[Record]:
    (path,) = project.glob("artifacts/searches/*/journal.jsonl")
    return Journal.read(path).candidates


def test_nothing_is_in_training_while_a_latency_is_measured(
    project: Path, machine: Machine
) -> None:
    search(5, constraints={"max_latency_ms": 3_600_000})
    assert len(machine.at_measurements) >= 5 and set(machine.at_measurements) == {0}
    assert all(record.latency_ms is not None for record in journal(project))


def test_where_nothing_needs_latencies_those_of_the_best_are_measured_at_the_end(
    project: Path, machine: Machine
) -> None:
    machine.stop_after = 1
    with pytest.raises(RunError, match="the disk is full"):
        search(6)
    records = journal(project)
    finished = [record for record in records if record.status == "finished"]
    assert len(records) == 6 and len(finished) == 3
    assert all(record.latency_ms is None for record in records)
    machine.stop_after = None
    search(6)
    assert machine.at_measurements == [0, 0]
    search(6)
    assert machine.at_measurements == [0, 0]

    best = sorted(finished, key=lambda record: -(record.reward or 0))[:2]  # train.top
    known = {best[0].id: 11.0, best[1].id: 12.0}
    expected = {record.id: known.get(record.id) for record in records}
    table = pd.read_parquet(project / "artifacts/results/load/search/candidates.parquet")
    found = table.set_index("id")["latency_ms"]
    assert found.dropna().to_dict() == known
    _, listed = read_search(project / "artifacts" / "searches")
    assert {record.id: record.latency_ms for record in listed} == expected
    client = MlflowClient(f"sqlite:///{project}/artifacts/mlflow.db")
    experiment = client.get_experiment_by_name("load")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`nas.kind` = 'candidate'")
    logged = {run.data.tags["architecture_id"]: run.data.metrics.get("latency_ms") for run in runs}
    assert logged == expected
