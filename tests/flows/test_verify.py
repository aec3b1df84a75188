"""`nas verify` on a few drawn images, with a real Prefect server and a real MLflow store."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import DeploymentStatus
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cli import main as cli
from flows.cli import terminal
from flows.verify import nas_verify
from nas_core.base.errors import GenotypeError, NasError, RunError, SettingsError, WeightsError
from nas_core.base.locks import LOCK_FILE
from nas_core.base.paths import looks_file
from nas_core.config import DatasetSettings, EncoderSettings, SyntheticSettings, TrainSettings
from nas_core.data.camvid import CLASSES
from nas_core.data.synthetic import draw_dataset
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.decisions import sample
from nas_core.training.evaluation import PICTURES
from tests.tiny import tiny

# CamVid's layout and size, and the network that the claims are of; all else is as small as can be.
IMAGES = {"num_train": 3, "num_val": 1, "num_test": 2, "height": 360, "width": 480}
PARAMS = tiny(
    dataset={"kind": "camvid"},
    network={"agg_size": 64, "sep_repeats": 2},
    train={"also": ["long gone"], "batch_size": 2, "warmup_steps": 0},
)
MINE = sample(np.random.default_rng(3))
SECONDS_TO_SERVE = 300


@pytest.fixture(scope="module", autouse=True)
def server(prefect_server: str) -> Iterator[str]:
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        yield prefect_server


def make_project(folder: Path, images: dict[str, int] = IMAGES) -> Path:
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (folder / "mine.json").write_text(json.dumps(MINE.to_dict()))
    draw_dataset(folder / "raw", SyntheticSettings(**images))
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with smaller images."""
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return make_project(tmp_path, {**IMAGES, "height": 40, "width": 56})


def nas(monkeypatch: pytest.MonkeyPatch, project: Path, *arguments: str) -> None:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(project))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["nas", *arguments])
    monkeypatch.setattr(terminal.console, "width", 100)
    with pytest.raises(SystemExit) as ended:
        cli.main()
        raise SystemExit(0)
    assert ended.value.code in (0, None)


