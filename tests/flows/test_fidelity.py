"""`nas fidelity` on tiny street scenes, with a real Prefect server and a real MLflow store."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from PIL import Image
from prefect.settings import PREFECT_API_URL, temporary_settings
from scipy.stats import kendalltau

from flows.cli import main as cli
from flows.cli import terminal
from flows.fidelity import nas_fidelity
from nas_core.base.errors import CandidateError, NasError, RunError, SettingsError
from nas_core.base.paths import prepared_folder
from nas_core.data.prepared import PreparedData
from nas_core.loading import load_settings
from nas_core.models.encoder import Encoder
from nas_core.search.journal import Header, Journal, Record
from nas_core.search.sampling import sample_architectures
from nas_core.space.decisions import sample
from tests.command_line import run_nas
from tests.tiny import tiny

# An image of train is its own group.
HELD_OUT = {"dataset": {"held_out": ["train_0003", "train_0004"]}}
PROXIES = ["A1", "A1+B1", "A1 height=32,width=40", "A1+B1 height=32,width=40"]
ARGUMENTS = ("--num", "4", "--proxy", "height=32,width=40", "--proxy-seeds", "2")


@pytest.fixture(scope="module", autouse=True)
def server(prefect_server: str) -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        yield


def make_project(folder: Path, **changes: Any) -> Path:
    """A project with the journal of a search of one candidate."""
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny(**changes)))
    path = folder / "artifacts" / "searches" / "tiny-1234" / "journal.jsonl"
    path.parent.mkdir(parents=True)
    genotype = sample(np.random.default_rng(0))
    record = Record(
        index=0, round=0, candidate=1, id=genotype.id, genotype=genotype.to_dict(),
        status="finished", reward=0.6, num_parameters=1, macs=1, seed=0,
    )  # fmt: skip
    with Journal.create(path, Header(format=1, settings={}, identity={})) as journal:
        journal.append(record)
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return make_project(tmp_path)


def nas(monkeypatch: pytest.MonkeyPatch, project: Path, *arguments: str) -> None:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(project))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["nas", "fidelity", *arguments])
    monkeypatch.setattr(terminal.console, "width", 120)
    with pytest.raises(SystemExit) as ended:
        cli.main()
        raise SystemExit(0)
    assert ended.value.code in (0, None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four architectures on two settings of the proxy with two seeds each, and held-out images."""
    with pytest.MonkeyPatch.context() as patch:
        folder = make_project(tmp_path_factory.mktemp("whole"), **HELD_OUT)
        nas(patch, folder, *ARGUMENTS)
    return folder


@pytest.fixture
def again(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "again"))


