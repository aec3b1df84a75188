"""A full training, as far as the model and its card, and who may work on it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nas_core.base.errors import RunError
from nas_core.base.locks import RunLock
from nas_core.base.paths import prepared_folder, trainings_folder
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.deploy.shipping import ship
from nas_core.loading import validate_settings
from nas_core.models.checkpoint import load_segmenter
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training import evaluation, full, lifecycle
from nas_core.training.evaluation import (
    counts_by_image,
    evaluate_architecture,
    evaluation_files,
)
from nas_core.training.finding import find_weights
from nas_core.training.lifecycle import restore_training, train_architecture
from nas_core.training.looks import count_looks
from nas_core.training.record import EPOCHS_FILE, EpochsDone, FinalScores, Training
from tests.tiny import tiny

PARAMS = tiny(dataset={"synthetic": {"num_train": 4, "num_val": 2, "num_test": 2}}, name="small")

SCORES = FinalScores(
    label="a", id="a", mean_iou=0.5, frequency_weighted_iou=0.5, mean_accuracy=0.75, reward=0.5,
    class_iou={"sky": 0.5},
)  # fmt: skip

ARCH1 = ARCHITECTURES["arch1"]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return validate_settings(PARAMS, "test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Path:
    """A project in which arch1 was trained."""
    root = tmp_path_factory.mktemp("trained")
    prepare(settings.dataset, root, prepared_folder(root, settings))
    train(settings, root)
    return root


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "project")


def train(settings: Settings, root: Path, label: str = "arch1") -> Path:
    return train_architecture(settings, root, label, ARCH1, commit="0123abc")


def training_of(root: Path) -> Path:
    (folder,) = trainings_folder(root).iterdir()
    return folder


def test_a_training_records_what_its_card_tells(trained: Path, tmp_path: Path) -> None:
    folder = training_of(trained)
    path = ship(folder, "arch1-small", "none", tmp_path / "models")
    card = json.loads(path.with_suffix(".json").read_text())
    training = json.loads((folder / "training.json").read_text())
    assert card["data"]["name"] == "small" and card["data"]["sha256"] == training["data_hash"]
    assert card["recipe"]["train"]["batch_size"] == PARAMS["train"]["batch_size"]
    assert card["recipe"]["encoder"] == {"weights": "none"}
    assert "56×40" in path.with_suffix(".svg").read_text()
    assert card["commit"] == "0123abc"
    assert EpochsDone.read(folder / EPOCHS_FILE) == EpochsDone(done=1, planned=1)
    assert card["epochs"] == 1 and 0 <= card["val"]["mean_iou"] <= 1 and card["test"] == {}


def test_one_network_by_another_name_is_not_trained_again(
    project: Path, settings: Settings
) -> None:
    folder = training_of(project)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert train(settings, project, ARCH1.id) == folder
    # Nor from the start, where only its checkpoint is there.
    (folder / "training.json").unlink()
    assert train(settings, project, ARCH1.id) == folder == training_of(project)
    assert json.loads((folder / "training.json").read_text())["label"] == "arch1"
    checkpoint = folder / "checkpoint.pt"
    assert checkpoint.stat().st_mtime_ns == before[checkpoint]


def test_of_two_trainings_of_one_network_the_complete_one_counts(
    project: Path, settings: Settings
) -> None:
    complete = training_of(project)
    begun = complete.with_name(complete.name.replace("arch1", "another"))
    begun.mkdir()
    assert train(settings, project, "another") == complete
    shutil.copyfile(complete / "training.json", begun / "training.json")
    assert train(settings, project, "another") == begun
    assert train(settings, project, "arch1") == complete


def test_files_of_another_training_are_refused(project: Path, settings: Settings) -> None:
    folder = training_of(project)
    evaluate_architecture(settings, project, "arch1", folder)
    record, other = Training.read(folder / "training.json"), find_weights("arch0-camvid")
    FinalScores.read(folder / "test.json").model_copy(update={"id": "other"}).write(
        folder / "test.json"
    )
    with pytest.raises(RunError, match=r"test\.json is of the network 'other', .* delete it"):
        evaluate_architecture(settings, project, "arch1", folder)
    with pytest.raises(RunError, match=r"arch0-camvid\.safetensors is of the .* train again"):
        restore_training(project, record, other)
    (folder / "test.json").unlink()
    shutil.copyfile(other, folder / "model.safetensors")
    with pytest.raises(RunError, match=r"model\.safetensors is of the network .* delete "):
        evaluate_architecture(settings, project, "arch1", folder)
    record.model_copy(update={"identity": "0123"}).write(folder / "training.json")
    with pytest.raises(RunError, match=r"training\.json is of the training 0123, not of .* move"):
        train(settings, project)


def test_a_training_in_work_is_refused(
    project: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = training_of(project)
    record = Training.read(folder / "training.json")
    (folder / "training.json").unlink()
    really, refused = lifecycle.train_fully, []

    def train_twice(*args: Any, **kwargs: Any) -> Any:
        for again in (
            lambda: train(settings, project, ARCH1.id),
            lambda: restore_training(project, record, folder / "model.safetensors"),
        ):
            with pytest.raises(RunError, match=f"{folder} is in use by process {os.getpid()} on"):
                again()
            refused.append(again)
        return really(*args, **kwargs)

    monkeypatch.setattr(lifecycle, "train_fully", train_twice)
    assert train(settings, project) == folder and len(refused) == 2
    with RunLock(folder):
        assert train(settings, project) == folder  # it is complete, so nobody works on it


def test_the_final_split_is_run_once_for_scores_and_pictures(
    project: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = training_of(project)
    really, num_images = full.predict_batch, []

    def count(segmenter: Any, images: Any) -> Any:
        num_images.append(len(images))
        return really(segmenter, images)

    monkeypatch.setattr(full, "predict_batch", count)
    scores = evaluate_architecture(settings, project, "arch1", folder)
    files = evaluation_files(folder)
    assert sum(num_images) == 2 and all(path.stat().st_size > 0 for path in files)
    assert FinalScores.read(folder / "test.json") == scores
    data = PreparedData.open(prepared_folder(project, settings))
    segmenter, _ = load_segmenter(folder / "model.safetensors")
    confusion = full.evaluate(segmenter, data.split("test"), data.num_classes, data.ignore_index)
    assert scores.scores.model_dump() == confusion.metrics()
    assert files[0].read_bytes() == confusion.csv_bytes(data.classes)
    counts = counts_by_image(folder, scores)
    assert counts["image"].unique().tolist() == list(data.split("test").names)
    by_class = counts.groupby("class", sort=False)[["hits", "truth", "predicted"]].sum()
    assert by_class.index.tolist() == list(data.classes)
    matrix = confusion.matrix
    assert by_class.T.values.tolist() == [
        matrix.diagonal().tolist(), matrix.sum(1).tolist(), matrix.sum(0).tolist(),
    ]  # fmt: skip
    assert count_looks(project, ARCH1.id, data.data_hash) == 1

    num_images.clear()
    evaluate_architecture(settings, project, "arch1", folder)
    assert num_images == [] and count_looks(project, ARCH1.id, data.data_hash) == 1
    # A network that has its scores keeps them.
    before, drawn = (folder / "test.json").stat().st_mtime_ns, files[-1].read_bytes()
    files[-1].unlink()
    assert evaluate_architecture(settings, project, "arch1", folder) == scores
    assert sum(num_images) == 2 and files[-1].read_bytes() == drawn
    assert (folder / "test.json").stat().st_mtime_ns == before
    assert count_looks(project, ARCH1.id, data.data_hash) == 2


def test_no_score_is_seen_that_is_no_look(
    project: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*args: Any) -> None:
        raise RunError("test_looks.jsonl cannot be written: No space left on device")

    monkeypatch.setattr(evaluation, "note_look", full_disk)
    folder = training_of(project)
    with pytest.raises(RunError, match="No space"):
        evaluate_architecture(settings, project, "arch1", folder)
    assert not (folder / "test.json").exists()


def test_two_processes_do_not_score_one_network_twice(project: Path, settings: Settings) -> None:
    folder = training_of(project)
    with RunLock(folder), pytest.raises(RunError, match="is in use by process"):
        evaluate_architecture(settings, project, "arch1", folder)
    assert (
        not (folder / "test.json").exists()
        and not (project / "artifacts/test_looks.jsonl").exists()
    )


def test_counts_that_cannot_be_read_are_named(project: Path) -> None:
    folder = training_of(project)
    (folder / "test_counts.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(RunError, match=r"test_counts\.parquet cannot be read .* delete it"):
        counts_by_image(folder, SCORES)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hits": -1}, "are none of pixels"),
        ({"hits": 9}, "are none of pixels"),
        ({"truth": 0.5}, "no integers"),
        ({"predicted": "7"}, "no integers"),
        ({"predicted": 8}, r"do not give the scores of test\.json"),
        ({"class": "car"}, r"do not give the scores of test\.json"),
    ],
)
def test_counts_that_do_not_give_the_scores_are_named(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    row = {"image": "a", "group": "a", "class": "sky", "hits": 3, "truth": 4, "predicted": 5}
    path = tmp_path / "test_counts.parquet"
    pd.DataFrame([row]).to_parquet(path)
    assert len(counts_by_image(tmp_path, SCORES)) == 1
    for rows in ([{**row, **changes}], []):
        pd.DataFrame(rows, columns=[*row]).to_parquet(path)
        with pytest.raises(RunError, match=problem if rows else "no integers"):
            counts_by_image(tmp_path, SCORES)


def test_held_out_recordings_are_scored_and_no_look_at_test(
    tmp_path: Path, settings: Settings
) -> None:
    held_out = settings.dataset.model_copy(update={"held_out": ("train_0001",)})
    changed = settings.model_copy(update={"dataset": held_out})
    data = prepare(held_out, tmp_path, prepared_folder(tmp_path, changed))
    folder = train(changed, tmp_path)
    scores = evaluate_architecture(changed, tmp_path, "arch1", folder)
    assert counts_by_image(folder, scores)["image"].unique().tolist() == ["train_0001"]
    assert count_looks(tmp_path, ARCH1.id, data.data_hash) == 0