def verify(monkeypatch: pytest.MonkeyPatch, project: Path, *options: str) -> None:
    """arch0 and one from a file, with the seeds 0 and 5."""
    references = ("--architecture", "arch0", "--architecture", str(project / "mine.json"))
    seeds = ("--seed", "0", "--seed", "5")
    nas(monkeypatch, project, "verify", "camvid", *references, *seeds, *options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        folder = make_project(tmp_path_factory.mktemp("whole"))
        verify(patch, folder, "-S", "runner.workers=2")
    return folder


@pytest.fixture
def again(whole: Path, tmp_path: Path) -> Path:
    """A copy of the whole project."""
    folder = tmp_path / "again"
    shutil.copytree(whole, folder)
    return folder


def place(project: Path) -> Path:
    return project / "artifacts" / "results" / "tiny" / "verify"


def report_of(project: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((place(project) / "verify.json").read_text())
    return report


def outcomes(project: Path) -> dict[str, int]:
    """When what takes long to make was written."""
    files = [path for path in project.glob("artifacts/trainings/*/**/*") if path.is_file()]
    return {str(path.relative_to(project)): path.stat().st_mtime_ns for path in files}


def runs(project: Path, kind: str) -> list[Run]:
    client = MlflowClient(f"sqlite:///{project}/artifacts/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`nas.kind` = '{kind}'"))


def test_the_report_has_the_scores_of_every_training(whole: Path) -> None:
    report = report_of(whole)
    assert (report["split"], report["size"], report["splits"]) == ("test", [360, 480], "train")
    arch0, mine = report["architectures"]
    assert (arch0["name"], mine["name"]) == ("arch0", MINE.id)
    for one in (arch0, mine):
        assert [model["seed"] for model in one["models"]] == [0, 5]
        scores = []
        for model in one["models"]:
            folder = whole / "artifacts" / "trainings" / model["training"]
            training = json.loads((folder / "training.json").read_text())
            test = json.loads((folder / "test.json").read_text())
            assert (training["seed"], training["id"]) == (model["seed"], one["id"])
            assert model["scores"]["mean_iou"] == test["mean_iou"]
            assert model["class_iou"] == test["class_iou"]
            scores.append(test["mean_iou"])
        expected = {"mean": sum(scores) / 2, "min": min(scores), "max": max(scores)}
        assert one["measured"] == pytest.approx(expected)
        assert scores[0] != scores[1]
    assert report["train"]["epochs"] == 1 and "also" not in report["train"]
    assert len(report["data_hash"]) == 64


def test_the_report_says_how_sure_it_is(whole: Path) -> None:
    report = report_of(whole)
    (difference,) = report["differences"]
    assert (difference["first"], difference["second"]) == ("arch0", MINE.id)
    for one in report["architectures"]:
        low, high = one["seeds_interval"]
        assert low < one["measured"]["min"] < one["measured"]["max"] < high
        # Two images are no sample.
        assert one["split_interval"] is None and one["looks"] == 2
    assert difference["seeds_interval"] and difference["split_interval"] is None
    looks = (whole / "artifacts" / "test_looks.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["model"] for line in looks) == sorted(
        path.name for path in (whole / "artifacts" / "trainings").iterdir()
    )


def test_the_claim_is_set_beside_what_was_measured(whole: Path) -> None:
    arch0, mine = report_of(whole)["architectures"]
    assert (arch0["claimed"], arch0["verdict"]) == (0.639, "not reached")
    assert (mine["claimed"], mine["verdict"]) == (None, None)
    text = (place(whole) / "verify.md").read_text()
    assert "| arch0 | test mIoU | 63.9 |" in text and "| train | not reached |" in text
    assert f"| {MINE.id} | test mIoU | - |" in text and "| train | - |" in text
    table = pd.read_csv(place(whole) / "classes.csv")
    assert table.columns.tolist() == ["architecture", "seed", "class", "iou"]
    assert set(table["class"]) <= set(CLASSES)
    means = table.groupby(["architecture", "seed"])["iou"].mean()
    assert means["arch0", 5] == pytest.approx(arch0["models"][1]["scores"]["mean_iou"])
    assert sorted(path.name for path in place(whole).iterdir()) == [
        "claims.csv", "classes.csv", "report.html", "verify.json", "verify.md",
    ]  # fmt: skip


def test_every_network_has_its_pictures(whole: Path) -> None:
    folders = list((whole / "artifacts" / "trainings").iterdir())
    assert len(folders) == 4
    for folder in folders:
        assert {path.name for path in (folder / "pictures").iterdir()} == {*PICTURES}
        for name in PICTURES:
            with Image.open(folder / "pictures" / name) as picture:
                assert min(picture.size) > 200
                assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_mlflow_has_the_report_and_each_model_with_its_pictures(whole: Path) -> None:
    (run,) = runs(whole, "verify")
    assert (run.info.run_name, run.info.status) == ("verify", "FINISHED")
    arch0 = report_of(whole)["architectures"][0]
    assert run.data.metrics["test_mean_iou/arch0"] == arch0["measured"]["mean"]
    assert run.data.metrics["claimed_mean_iou/arch0"] == 0.639
    assert f"claimed_mean_iou/{MINE.id}" not in run.data.metrics
    assert run.data.params["seeds"] == "0 5" and run.data.params["train.splits"] == "train"
    client = MlflowClient(f"sqlite:///{whole}/artifacts/mlflow.db")
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"verify.json", "claims.csv", "classes.csv", "verify.md", "report.html"}
    trainings = runs(whole, "training")
    assert sorted(run.data.params["seed"] for run in trainings) == ["0", "0", "5", "5"]
    for training in trainings:
        logged = {file.path for file in client.list_artifacts(training.info.run_id, "test")}
        left = ("test_confusion_matrix.csv", "test_counts.parquet", *PICTURES)
        assert logged == {f"test/{name}" for name in left}
        assert training.data.tags["seed"] == training.data.params["seed"]


