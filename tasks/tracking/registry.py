"""The record of full trainings in MLflow, and the registry of the models that they made."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.entities import LoggedModelOutput, Metric, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, Schema
from PIL import Image

import nas_core
from nas_core.models.checkpoint import NetworkCard, load_segmenter
from tasks.tracking.notes import artifact_link, network_note
from tasks.tracking.store import service_errors
from tasks.tracking.tracker import (
    ID_TAG,
    KIND_TAG,
    PARENT_TAG,
    Tracker,
    architecture_params,
    milliseconds,
)
from tasks.tracking.views import NOTE_TAG

TRAINING_TAG = "nas.training"
CHAMPION = "champion"
VAL_TAG = "val_mean_iou"

SIGNATURE = ModelSignature(
    Schema([ColSpec("string", "image")]), Schema([ColSpec("string", "mask")])
)
# What serving.py and the part of nas_core behind it import.
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "pillow",
    "safetensors",
    "pydantic",
    "pyyaml",
    "regex",
    "psutil",
)


@dataclass(frozen=True)
class TrainingEntry:
    """What is recorded of a full training.

    Attributes:
        name: of the architecture, such as `arch0` or an id.
        identity: the same whenever the same training goes on.
        weights: a file of `save_segmenter`; it becomes the served model.
        params: flat settings.
        started, finished: seconds since the epoch.
        history: a row an epoch; `epoch` is its number, the other values become curves.
        val: scores on the val split; empty if the network was trained on it.
        splits: what it was trained on, as `train+val`.
        drawing: a picture of the network, uploaded and shown in descriptions.
        files: uploaded as artifacts under their own names.
        parent: run of the search that the architecture came from.
    """

    name: str
    identity: str
    weights: Path
    num_parameters: int
    macs: int
    seed: int
    started: float
    finished: float
    params: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    val: Mapping[str, float] = field(default_factory=dict)
    splits: str = "train"
    drawing: Path | None = None
    files: Sequence[Path] = ()
    parent: str | None = None


@dataclass(frozen=True)
class RegisteredTraining:
    """Where a training is in the record: its run, its model's version, and who is champion."""

    run_id: str
    model_name: str
    version: int
    champion: int | None


def log_training(tracker: Tracker, entry: TrainingEntry, model_name: str) -> RegisteredTraining:
    """Record a full training with its model, register the model and choose the champion.

    A training that is already there is left as it is. Raises ServiceError if the store refuses,
    WeightsError if the weights cannot be read.
    """
    _, card = load_segmenter(entry.weights)
    tags = {KIND_TAG: "training", TRAINING_TAG: entry.identity}
    with service_errors(tracker.uri):
        for run in tracker.find_runs(tags):
            versions = _versions(tracker, f"run_id = '{run.info.run_id}'")
            if run.info.status == "FINISHED" and versions:
                return _registered(tracker, versions[0])
        tracker.kill_abandoned(tags)
        run_id = tracker.create_run(
            f"train {entry.name}",
            {
                **tags,
                ID_TAG: card.genotype.id,
                **({PARENT_TAG: entry.parent} if entry.parent else {}),
            },
            entry.started,
        )
        architecture = architecture_params(
            card.genotype, entry.num_parameters, entry.macs, entry.seed
        )
        tracker.log_params(run_id, {"architecture": entry.name, **architecture, **entry.params})
        tracker.log_data(run_id, entry.splits)
        tracker.log_files(run_id, [entry.weights, *filter(None, [entry.drawing]), *entry.files])
        note = _note(run_id, entry, card)
        tracker.describe(run_id, note)
        model_id = _log_model(tracker, run_id, entry, card)
        at = milliseconds(entry.finished)
        tracker.log_metrics(run_id, _curves(entry.history, at))
        tracker.log_metrics(run_id, _scores("val", entry.val, at, model_id))
        registered = _register(tracker, run_id, model_id, model_name, card, entry.val, note)
        tracker.client.set_terminated(run_id, "FINISHED", at)
    return _registered(tracker, registered)


def log_test(
    tracker: Tracker,
    run_id: str,
    metrics: Mapping[str, float],
    class_iou: Mapping[str, float],
    files: Sequence[Path] = (),
    split: str = "test",
) -> None:
    """Add a training's final scores: `test_mean_iou` ..., `test_iou/CLASS`.

    Of a run that has them already, only files are added that it lacks.

    Args:
        class_iou: by class name; NaN for a class that the split lacks, which is left out.
        files: uploaded into the artifact folder named by `split`.
        split: what was scored: test, or val where there is no test split.
    """
    with service_errors(tracker.uri):
        run = tracker.client.get_run(run_id)
        model_id = run.outputs.model_outputs[0].model_id if run.outputs else None
        values = {**metrics, **{f"iou/{name}": value for name, value in class_iou.items()}}
        scores = _scores(split, values, milliseconds(time.time()), model_id)
        logged = {Path(file.path).name for file in tracker.client.list_artifacts(run_id, split)}
        tracker.log_files(run_id, [path for path in files if path.name not in logged], split)
        if {score.key for score in scores if math.isfinite(score.value)} <= set(run.data.metrics):
            return
        tracker.log_data(run_id, split)
        _add_score(tracker, run, f"{split} mIoU: {100 * metrics['mean_iou']:.1f} %")
        tracker.log_metrics(run_id, scores)  # last: they say that the record is complete


