"""A search through the flow whose best are confirmed, with a stand-in for training."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from benchmarks.load import PARAMS, stand_in
from flows.search import nas_search
from nas_core.config import ConfirmSettings, SearchSettings, TrainSettings
from nas_core.search.candidates import Outcome, confirm_candidate
from nas_core.search.journal import Journal
from nas_core.search.measuring import Meter
from nas_core.workers.local import ProcessWorkers


@pytest.fixture(scope="module", autouse=True)
def server(prefect_server: str) -> Iterator[str]:
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        yield prefect_server


def call(workers: ProcessWorkers, function: Any, *args: Any) -> Any:
    """In place of `Workers.call`: further seeds turn the order of the two best."""
    shared_task, settings, genotype, _ = args
    outcome, files = stand_in(shared_task, settings, genotype, [0.0])
    if function is not confirm_candidate:
        return outcome, files
    score = 1 - outcome.scores[0]
    return Outcome((score,), {"mean_iou": score}, {"stage_a": 0.0}, False)


def test_what_the_search_hands_on_is_by_the_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(ProcessWorkers, "call", call)
    monkeypatch.setattr(Meter, "measure", lambda *_: 10.0)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    nas_search(stage="prepare")
    search = SearchSettings(
        num_candidates=8, strategy="random", confirm=ConfirmSettings(candidates=2, max_seeds=2)
    )
    nas_search(stage="search", search=search, train=TrainSettings(top=1))

    (path,) = tmp_path.glob("artifacts/searches/*/journal.jsonl")
    journal = Journal.read(path)
    first, second = sorted(journal.candidates, key=lambda one: -(one.reward or 0.0))[:2]
    assert first.reward and second.reward
    assert [(one.confirms, one.run) for one in journal.confirmations] == [
        (first.id, 1), (second.id, 1), (first.id, 2), (second.id, 2),
    ]  # fmt: skip
    mean = (second.reward + 2 * (1 - second.reward)) / 3

    place = tmp_path / "artifacts" / "results" / "load" / "search"
    table = pd.read_parquet(place / "candidates.parquet")
    assert table["id"].tolist()[:2] == [second.id, first.id]
    assert table["reward"].iloc[0] == pytest.approx(mean) and table["seeds"].iloc[0] == 3
    metrics = json.loads((place / "metrics.json").read_text())
    assert (metrics["best"], metrics["num_confirmed"]) == (second.id, 2)
    assert metrics["best_reward"] == pytest.approx(mean)
    # The course of the search is that of the rewards that the strategy learned from.
    assert pd.read_csv(place / "progress.csv")["best_reward"].iloc[-1] == first.reward

    client = MlflowClient(f"sqlite:///{tmp_path}/artifacts/mlflow.db")
    experiment = client.get_experiment_by_name("load")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`nas.kind` = 'candidate'")
    logged = {run.data.tags["architecture_id"]: run.data.metrics for run in runs}
    assert logged[second.id]["reward"] == pytest.approx(mean) and logged[second.id]["seeds"] == 3
    assert "mean of 3 seeds" in (path.parent / "report.html").read_text()