def results(project: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    place = project / "artifacts" / "results" / "tiny" / "fidelity"
    report: dict[str, Any] = json.loads((place / "fidelity.json").read_text())
    return report, pd.read_parquet(place / "fidelity.parquet")


def outcomes(project: Path) -> dict[Path, int]:
    """When what takes long to make was written."""
    # Ids are hexadecimal: identity.json is none.
    patterns = ("fidelity/*/[!i]*.json", "trainings/*/training.json", "trainings/*/checkpoint.pt")
    files = [path for p in patterns for path in project.glob(f"artifacts/{p}")]
    return {path.relative_to(project): path.stat().st_mtime_ns for path in files}


def runs(project: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{project}/artifacts/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    assert not client.search_registered_models()
    return list(client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL))


def test_every_proxy_is_a_row(whole: Path) -> None:
    report, table = results(whole)
    assert [row["proxy"] for row in report["proxies"]] == PROXIES
    assert [row["settings"] for row in report["proxies"]] == [
        {"epochs_b": 0},
        {},
        {"height": 32, "width": 40, "epochs_b": 0},
        {"height": 32, "width": 40},
    ]
    assert report["num_architectures"] == 4
    assert report["train"]["epochs"] == 1 and "top" not in report["train"]
    assert len(report["data_hash"]) == 64
    default = report["proxies"][1]
    assert report["proxy"] == "A1+B1"
    assert report["num_proxy_seeds"] == 2
    for key in ("kendall_tau", "kendall_tau_interval", "spearman_rho", "reliability_interval"):
        assert report[key] == default[key]
    for row, shorter in ((default, report["proxies"][0]), report["proxies"][3:1:-1]):
        assert 0 < shorter["seconds"] < row["seconds"]
    assert table.columns.tolist() == [
        "id", "proxy", "proxy_seed", "reward", "seconds", "name", "num_parameters", "macs",
        "val_mean_iou", "held_out_mean_iou",
    ]  # fmt: skip
    assert len(table) == 4 * len(PROXIES) * 2


def test_the_correlation_is_that_of_the_figures_on_the_disk(whole: Path) -> None:
    report, table = results(whole)
    val = {}
    for path in whole.glob("artifacts/trainings/*/training.json"):
        training = json.loads(path.read_text())
        val[training["id"]] = training["val"]["mean_iou"]
        assert path.parent.name == f"{training['id']}-{training['identity']}"
    assert dict(zip(table["id"], table["val_mean_iou"], strict=True)) == val
    kept = {
        (json.loads((folder / "identity.json").read_text())["proxy"]["height"], path.stem): path
        for folder in whole.glob("artifacts/fidelity/tiny-*")
        for path in folder.glob("[!i]*.json")
    }
    for row, height in zip(report["proxies"], (40, 40, 32, 32), strict=True):
        at = 1 if "B1" in row["proxy"] else 0
        taus = []
        for end in ("", "-1"):
            rewards = [json.loads(kept[height, i + end].read_text())["scores"][at] for i in val]
            taus.append(kendalltau(rewards, list(val.values())).statistic)
        assert row["kendall_tau"] == pytest.approx(np.mean(taus))


def test_held_out_images_are_scored_and_no_look_at_test(whole: Path) -> None:
    report, table = results(whole)
    held_out = {}
    for path in whole.glob("artifacts/trainings/*/test.json"):
        test = json.loads(path.read_text())
        held_out[test["id"]] = test["mean_iou"]
        counts = pd.read_parquet(path.parent / "test_counts.parquet")
        assert set(counts["image"]) == {*HELD_OUT["dataset"]["held_out"]}
    assert dict(zip(table["id"], table["held_out_mean_iou"], strict=True)) == held_out
    found = report["held_out"]
    assert found["groups"] == HELD_OUT["dataset"]["held_out"]
    assert found["num_architectures"] == 4 and found["reliability"] == report["reliability"]
    assert {"kendall_tau", "kendall_tau_interval", "upper_half_tau"} <= found.keys()
    default = table[table["proxy"] == "A1+B1"]
    taus = [
        kendalltau(run["reward"], run["held_out_mean_iou"]).statistic
        for _, run in default.groupby("proxy_seed")
    ]
    assert found["kendall_tau"] == pytest.approx(np.mean(taus))
    assert [row["figure"] for row in found["baselines"]] == ["parameters", "MACs"]
    assert not (whole / "artifacts" / "test_looks.jsonl").exists()


def test_the_architectures_are_drawn_at_random(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(whole))
    settings = load_settings()
    data = PreparedData.open(prepared_folder(whole, settings))
    drawn = sample_architectures(settings, whole, data, 5)
    assert results(whole)[1]["id"].unique().tolist() == list(drawn)[:4]


def test_there_is_a_picture(whole: Path) -> None:
    with Image.open(whole / "artifacts/results/tiny/fidelity/fidelity.png") as picture:
        assert picture.width > 2 * picture.height
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_mlflow_has_one_finished_run(whole: Path) -> None:
    (run,) = runs(whole)
    assert (run.info.run_name, run.info.status) == ("fidelity", "FINISHED")
    report, _ = results(whole)
    low, high = report["kendall_tau_interval"]
    metrics = run.data.metrics
    assert (metrics["kendall_tau"], metrics["kendall_tau_low"]) == (report["kendall_tau"], low)
    assert metrics["kendall_tau_high"] == high and metrics["num_architectures"] == 4
    assert run.data.params["search.proxy.height"] == "40"
    assert run.data.params["train.epochs"] == "1"
    assert run.data.tags["data_hash"] == report["data_hash"]
    client = MlflowClient(f"sqlite:///{whole}/artifacts/mlflow.db")
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"fidelity.json", "fidelity.parquet", "fidelity.png", "report.html"}


