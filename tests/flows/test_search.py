"""The whole flow on tiny street scenes, with a real Prefect server and a real MLflow store."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pytest
import torch
import yaml
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cli.watch import progress_of
from flows.search import nas_search, too_few_proposals
from flows.train import nas_train
from nas_core.base.errors import (
    DataError,
    NasError,
    RunError,
    ServiceError,
    SettingsError,
    WeightsError,
)
from nas_core.base.seeds import seeded
from nas_core.config import (
    ConstraintSettings,
    RewardSettings,
    RunnerSettings,
    SearchSettings,
    Settings,
)
from nas_core.data import cityscapes
from nas_core.loading import load_settings
from nas_core.models.checkpoint import NetworkCard, load_segmenter, save_segmenter
from nas_core.models.encoder import Encoder
from nas_core.search.journal import Journal, Record
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.genotype import Genotype
from nas_core.training.evaluation import PICTURES
from tasks.tracking.provenance import git_commit
from tests.tiny import tiny

ROOT = Path(__file__).resolve().parents[2]
PARAMS = tiny(train={"also": ["arch1"], "epochs": 2, "validate_every": 1})


@pytest.fixture(scope="module", autouse=True)
def server(prefect_server: str) -> Iterator[str]:
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        yield prefect_server


def make_project(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return make_project(tmp_path)


@pytest.fixture(scope="module")
def run_of_all(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, UUID]:
    """A project in which all stages ran once, and Prefect's id of that run."""
    with pytest.MonkeyPatch.context() as patch:
        folder = make_project(tmp_path_factory.mktemp("whole"))
        patch.setenv("NAS_PROJECT_DIR", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run_id = nas_search(return_state=True).state_details.flow_run_id
    assert run_id
    return folder, run_id


@pytest.fixture(scope="module")
def whole(run_of_all: tuple[Path, UUID]) -> Path:
    """A project in which all stages ran once."""
    return run_of_all[0]


def records(project: Path) -> list[Record]:
    (path,) = project.glob("artifacts/searches/*/journal.jsonl")
    return Journal.read(path).records


def outcomes(project: Path) -> list[Any]:
    return [(r.id, r.status, r.reward, r.scores, r.round) for r in records(project)]


def client_of(project: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project}/artifacts/mlflow.db")


def runs_of(project: Path, kind: str) -> list[Any]:
    client = client_of(project)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`nas.kind` = '{kind}'"))


def test_the_journal_has_every_candidate(whole: Path) -> None:
    found = records(whole)
    assert [record.candidate for record in found] == [1, 2, 3]
    assert [record.round for record in found] == [0, 0, 1]
    assert all(0 < record.reward < 1 for record in found if record.reward is not None)
    assert len({record.id for record in found}) == 3


def test_prefect_shows_each_part_by_name(run_of_all: tuple[Path, UUID]) -> None:
    whole, run_id = run_of_all
    best = max(records(whole), key=lambda record: record.reward or 0)
    expected = {f"candidate {record.candidate} · {record.id[:6]}" for record in records(whole)} | {
        "prepare tiny", "sample round 0", "learn from round 0", "sample round 1",
        f"train {best.id}", "train arch1", f"test {best.id}", "test arch1", "measure latencies",
    }  # fmt: skip
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        assert (run.name, run.state_type) == ("camvid · all", StateType.COMPLETED)
        # The server hears of tasks by events, which it works off one after the other.
        deadline = time.monotonic() + 120
        while missing := expected - {t.name for t in client.read_task_runs(flow_run_filter=of_run)}:
            assert time.monotonic() < deadline, missing
            time.sleep(0.5)
        bars = progress_of(client, run_id)
    assert [share for share, _ in bars] == [100, 100, 100]
    assert [words.partition(";")[0] for _, words in bars] == [
        "3 of 3 candidates", f"{best.id}: epoch 2 of 2", "arch1: epoch 2 of 2",
    ]  # fmt: skip


def test_mlflow_has_a_finished_run_a_candidate(whole: Path) -> None:
    (parent,) = runs_of(whole, "search")
    candidates = runs_of(whole, "candidate")
    assert parent.info.status == "FINISHED" and len(candidates) == 3
    by_number = {int(run.data.tags["nas.candidate"]): run for run in candidates}
    for record in records(whole):
        assert record.candidate is not None
        run = by_number[record.candidate]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["architecture_id"] == record.id
        assert run.data.params["num_parameters"] == str(record.num_parameters)
        assert run.data.metrics["reward"] == record.reward
        assert run.data.metrics["mean_iou"] == record.metrics["mean_iou"]
        files = {file.path for file in client_of(whole).list_artifacts(run.info.run_id)}
        assert {
            "genotype.json",
            "weights.safetensors",
            "confusion_matrix.csv",
            "architecture.svg",
        } <= files
    for run in (parent, *candidates):
        assert {"commit", "data_hash", "seed", "device"} <= set(run.data.tags)


def test_the_page_of_the_search_tells_of_all_stages(run_of_all: tuple[Path, UUID]) -> None:
    whole, run_id = run_of_all
    (path,) = whole.glob("artifacts/searches/*/report.html")
    best = max(records(whole), key=lambda record: record.reward or 0)
    text = path.read_text()
    (trained,) = re.findall(r'<section id="trained">.*?</section>', text, re.DOTALL)
    assert "not scored yet" not in trained
    for label in (best.id, "arch1"):
        assert f'data-label="network">{label}</td>' in trained
    assert "data:image/webp;base64," in text
    commit, torch_version = git_commit(whole), version("torch")
    assert f"<dd>{commit}</dd>" in text and f"torch {torch_version}" in text
    # MLflow has it as it was written last.
    (parent,) = runs_of(whole, "search")
    kept = Path(client_of(whole).download_artifacts(parent.info.run_id, "report.html"))
    assert kept.read_bytes() == path.read_bytes()
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("A search, complete. ") and f"The best, {best.id}, " in note
    assert f"runs/{parent.info.run_id}/artifacts/report.html" in note
    drawn = Path(client_of(whole).download_artifacts(parent.info.run_id, "architecture.svg"))
    assert f"![{best.id}](get-artifact?path=architecture.svg&run_uuid=" in note
    assert f">{best.id}<" in drawn.read_text()
    with get_client(sync_client=True) as client:
        links, tables, bars = (
            client.read_artifacts(
                artifact_filter=ArtifactFilter(
                    key=ArtifactFilterKey(any_=[f"{kind}-{path.parent.name}"])
                )
            )
            for kind in ("search", "best", "progress")
        )
    assert [bar.data for bar in bars] == [100]
    # One of each, as it was written last.
    (table,), (link,) = tables, links
    assert json.loads(str(table.data))[0]["id"] == best.id
    assert link.flow_run_id == table.flow_run_id == run_id
    assert str(path) in str(link.data) and "complete" in str(link.data)
    assert f"trained fully, {best.id} scores" in str(link.data)


def test_the_champion_is_the_best_by_val(whole: Path) -> None:
    client = client_of(whole)
    champion = client.get_model_version_by_alias("nas-tiny", "champion")
    trainings = runs_of(whole, "training")
    assert len(trainings) == 2
    best = max(trainings, key=lambda run: run.data.metrics["val_mean_iou"])
    assert champion.run_id == best.info.run_id
    for run in trainings:
        assert "test_mean_iou" in run.data.metrics
        assert any(name.startswith("test_iou/") for name in run.data.metrics)
        test_files = {file.path for file in client.list_artifacts(run.info.run_id, "test")}
        assert {f"test/{name}" for name in PICTURES} <= test_files


def test_results_are_left_for_the_next_stage(whole: Path) -> None:
    place = whole / "artifacts" / "results" / "tiny"
    table = pd.read_parquet(place / "search" / "candidates.parquet")
    best = max(records(whole), key=lambda record: record.reward or 0)
    assert table["id"].iloc[0] == best.id and len(table) == 3
    trained = json.loads((place / "train" / "metrics.json").read_text())
    tested = json.loads((place / "evaluate" / "metrics.json").read_text())
    assert set(trained) == set(tested) == {best.id, "arch1"}
    segmenter, card = load_segmenter(place / "train" / "models" / "arch1.safetensors")
    assert card.genotype == ARCHITECTURES["arch1"] and not segmenter.training
    pictures = {path.name for path in (place / "evaluate" / "pictures").iterdir()}
    assert pictures == {f"{label}-{name}" for label in tested for name in PICTURES}


def test_a_pareto_front_is_part_of_the_result(whole: Path) -> None:
    place = whole / "artifacts" / "results" / "tiny" / "search"
    front = pd.read_csv(place / "pareto.csv")
    assert set(front["cost"]) == {"num_parameters", "macs", "latency_ms"}
    finished = [record for record in records(whole) if record.status == "finished"]
    assert set(front["id"]) <= {record.id for record in finished}
    best = max(finished, key=lambda record: record.quality or 0)
    assert list(front.groupby("cost")["id"].last()) == [best.id] * 3
    (run,) = runs_of(whole, "search")
    logged = {file.path for file in client_of(whole).list_artifacts(run.info.run_id)}
    assert {"pareto.png", "pareto.csv", "candidates.parquet"} <= logged
    for candidate in runs_of(whole, "candidate"):
        is_best = candidate.data.tags["architecture_id"] == best.id
        assert (candidate.data.metrics.get("latency_ms", 0) > 0) == is_best
        assert candidate.data.metrics["quality"] == candidate.data.metrics["reward"]


def test_what_limits_refuse_and_costs_change_is_recorded(whole: Path, project: Path) -> None:
    limit = sorted(record.num_parameters for record in records(whole))[0]
    settings = SearchSettings(
        num_candidates=2,
        constraints=ConstraintSettings(max_parameters=limit, max_latency_ms=3_600_000),
        reward=RewardSettings(cost="macs", target=1e6, exponent=-0.5),
    )
    nas_search(stage="prepare")
    nas_search(stage="search", search=settings)
    found = {record.id: record for record in records(project)}
    runs = {run.data.tags["architecture_id"]: run for run in runs_of(project, "candidate")}
    assert len(found) == 2 and runs.keys() == found.keys()
    for identifier, record in found.items():
        assert record.num_parameters <= limit and record.latency_ms is not None
        assert runs[identifier].data.metrics["latency_ms"] == record.latency_ms
        assert record.quality is not None
        assert record.reward == pytest.approx(record.quality * (record.macs / 1e6) ** -0.5)
        assert runs[identifier].data.metrics["reward"] == record.reward
        assert runs[identifier].data.metrics["quality"] == record.quality
    (search,) = runs_of(project, "search")
    assert 0 < search.data.metrics["strategy/refused_share"] < 1


def test_a_limit_that_nothing_meets_stops_before_any_training(project: Path) -> None:
    nas_search(stage="prepare")
    with pytest.raises(RunError, match=r"max_macs = 1: the encoder alone, .* has \d"):
        nas_search(
            stage="search", search=SearchSettings(constraints=ConstraintSettings(max_macs=1))
        )
    assert records(project) == []


def test_run_again_nothing_is_trained_twice(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    monkeypatch.setenv("NAS_PROJECT_DIR", str(again))
    (journal,) = again.glob("artifacts/searches/*/journal.jsonl")
    checkpoints = list(again.glob("artifacts/trainings/*/checkpoint.pt"))
    before = [path.stat().st_mtime_ns for path in (journal, *checkpoints)]
    nas_search()
    assert [path.stat().st_mtime_ns for path in (journal, *checkpoints)] == before


def test_what_is_left_of_another_choice_goes(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    monkeypatch.setenv("NAS_PROJECT_DIR", str(again))
    (again / "params.yaml").write_text(
        yaml.safe_dump({**PARAMS, "train": {**PARAMS["train"], "also": []}})
    )
    for stage in ("train", "evaluate"):
        nas_search(stage=stage)
    best = max(records(whole), key=lambda record: record.reward or 0).id
    place = again / "artifacts" / "results" / "tiny"
    assert [path.stem for path in (place / "train" / "models").iterdir()] == [best]
    pictures = {path.name for path in (place / "evaluate" / "pictures").iterdir()}
    assert pictures == {f"{best}-{name}" for name in PICTURES}


def test_one_network_by_two_names_is_trained_once(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    monkeypatch.setenv("NAS_PROJECT_DIR", str(again))
    same = again / "same.json"
    same.write_text(json.dumps(ARCHITECTURES["arch1"].to_dict()))
    train = {**PARAMS["train"], "also": ["arch1", str(same)]}
    (again / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "train": train}))
    before = sorted(path.name for path in (again / "artifacts" / "trainings").iterdir())
    trained, tested = (nas_search(stage=stage)[stage].root for stage in ("train", "evaluate"))
    assert sorted(path.name for path in (again / "artifacts" / "trainings").iterdir()) == before
    best = max(records(whole), key=lambda record: record.reward or 0).id
    other = ARCHITECTURES["arch1"].id
    assert set(trained) == set(tested) == {best, "arch1", other}
    assert trained[other] == trained["arch1"] and tested[other] == tested["arch1"]
    assert len(runs_of(again, "training")) == len(before) == 2


def test_what_the_stage_train_left_is_enough_to_evaluate(
    whole: Path, project: Path, tmp_path: Path
) -> None:
    """As on a machine that has pulled it from DVC: no search, no training, no weights to begin."""
    nas_search(stage="prepare")
    kept = Path("artifacts", "results", "tiny", "train")
    shutil.copytree(whole / kept, project / kept)
    best = max(records(whole), key=lambda record: record.reward or 0).id
    train = {**PARAMS["train"], "also": [best[:8]]}
    params = {**PARAMS, "train": train, "encoder": {"weights": "elsewhere.pt"}}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    summary = nas_search(stage="evaluate")["evaluate"].model_dump()

    scores = Path("artifacts", "results", "tiny", "evaluate", "metrics.json")
    assert summary == json.loads((whole / scores).read_text())
    assert (project / scores).read_bytes() == (whole / scores).read_bytes()
    assert len(list((project / scores).parent.glob("pictures/*.png"))) == 2 * len(PICTURES)
    for run in runs_of(project, "training"):
        assert run.data.metrics["test_mean_iou"] > 0 and "val_mean_iou" in run.data.metrics
    for folder in (whole / "artifacts" / "trainings").iterdir():
        for name in ("training.json", "genotype.json", "model.safetensors"):
            restored = project / "artifacts" / "trainings" / folder.name / name
            assert restored.read_bytes() == (folder / name).read_bytes()

    # Scored once, and other weights have no scores yet.
    tested = sorted(project.glob("artifacts/trainings/*/test.json"))
    before = [path.stat().st_mtime_ns for path in tested]
    nas_search(stage="evaluate")
    assert len(tested) == 2 and [path.stat().st_mtime_ns for path in tested] == before
    segmenter, card = load_segmenter(project / kept / "models" / "arch1.safetensors")
    with torch.no_grad():
        next(segmenter.decoder.parameters()).mul_(2)
    save_segmenter(project / kept / "models" / "arch1.safetensors", segmenter, card)
    nas_search(stage="evaluate")
    after = [path.stat().st_mtime_ns for path in tested]
    changed = [path.parent.name.partition("-")[0] for path, old, new in zip(
        tested, before, after, strict=True) if old != new]  # fmt: skip
    assert changed == ["arch1"]

    (project / kept / "models" / "arch1.safetensors").unlink()
    with pytest.raises(RunError, match=r"arch1\.safetensors is missing: .*dvc pull"):
        nas_search(stage="evaluate")


@pytest.mark.parametrize(
    ("num_workers", "ahead", "needed"), [(4, 0, None), (5, 0, 1), (8, 1, None), (64, 1, 15)]
)
def test_workers_that_never_have_work_are_named(
    num_workers: int, ahead: int, needed: int | None
) -> None:
    settings = Settings(
        search=SearchSettings(batch_size=4, rounds_ahead=ahead),
        runner=RunnerSettings(workers=num_workers),
    )
    warning = too_few_proposals(settings)
    if needed is None:
        assert warning is None
    else:
        assert warning and f"set search.rounds_ahead to {needed} or more" in warning


def test_fewer_candidates_take_the_first_ones(whole: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        again = tmp_path / "again"
        shutil.copytree(whole, again)
        patch.setenv("NAS_PROJECT_DIR", str(again))
        summary = nas_search(stage="search", search=SearchSettings(num_candidates=2))
    assert summary["search"].num_candidates == 2
    table = pd.read_parquet(again / "artifacts/results/tiny/search/candidates.parquet")
    assert set(table["id"]) == {record.id for record in records(whole)[:2]}


def test_what_only_the_journal_has_is_recorded_on_resume(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    shutil.copytree(whole, again, ignore=shutil.ignore_patterns("mlflow*"))
    monkeypatch.setenv("NAS_PROJECT_DIR", str(again))
    nas_search(stage="search")
    numbers = sorted(run.data.tags["nas.candidate"] for run in runs_of(again, "candidate"))
    assert numbers == ["1", "2", "3"]
    (search,) = runs_of(again, "search")
    assert search.data.metrics["progress/candidates"] == 3
    assert search.data.metrics["progress/rounds"] == 1


def test_failing_candidates_stop_the_search_and_teach_nothing(project: Path) -> None:
    state = Encoder().state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.fill_(3e38)  # finite, but no sum of two such is
    torch.save(state, project / "broken.pt")
    params = {**PARAMS, "encoder": {"weights": "broken.pt"}}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    nas_search(stage="prepare")
    with pytest.raises(RunError, match=r"the last 3 candidates failed, the latest with: .*finite"):
        nas_search(stage="search")
    found = records(project)
    assert [record.status for record in found] == ["failed"] * 3
    assert all(record.reward is None and "finite" in record.reason for record in found)
    assert {run.info.status for run in runs_of(project, "candidate")} == {"FAILED"}
    assert runs_of(project, "search")[0].info.status == "KILLED"
    assert not any("reward" in run.data.metrics for run in runs_of(project, "candidate"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dataset": {"kind": "camvid", "path": "nothing"}}, DataError, "nothing.*dvc"),
        ({"encoder": {"weights": "nowhere.pt"}}, WeightsError, "encoder.weights.*nowhere.pt"),
        ({"train": {"teacher": "nowhere.pt"}}, WeightsError, "train.teacher: .*'nowhere.pt'"),
        ({"train": {"also": ["arch7"]}}, NasError, "unknown architecture 'arch7'"),
        ({"tracking": {"uri": "http://127.0.0.1:9"}}, ServiceError, "127.0.0.1:9"),
        ({"compute": {"device": "cuda:77"}}, NasError, "cuda:77"),
        ({"search": {"latency": {"command": "no-such {model}"}}}, SettingsError, "no-such on the"),
        ({"search": {"start_from": ["arch7"]}}, SettingsError, "search.start_from: .*'arch7'"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    project: Path,
    capfd: pytest.CaptureFixture[str],
    change: dict[str, Any],
    error: type[NasError],
    message: str,
) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump({**PARAMS, **change}))
    with pytest.raises(error, match=message):
        nas_search()
    assert "Traceback" not in capfd.readouterr().err
    for folder in ("prepared", "searches", "trainings"):
        assert not list(project.glob(f"artifacts/{folder}/*"))


def test_a_teacher_of_other_classes_is_refused_before_the_search(project: Path) -> None:
    card = NetworkCard(ARCHITECTURES["arch0"], cityscapes.CLASSES, cityscapes.PALETTE, 8, 1)
    save_segmenter(project / "city.safetensors", seeded(1, card.build), card)
    change = {"train": {**PARAMS["train"], "teacher": "city.safetensors"}}
    (project / "params.yaml").write_text(yaml.safe_dump({**PARAMS, **change}))
    with pytest.raises(SettingsError, match=r"train\.teacher = 'city.safetensors': it labels road"):
        nas_search()
    assert not list(project.glob("artifacts/searches/*"))


@pytest.mark.parametrize("stage", ["search", "train", "evaluate"])
def test_a_stage_without_the_one_before_says_what_to_run(project: Path, stage: Any) -> None:
    with pytest.raises(NasError, match="nas search --stage"):
        nas_search(stage=stage)


def test_one_architecture_is_trained_by_hand(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(ARCHITECTURES["arch0"].to_dict()))
    summary = nas_train(load_settings(root=project), str(path), False)
    assert summary.test is None and 0 <= summary.val["mean_iou"] <= 1
    _, card = load_segmenter(summary.weights)
    assert card.genotype == Genotype.load(path)
    tested = nas_train(load_settings(root=project), str(path), True)
    assert tested.val == summary.val and 0 <= tested.test.mean_iou <= 1

    # As if the process had ended before the scores were recorded.
    (recorded,) = runs_of(project, "training")
    client_of(project).delete_run(recorded.info.run_id)
    nas_train(load_settings(root=project), str(path), True)
    (again,) = runs_of(project, "training")
    assert again.data.metrics["test_mean_iou"] == recorded.data.metrics["test_mean_iou"]
