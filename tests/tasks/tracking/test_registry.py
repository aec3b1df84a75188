import ast
import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from packaging.requirements import Requirement
from PIL import Image

from nas_core.base.errors import ServiceError, WeightsError
from nas_core.base.seeds import seeded
from nas_core.config import TileSettings
from nas_core.data.transforms import normalise
from nas_core.models.checkpoint import NetworkCard, load_segmenter, save_segmenter
from nas_core.models.labelling import predict_labels
from nas_core.space.architectures import ARCHITECTURES
from tasks.tracking.registry import TrainingEntry, log_test, log_training, requirements
from tasks.tracking.tracker import CandidateEntry, Tracker
from tests.serving import answers, free_port
from tests.tasks.tracking.conftest import CARD

CHECKOUT = Path(__file__).resolve().parents[3]
NAME = "nas-camvid"


@pytest.fixture
def entry(weights: Path, tmp_path: Path) -> TrainingEntry:
    # To MLflow a path is a URI, in which %2F is a slash.
    odd = tmp_path / "a%2Fb" / "model.safetensors"
    odd.parent.mkdir()
    shutil.copyfile(weights, odd)
    genotype = tmp_path / "genotype.json"
    genotype.write_text(json.dumps(ARCHITECTURES["arch0"].to_dict()))
    return TrainingEntry(
        name="arch0",
        identity="t1",
        weights=odd,
        num_parameters=274_443,
        macs=1_000_000_000,
        seed=0,
        started=1000.0,
        finished=2000.0,
        params={"train.epochs": 2},
        history=[{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5, "val_mean_iou": 0.6}],
        val={"mean_iou": 0.6, "reward": 0.7},
        files=[genotype],
    )


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (45, 61, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def labels(weights: Path, image: np.ndarray) -> np.ndarray:
    return predict_labels(load_segmenter(weights)[0], image)


@pytest.fixture
def server(root: Path) -> Iterator[str]:
    """A tracking server that keeps the artifacts itself."""
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/artifacts/mlflow.db"]
    command += ["--artifacts-destination", str(root / "served"), "--port", address[17:]]
    with (root / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        path = "api/2.0/mlflow/experiments/search?max_results=1"
        assert answers(f"{address}/{path}", process, 120), "the tracking server did not start"
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(120)


def _encoded(image: np.ndarray, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def _mask(text: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(text))) as mask:
        assert (mask.format, mask.mode) == ("PNG", "L")
        return np.asarray(mask)


def _champion(tracker: Tracker) -> ModelVersion:
    return tracker.client.get_model_version_by_alias(NAME, "champion")


def test_a_training_has_its_record(tracker: Tracker, entry: TrainingEntry) -> None:
    parent = tracker.start_search("s1", "s1", {})
    registered = log_training(tracker, replace(entry, parent=parent), NAME)
    run = tracker.client.get_run(registered.run_id)
    assert (run.info.run_name, run.info.status) == ("train arch0", "FINISHED")
    assert run.data.tags["commit"] == "c0ffee"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["architecture_id"] == ARCHITECTURES["arch0"].id
    assert run.data.params["train.epochs"] == "2"
    assert run.data.params["structure_0"].startswith("cat(max_pool_3x3(tap 0), ")
    assert run.data.metrics == {"loss": 0.5, "val_mean_iou": 0.6, "val_reward": 0.7}
    files = {file.path for file in tracker.client.list_artifacts(registered.run_id)}
    assert files == {"model.safetensors", "genotype.json"}


def test_scores_on_the_test_split(tracker: Tracker, entry: TrainingEntry, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(picture)
    run_id = log_training(tracker, entry, NAME).run_id
    log_test(tracker, run_id, {"mean_iou": 0.5}, {"road": 0.9, "sky": float("nan")}, [picture])
    metrics = tracker.client.get_run(run_id).data.metrics
    assert metrics["test_mean_iou"] == 0.5
    assert metrics["test_iou/road"] == 0.9
    assert "test_iou/sky" not in metrics
    assert [f.path for f in tracker.client.list_artifacts(run_id, "test")] == ["test/picture.png"]
    note = tracker.client.get_run(run_id).data.tags["mlflow.note.content"]
    assert note.startswith("test mIoU: 50.0 %\n\n`arch0`, trained fully on train: ")
    assert _champion(tracker).description == note
    [model] = tracker.client.search_logged_models([tracker.experiment_id])
    assert {metric.key for metric in model.metrics} >= {"val_mean_iou", "test_mean_iou"}


def test_scores_on_the_test_split_are_recorded_once_and_completely(
    tracker: Tracker, entry: TrainingEntry, tmp_path: Path
) -> None:
    run_id = log_training(tracker, entry, NAME).run_id
    picture = tmp_path / "picture.png"
    with pytest.raises(ServiceError, match=r"picture\.png"):
        log_test(tracker, run_id, {"mean_iou": 0.5}, {"road": 0.9}, [picture])
    Image.new("RGB", (4, 4)).save(picture)
    for _ in range(2):
        log_test(tracker, run_id, {"mean_iou": 0.5}, {"road": 0.9}, [picture])
        assert [f.path for f in tracker.client.list_artifacts(run_id, "test")] == [
            "test/picture.png"
        ]
        for name in ("test_mean_iou", "test_iou/road"):
            assert len(tracker.client.get_metric_history(run_id, name)) == 1
        picture.unlink(missing_ok=True)  # so that it could not be uploaded again
    # Drawn by a later version: added to what is there.
    later = tmp_path / "later.png"
    Image.new("RGB", (4, 4)).save(later)
    log_test(tracker, run_id, {"mean_iou": 0.5}, {"road": 0.9}, [picture, later])
    files = {file.path for file in tracker.client.list_artifacts(run_id, "test")}
    assert files == {"test/picture.png", "test/later.png"}
    assert len(tracker.client.get_metric_history(run_id, "test_mean_iou")) == 1


def test_the_champion_is_the_best_by_val(tracker: Tracker, entry: TrainingEntry) -> None:
    def trained(identity: str, **val: float) -> int:
        return log_training(tracker, replace(entry, identity=identity, val=val), NAME).version

    # Without a val score the newest is served, until there is one that has it.
    for version, identity in enumerate(["on train and val", "again, for longer"], 1):
        assert trained(identity) == int(_champion(tracker).version) == version
    assert trained("first", mean_iou=0.6) == 3
    assert int(_champion(tracker).version) == 3
    for identity, val in [("worse", 0.5), ("equal", 0.6), ("undefined", float("nan"))]:
        trained(identity, mean_iou=val)
        assert int(_champion(tracker).version) == 3
    trained("also on train and val")
    assert int(_champion(tracker).version) == 3
    better = log_training(tracker, replace(entry, identity="b", val={"mean_iou": 0.7}), NAME)
    assert better.version == better.champion == int(_champion(tracker).version) == 8
    assert _champion(tracker).tags == {
        "val_mean_iou": "0.7",
        "architecture_id": ARCHITECTURES["arch0"].id,
    }


def test_logging_again_makes_no_second_version(tracker: Tracker, entry: TrainingEntry) -> None:
    first = log_training(tracker, entry, NAME)
    assert log_training(tracker, entry, NAME) == first
    assert len(tracker.client.search_model_versions(f"name = '{NAME}'")) == 1


def test_a_training_whose_logging_broke_off(tracker: Tracker, entry: TrainingEntry) -> None:
    broken = tracker.create_run("train", {"nas.kind": "training", "nas.training": entry.identity})
    log_training(tracker, entry, NAME)
    assert tracker.client.get_run(broken).info.status == "KILLED"


def test_unreadable_weights_leave_no_run(
    tracker: Tracker, entry: TrainingEntry, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError):
        log_training(tracker, replace(entry, weights=tmp_path / "model.safetensors"), NAME)
    assert tracker.find_runs({"nas.kind": "training"}) == []


def test_the_model_in_process(
    tracker: Tracker, entry: TrainingEntry, image: np.ndarray, labels: np.ndarray
) -> None:
    log_training(tracker, replace(entry, name="odd/name: 1.0"), NAME)
    [logged] = tracker.client.search_logged_models([tracker.experiment_id])
    model = mlflow.pyfunc.load_model(f"{logged.artifact_location}")
    assert model.metadata.signature.inputs.input_names() == ["image"]
    assert model.metadata.signature.outputs.input_names() == ["mask"]
    assert model.metadata.metadata["classes"] == ["road", "sky", "tree"]
    wide = np.tile(image, (1, 2, 1))
    frame = pd.DataFrame({"image": [_encoded(image), _encoded(wide), _encoded(image, "JPEG")]})
    frame.index = pd.Index([7, 3, 5])
    answer = model.predict(frame)
    assert list(answer.index) == [7, 3, 5]
    np.testing.assert_array_equal(_mask(answer["mask"][7]), labels)
    assert _mask(answer["mask"][3]).shape == (45, 122)
    for bad, reason in (
        ("", "empty file"),
        ("no base64!", "column image is not the base64"),
        (base64.b64encode(b"no image").decode(), "no image that can be read"),
        (_encoded(image)[:200], "damaged PNG .truncated"),
    ):
        with pytest.raises(MlflowException, match=f"row 1: {reason}") as error:
            model.predict(pd.DataFrame({"image": [_encoded(image), bad]}))
        assert error.value.get_http_status_code() == 400


def test_the_model_is_logged_without_pickles(tracker: Tracker, entry: TrainingEntry) -> None:
    log_training(tracker, entry, NAME)
    [logged] = tracker.client.search_logged_models([tracker.experiment_id])
    folder = Path(logged.artifact_location.removeprefix("file://"))
    names = {path.name for path in folder.rglob("*")}
    assert "weights" not in names  # the artifact keeps its file name
    assert {"model.safetensors", "served_model.py", "MLmodel"} <= names
    assert not {path.suffix for path in folder.rglob("*")} & {".pkl", ".pt", ".pyc"}
    assert (folder / "requirements.txt").read_text().splitlines() == requirements("mobilenet_v2")


def test_the_requirements_are_all_that_serving_imports() -> None:
    listed = {Requirement(line).name for line in requirements("timm/resnet18")}
    modules = {"PIL": "pillow", "yaml": "pyyaml"}
    imported = _third_party(CHECKOUT / "tasks" / "tracking" / "served_model.py", set())
    assert {modules.get(name, name) for name in imported} == listed


@pytest.mark.parametrize(
    "card",
    [
        replace(CARD, encoder="mobilenet_v3_small"),
        replace(CARD, encoder="timm/mobilenetv3_small_050"),
        replace(CARD, tile=TileSettings(size=32, overlap=8)),
    ],
    ids=lambda card: f"{card.encoder} on tiles" if card.tile else card.encoder,
)
def test_other_networks_are_served(
    card: NetworkCard, tracker: Tracker, entry: TrainingEntry, image: np.ndarray, tmp_path: Path
) -> None:
    weights = tmp_path / "model.safetensors"
    segmenter = seeded(0, card.build).eval()
    with torch.inference_mode():  # so that an image has more than one class
        bias = segmenter.decoder.classify.bias
        bias.data = bias.data - segmenter(normalise(image[None].copy())).mean((0, 2, 3))
    save_segmenter(weights, segmenter, card)
    log_training(tracker, replace(entry, weights=weights), NAME)
    [logged] = tracker.client.search_logged_models([tracker.experiment_id])
    model = mlflow.pyfunc.load_model(logged.artifact_location)
    answer = model.predict(pd.DataFrame({"image": [_encoded(image)]}))
    expected = predict_labels(segmenter, image, card.tile)
    np.testing.assert_array_equal(_mask(answer["mask"][0]), expected)
    whole = predict_labels(segmenter, image)
    assert len(np.unique(whole)) > 1
    assert np.array_equal(expected, whole) == (card.tile is None)


def _third_party(file: Path, seen: set[Path]) -> set[str]:
    """Top-level packages that a file imports, and the files of nas_core that it imports."""
    seen.add(file)
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.startswith("nas_core"):
                path = (CHECKOUT / name.replace(".", "/")).with_suffix(".py")
                if path.is_file() and path not in seen:
                    found |= _third_party(path, seen)
            else:
                found.add(name.partition(".")[0])
    return found - set(sys.stdlib_module_names)


def test_mlflow_models_predict(
    tracker: Tracker, entry: TrainingEntry, image: np.ndarray, labels: np.ndarray, tmp_path: Path
) -> None:
    """The command itself, in another folder, with the code that was stored with the model."""
    log_training(tracker, entry, NAME)
    question, answer = tmp_path / "in.json", tmp_path / "out.json"
    rows = {"columns": ["image"], "data": [[_encoded(image)]]}
    question.write_text(json.dumps({"dataframe_split": rows}))
    command = [sys.executable, "-m", "mlflow", "models", "predict", "--env-manager", "local"]
    command += ["-m", f"models:/{NAME}@champion", "-i", str(question), "-o", str(answer)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracker.uri}
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    [row] = json.loads(answer.read_text())["predictions"]
    np.testing.assert_array_equal(_mask(row["mask"]), labels)


def test_a_tracking_server(
    server: str, root: Path, entry: TrainingEntry, image: np.ndarray, labels: np.ndarray
) -> None:
    """The whole record through HTTP, artifacts included."""
    tracker = Tracker(server, "remote", {"commit": "c0ffee"}, root)
    parent = tracker.start_search("s1", "s1", {"a": 1})
    assert tracker.start_search("s1", "s1", {"a": 2}) == parent
    candidate = CandidateEntry(
        1, ARCHITECTURES["arch0"], 1, 1, 0, 1.0, 2.0, {"reward": 0.5}, files=entry.files
    )
    run_id = tracker.log_candidate(parent, candidate)
    assert tracker.log_candidate(parent, candidate) == run_id
    registered = log_training(tracker, replace(entry, parent=parent), NAME)
    log_test(tracker, registered.run_id, {"mean_iou": 0.5}, {"road": 0.9})
    assert log_training(tracker, entry, NAME) == registered
    assert registered.champion == 1
    assert not (root / "artifacts" / "mlflow").exists()
    source = tracker.client.get_model_version(NAME, "1").source
    place = mlflow.artifacts.download_artifacts(
        artifact_uri=source, dst_path=str(root / "model"), tracking_uri=server
    )
    answer = mlflow.pyfunc.load_model(place).predict(pd.DataFrame({"image": [_encoded(image)]}))
    np.testing.assert_array_equal(_mask(answer["mask"][0]), labels)