def test_a_second_run_trains_nothing(
    again: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, report = outcomes(again), results(again)[0]
    assert len(before) == 2 * 4 * 2 + 2 * 4
    nas(monkeypatch, again, *ARGUMENTS)
    assert outcomes(again) == before and results(again)[0] == report
    assert len(runs(again)) == 1
    shown = capsys.readouterr().out
    assert all(name in shown for name in PROXIES)
    assert f"{report['kendall_tau']:.2f} (" in shown and "fidelity" in shown


def test_only_what_is_missing_is_trained(again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, (report, table) = outcomes(again), results(again)
    lost = next(path for path in before if path.parts[1] == "fidelity")
    (again / lost).unlink()
    nas(monkeypatch, again, *ARGUMENTS)
    after = outcomes(again)
    assert {path for path in after if after[path] != before[path]} == {lost}
    # The same training gives the same scores; only its seconds differ.
    assert results(again)[0]["kendall_tau"] == report["kendall_tau"]
    assert results(again)[1]["reward"].equals(table["reward"])


def test_architectures_by_reference(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(sample(np.random.default_rng(9)).to_dict()))
    (journal,) = project.glob("artifacts/searches/*/journal.jsonl")
    searched = Journal.read(journal).records[0].id
    references = ["arch0", str(path), "arch1", searched[:8], "arch0"]
    report = nas_fidelity(load_settings(), references)
    assert report.num_architectures == 4
    _, table = results(project)
    assert {"arch0", "arch1", searched} < set(table["name"])
    assert len(list(project.glob("artifacts/trainings/arch0-*"))) == 1
    assert report.held_out is None and report.reliability is None
    assert not list(project.glob("artifacts/trainings/*/test.json"))


@pytest.mark.parametrize(
    ("references", "options", "overrides", "error", "message"),
    [
        (["arch0", "arch1"], {}, [], RunError, "the command gives 2 different .* 4 or more"),
        ([], {}, ["train.splits=train+val"], SettingsError, "set train.splits=train"),
        ([], {"num": 3}, [], RunError, "num gives 3 different .* 4 or more"),
        (["arch7"], {}, [], NasError, "unknown architecture 'arch7'"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    project: Path,
    references: list[str],
    options: dict[str, Any],
    overrides: list[str],
    error: type[NasError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        nas_fidelity(load_settings(overrides=overrides), references, **options)
    assert not outcomes(project) and not (project / "artifacts" / "prepared").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["arch0", "--num", "40"], "--num is of random architectures: leave it out"),
        (["--proxy", "height=40"], "--proxy height=40: this proxy is tried already"),
        (["--proxy", "width=32", "--proxy", "width=32"], "--proxy width=32: this proxy is tried"),
    ],
)
def test_options_without_effect_are_refused(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    code, _, err = run_nas(monkeypatch, capsys, "fidelity", *arguments)
    assert code == 1 and message in err
    assert not outcomes(project)


def test_what_is_kept_of_another_training_is_named(
    again: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = again / next(path for path in outcomes(again) if path.parts[1] == "fidelity")
    other = next(path for path in kept.parent.glob("[!i]*.json") if path != kept)
    shutil.copyfile(other, kept)
    monkeypatch.setenv("NAS_PROJECT_DIR", str(again))
    code, _, err = run_nas(monkeypatch, capsys, "fidelity", *ARGUMENTS)
    assert code == 1 and f"{kept.name} is of another training: delete it" in err


def test_a_file_where_results_go_is_refused_before_any_work(project: Path) -> None:
    place = project / "artifacts" / "results" / "tiny" / "fidelity"
    place.parent.mkdir(parents=True)
    place.write_text("")
    with pytest.raises(RunError, match="fidelity is no folder: move it away"):
        nas_fidelity(load_settings(), num=4)
    assert not outcomes(project)


@pytest.mark.parametrize("name", ["trainings", "results/tiny/fidelity"])
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    project: Path, name: str
) -> None:
    place = project / "artifacts" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to("/proc")  # a folder that takes no file, from root neither
    with pytest.raises(RunError, match=f"{name} cannot be written"):
        nas_fidelity(load_settings(), num=4)
    assert not list(project.glob("artifacts/fidelity/*"))


def test_a_training_that_fails_is_named(project: Path) -> None:
    state = Encoder().state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.fill_(3e38)  # finite, but no sum of two such is
    torch.save(state, project / "broken.pt")
    named = r"(?m)^[0-9a-f]{12} on A1\+B1: .*finite.*another seed, which draws others$"
    with pytest.raises(CandidateError, match=named):
        nas_fidelity(load_settings(overrides=["encoder.weights=broken.pt"]), num=4)
    assert not outcomes(project) and not runs(project)