def test_a_second_run_trains_and_scores_nothing(
    again: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, report = outcomes(again), report_of(again)
    verify(monkeypatch, again)
    assert outcomes(again) == before and report_of(again) == report
    assert len(runs(again, "verify")) == 1
    shown = capsys.readouterr().out
    assert "tiny: test mIoU at 480x360, per cent; trained on train" in shown
    (line,) = (line for line in shown.splitlines() if "63.9" in line and "│" in line)
    assert f"{100 * report['architectures'][0]['measured']['mean']:.2f} " in line
    assert "not reached" in line
    assert all(name in shown for name in CLASSES)


def test_an_interrupted_one_goes_on_from_the_checkpoint(
    again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, report = outcomes(again), report_of(again)
    # As if the process had ended between the last epoch and the model.
    lost = again / "artifacts" / "trainings" / report["architectures"][0]["models"][1]["training"]
    for name in ("training.json", "model.safetensors", "genotype.json", "test.json"):
        (lost / name).unlink()
    shutil.rmtree(lost / "pictures")
    verify(monkeypatch, again)
    after = outcomes(again)
    assert after.keys() == before.keys()
    changed = {path for path in after if after[path] != before[path]}
    assert {Path(path).parts[2] for path in changed} == {lost.name}
    assert str((lost / "checkpoint.pt").relative_to(again)) not in changed
    # The same scores, at another look.
    arch0 = report["architectures"][0]
    assert arch0["looks"] == 2
    arch0["looks"] = 3
    assert report_of(again) == report


def test_pictures_that_are_missing_are_drawn_without_scoring_again(
    again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = outcomes(again)
    (lost, *_) = again.glob("artifacts/trainings/*/pictures/contact_sheet.png")
    drawn = lost.read_bytes()
    lost.unlink()
    verify(monkeypatch, again)
    after = outcomes(again)
    changed = {Path(path).name for path in after if after[path] != before[path]}
    assert changed == {*PICTURES, LOCK_FILE}
    assert lost.read_bytes() == drawn


def test_train_and_val_is_said_in_the_table(project: Path) -> None:
    train = TrainSettings(splits="train+val")
    report = nas_verify(architectures=("arch1",), train=train)
    (arch1,) = report.architectures
    # Not the size that the claim is of.
    assert (report.size, arch1.claimed, arch1.verdict) == ((40, 56), None, None)
    assert "| train+val | - |" in (place(project) / "verify.md").read_text()
    (folder,) = (project / "artifacts" / "trainings").iterdir()
    training = json.loads((folder / "training.json").read_text())
    assert training["splits"] == "train+val" and training["val"] == {}
    # The rest of the section is the profile's.
    assert len(training["history"]) == 1


def test_train_and_val_is_refused_where_val_gives_the_scores(project: Path) -> None:
    own = project / "own"
    for split in ("train", "val"):
        shutil.copytree(project / "raw" / split, own / split / "images")
        shutil.copytree(project / "raw" / f"{split}annot", own / split / "masks")
    described = {"classes": list(CLASSES), "ignore_labels": [11]}
    (own / "dataset.yaml").write_text(yaml.safe_dump(described))
    dataset = DatasetSettings(kind="folder", path="own")
    with pytest.raises(SettingsError, match=r"no test split.*set train\.splits to train"):
        nas_verify(dataset=dataset, train=TrainSettings(splits="train+val"))
    assert not outcomes(project)
    report = nas_verify(dataset=dataset, architectures=("arch0",))
    (arch0,) = report.architectures
    assert (report.split, arch0.claimed, arch0.looks) == ("val", None, None)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"architectures": ("arch0", "arch7")}, GenotypeError, "unknown architecture 'arch7'"),
        ({"architectures": ("arch0", "arch0")}, SettingsError, "arch0 is given twice"),
        ({"architectures": ()}, SettingsError, "architecture: give one or more"),
        ({"seeds": (0, 1, 0)}, SettingsError, "seed 0 is given twice"),
        ({"seeds": ()}, SettingsError, "seed: give one or more"),
        ({"encoder": EncoderSettings(weights="no.pt")}, WeightsError, r"no\.pt"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    project: Path, given: dict[str, Any], error: type[NasError], message: str
) -> None:
    with pytest.raises(error, match=message):
        nas_verify(**given)
    assert not outcomes(project) and not (project / "artifacts" / "prepared").exists()


def test_one_network_by_two_names_is_refused(project: Path) -> None:
    path = project / "same.json"
    path.write_text(json.dumps(ARCHITECTURES["arch1"].to_dict()))
    with pytest.raises(SettingsError, match=r"same\.json is the same network as arch1"):
        nas_verify(architectures=("arch1", str(path)))
    assert not outcomes(project)


def test_looks_that_cannot_be_read_are_refused_before_any_work(project: Path) -> None:
    looks_file(project).mkdir(parents=True)
    with pytest.raises(RunError, match=r"test_looks\.jsonl cannot be read"):
        nas_verify(architectures=("arch1",))
    assert not outcomes(project)


def test_the_deployment_is_served_and_nas_run_shows_the_table(
    again: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**os.environ, "NAS_PROJECT_DIR": str(again), "PREFECT_API_URL": server}
    log = again / "served.log"
    with log.open("wb") as output:
        serving = subprocess.Popen(
            [sys.executable, "-m", "flows.servers.deployments"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + SECONDS_TO_SERVE
        while not is_served("nas-verify/camvid"):
            assert serving.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        before = outcomes(again)
        given = ("--param", 'architectures=["arch0"]', "--param", "seeds=[0]")
        nas(monkeypatch, again, "run", "nas-verify/camvid", *given)
    finally:
        serving.terminate()
        serving.wait()
    assert outcomes(again) == before
    (arch0,) = report_of(again)["architectures"]
    assert [model["seed"] for model in arch0["models"]] == [0]
    shown = capsys.readouterr().out
    assert "not reached" in shown and f"{100 * arch0['measured']['mean']:.2f}" in shown


def is_served(name: str) -> bool:
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(name).status == DeploymentStatus.READY
        except ObjectNotFound:
            return False