def _note(run_id: str, entry: TrainingEntry, card: NetworkCard) -> str:
    val = entry.val.get("mean_iou", math.nan)
    return network_note(
        f"`{entry.name}`, trained fully on {entry.splits}",
        card.genotype.id,
        entry.num_parameters,
        entry.macs,
        {"val mIoU": val} if math.isfinite(val) else {},
        artifact_link(run_id, entry.drawing.name) if entry.drawing else "",
    )


def _add_score(tracker: Tracker, run: Run, line: str) -> None:
    """Add a score to the descriptions of a training and of the versions of its model."""
    note = run.data.tags.get(NOTE_TAG, "")
    if line not in note:
        note = f"{line}\n\n{note}"
    tracker.describe(run.info.run_id, note)
    for one in _versions(tracker, f"run_id = '{run.info.run_id}'"):
        tracker.client.update_model_version(one.name, one.version, note)


def requirements(encoder: str) -> list[str]:
    """The packages that a served model with such an encoder needs, pinned to those installed.

    A local version label such as `+cpu` is cut off: package indexes do not have it.
    """
    packages = ["mlflow", *PACKAGES, *(["timm"] if encoder.startswith("timm/") else [])]
    return [f"{name}=={version(name).partition('+')[0]}" for name in packages]


def save_model(folder: Path, weights: Path, card: NetworkCard, model: Model) -> None:
    """Write an MLflow model that needs nothing beside `folder` and the pinned packages."""
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(Path(__file__).with_name("served_model.py")),
        # MLflow takes a path for a URI, in which %2F stands for a slash.
        artifacts={"weights": weights.absolute().as_uri()},
        code_paths=[str(Path(nas_core.__file__).parent)],
        signature=SIGNATURE,
        input_example=pd.DataFrame({"image": [_example_image()]}),
        pip_requirements=requirements(card.encoder),
        metadata=card.to_dict(),
        mlflow_model=model,
    )


def _log_model(tracker: Tracker, run_id: str, entry: TrainingEntry, card: NetworkCard) -> str:
    """Upload the model below the run; returns its id.

    mlflow.pyfunc.log_model would go through the process-wide tracking URI and active run.
    """
    client = tracker.client
    logged = client.create_logged_model(
        tracker.experiment_id,
        name=re.sub(r"[^\w-]", "_", entry.name, flags=re.ASCII),  # as MLflow demands
        source_run_id=run_id,
        params={"id": card.genotype.id, "num_parameters": str(entry.num_parameters)},
        model_type="segmentation",
    )
    model_id = str(logged.model_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model = Model(
            artifact_path=logged.artifact_location,
            run_id=run_id,
            model_uuid=model_id,
            model_id=model_id,
        )
        save_model(path, entry.weights, card, model)
        client.log_model_artifacts(model_id, str(path))
    client.finalize_logged_model(model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    return model_id


def _register(
    tracker: Tracker,
    run_id: str,
    model_id: str,
    model_name: str,
    card: NetworkCard,
    val: Mapping[str, float],
    note: str,
) -> ModelVersion:
    client = tracker.client
    try:
        client.create_registered_model(
            model_name,
            description="Compact segmentation networks, trained fully, a version each. "
            f"The alias `{CHAMPION}` is on the one with the best val mIoU.",
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {ID_TAG: card.genotype.id}
    if math.isfinite(val.get("mean_iou", math.nan)):
        tags[VAL_TAG] = str(float(val["mean_iou"]))
    # Not models:/ID: the SQL store would look that up under the process-wide tracking URI.
    source = client.get_logged_model(model_id).artifact_location
    registered = client.create_model_version(
        model_name, source, run_id, tags=tags, model_id=model_id, description=note
    )
    # The link from the model's page to its version.
    link = json.dumps([{"name": model_name, "version": registered.version}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": link})
    _crown(tracker, model_name)
    return registered


def _crown(tracker: Tracker, model_name: str) -> None:
    """Give the alias `champion` to the version with the best val score, the oldest of equals.

    Those trained on val too have none; where there are no others it is on the newest.
    """
    versions = _versions(tracker, f"name = '{model_name}'")
    if scored := [version for version in versions if VAL_TAG in version.tags]:
        best = max(scored, key=lambda v: (float(v.tags[VAL_TAG]), -int(v.version)))
    else:
        best = max(versions, key=lambda v: int(v.version))
    tracker.client.set_registered_model_alias(model_name, CHAMPION, best.version)


def _registered(tracker: Tracker, registered: ModelVersion) -> RegisteredTraining:
    with service_errors(tracker.uri):
        aliases = tracker.client.get_registered_model(registered.name).aliases
    champion = aliases.get(CHAMPION)
    return RegisteredTraining(
        str(registered.run_id),
        str(registered.name),
        int(registered.version),
        None if champion is None else int(champion),
    )


def _versions(tracker: Tracker, wanted: str) -> list[ModelVersion]:
    return list(tracker.client.search_model_versions(wanted))


def _scores(
    prefix: str, values: Mapping[str, float], at: int, model_id: str | None
) -> list[Metric]:
    """Metrics of the run and of its model."""
    return [
        Metric(f"{prefix}_{name}", value, at, 0, model_id=model_id)
        for name, value in values.items()
    ]


def _curves(history: Sequence[Mapping[str, float]], at: int) -> list[Metric]:
    return [
        Metric(name, value, at, int(row["epoch"]))
        for row in history
        for name, value in row.items()
        if name != "epoch"
    ]


def _example_image() -> str:
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (128, 128, 128)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
