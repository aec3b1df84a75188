"""Strategies compared on tiny street scenes, with a real Prefect server and a real MLflow store."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from flows.cli import tables
from flows.compare import nas_compare
from nas_core.analysis.comparison import ComparisonReport
from nas_core.base.errors import SettingsError
from nas_core.loading import load_settings
from nas_core.search.journal import Journal, Record
from tests.tiny import tiny

# Strategies whose searches differ from the first candidate on.
STRATEGIES = ["ppo-independent", "random"]
PARAMS = tiny(search={"num_candidates": 4})


@pytest.fixture(scope="module", autouse=True)
def server(prefect_server: str) -> Iterator[str]:
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        yield prefect_server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, server: str) -> Iterator[Path]:
    """A project with two comparisons, each with a seed of its own.

    Seed 1, a command, was stopped with Ctrl-C after its first candidate. Seed 0 came to its end.
    """
    folder = tmp_path_factory.mktemp("compare")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_PROJECT_DIR", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        stopped = start(server, 1)
        try:
            deadline = time.monotonic() + 400
            while time.monotonic() < deadline and not candidates(folder, 1):
                assert stopped.poll() is None, stopped.communicate()[0]
                time.sleep(0.1)
            stopped.send_signal(signal.SIGINT)
            output = stopped.communicate(timeout=100)[0]
            assert stopped.returncode == 130, output
            assert "the same command goes on" in output
        finally:
            stopped.kill()
        nas_compare(load_settings(root=folder), STRATEGIES, [0])
        yield folder


@pytest.fixture(scope="module")
def gathered(project: Path) -> dict[str, Any]:
    """Both seeds together, in this process: what is missing is trained, and nothing else."""
    complete, begun = candidates(project, 0), candidates(project, 1)
    assert len(complete) == 8 and 1 <= len(begun) < 8
    comparison = nas_compare(load_settings(root=project), STRATEGIES, [0, 1]).model_dump()
    assert candidates(project, 0) == complete
    assert candidates(project, 1)[: len(begun)] == begun and len(candidates(project, 1)) == 8
    return comparison


def start(server: str, seed: int) -> subprocess.Popen[str]:
    """`nas compare` with one seed, as from a shell."""
    command = [sys.executable, "-c", "from flows.cli.main import main; main()", "compare"]
    named = [part for strategy in STRATEGIES for part in ("--strategy", strategy)]
    return subprocess.Popen(
        [*command, *named, "--seed", str(seed)],
        env={**os.environ, "PREFECT_API_URL": server, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def candidates(project: Path, seed: int) -> list[Record]:
    """Of all searches with that seed, in the order of the strategies."""
    found = [Journal.read(path) for path in project.glob("artifacts/searches/*/journal.jsonl")]
    of_seed = [journal for journal in found if settings_of(journal)["seed"] == seed]
    of_seed.sort(key=lambda journal: str(settings_of(journal)["search"]["strategy"]))
    return [record for journal in of_seed for record in journal.candidates]


def settings_of(journal: Journal) -> Any:
    return journal.header.settings


def journals(project: Path) -> dict[Path, tuple[int, int]]:
    found = project.glob("artifacts/searches/*/journal.jsonl")
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


def runs_of(project: Path, kind: str) -> list[Any]:
    client = MlflowClient(f"sqlite:///{project}/artifacts/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`nas.kind` = '{kind}'"))


def test_each_strategy_and_seed_is_a_search_of_its_own(
    project: Path, gathered: dict[str, Any]
) -> None:
    headers = {
        row["search"]: settings_of(
            Journal.read(project / "artifacts" / "searches" / row["search"] / "journal.jsonl")
        )
        for row in gathered["searches"]
    }
    assert len(headers) == 4
    found = {
        (
            header["search"]["strategy"],
            header["search"]["controller"]["autoregressive"],
            header["seed"],
        )
        for header in headers.values()
    }
    assert found == {(s, s == "random", seed) for s in ("ppo", "random") for seed in (0, 1)}
    parents = runs_of(project, "search")
    assert {run.data.tags["nas.search"] for run in parents} == set(headers)
    assert {run.info.status for run in parents} == {"FINISHED"}
    statuses = Counter(run.info.status for run in runs_of(project, "candidate"))
    # Ctrl-C may have come while one was being recorded.
    assert statuses.pop("KILLED", 0) <= 1 and statuses == {"FINISHED": 16}


def test_the_figures_are_those_of_the_journals(project: Path, gathered: dict[str, Any]) -> None:
    totals = []
    for row in gathered["searches"]:
        path = project / "artifacts" / "searches" / row["search"] / "journal.jsonl"
        candidates = Journal.read(path).candidates
        rewards = [record.reward for record in candidates if record.reward is not None]
        assert row["equal_candidates"]["num_candidates"] == len(candidates) == 4
        assert row["equal_candidates"]["best_reward"] == max(rewards)
        totals.append(sum(sum(record.seconds.values()) for record in candidates))
        assert row["training_seconds"] == pytest.approx(totals[-1])
    assert gathered["budget_seconds"] == pytest.approx(min(totals))
    assert list(gathered["strategies"]) == STRATEGIES
    assert all(found["seeds"] == [0, 1] for found in gathered["strategies"].values())
    assert len(gathered["data_hash"]) == 64
    assert gathered["search"]["proxy"]["agg_size"] == 8


def test_the_files_agree_with_each_other(project: Path, gathered: dict[str, Any]) -> None:
    place = project / "artifacts" / "results" / "tiny"
    assert {path.name for path in place.iterdir()} == {"compare"}, "another stage's results"
    names = {path.name for path in (place / "compare").iterdir()}
    assert names == {"curves.parquet", "compare.json", "compare.png", "report.html"}
    assert json.loads((place / "compare" / "compare.json").read_bytes()) == gathered
    curves = pd.read_parquet(place / "compare" / "curves.parquet")
    assert len(curves) == 16
    last = curves.groupby(["strategy", "seed"])["best_reward"].last().to_dict()
    assert last == {
        (row["strategy"], row["seed"]): row["equal_candidates"]["best_reward"]
        for row in gathered["searches"]
    }
    with Image.open(place / "compare" / "compare.png") as picture:
        assert picture.width > picture.height > 500


def test_mlflow_has_a_finished_run_a_comparison(project: Path, gathered: dict[str, Any]) -> None:
    runs = runs_of(project, "compare")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.info.run_name for run in runs} == {"compare"}
    by_seeds = {run.data.params["seeds"]: run for run in runs}
    assert set(by_seeds) == {"0", "0 1"}
    run = by_seeds["0 1"]
    assert run.data.params["num_candidates"] == "4"
    assert 0 < run.data.metrics["mean_reward/random"] <= run.data.metrics["best_reward/random"] < 1
    assert run.data.params["strategies"] == "ppo-independent random"
    client = MlflowClient(f"sqlite:///{project}/artifacts/mlflow.db")
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"curves.parquet", "compare.json", "compare.png", "report.html"}


def test_prefect_shows_the_searches_apart(gathered: dict[str, Any]) -> None:
    with get_client(sync_client=True) as client:
        names = [f"{strategy} · seed {seed}" for strategy in STRATEGIES for seed in (0, 1)]
        names.append("compare on tiny")
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=names))
        )
    states = [(run.name, run.state_type.value) for run in runs if run.state_type]
    assert {name for name, state in states if state == "COMPLETED"} == set(names)
    # What Ctrl-C stopped is not shown as running.
    assert {state for _, state in states} == {"COMPLETED", "CRASHED"}, states


def test_the_table_has_a_line_a_strategy(project: Path, gathered: dict[str, Any]) -> None:
    console = Console(width=120)
    with console.capture() as captured:
        report = ComparisonReport.model_validate(gathered)
        tables.print_comparison(console, project, load_settings(root=project), report)
    lines = captured.get().splitlines()
    assert f"{gathered['budget_seconds'] / 60:.1f} min" in lines[0]
    for strategy in STRATEGIES:
        (line,) = [line for line in lines if f" {strategy} " in line]
        best = gathered["strategies"][strategy]["equal_time"]["best_reward"]
        # None where no candidate was done within the budget, on a machine whose speed varies.
        known = best is not None
        assert ("{mean:.3f} [{min:.3f}..{max:.3f}]".format(**best) if known else " none ") in line
        assert "0, 1" in line
    assert any(line.endswith("compare.json") for line in lines)


def test_run_again_nothing_is_trained(project: Path, gathered: dict[str, Any]) -> None:
    before = journals(project)
    again = nas_compare(load_settings(root=project), STRATEGIES, [0, 1]).model_dump()
    assert len(before) == 4 and journals(project) == before
    assert again == gathered
    assert {run.info.status for run in runs_of(project, "compare")} == {"FINISHED"}


def test_a_wrong_strategy_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    with pytest.raises(SettingsError, match="strategy 'ppoo': there are ppo, "):
        nas_compare(load_settings(root=tmp_path), ["ppoo"], [0])
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
