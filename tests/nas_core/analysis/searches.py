"""A project with a search that was written by hand, from the candidates of a real one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from nas_core.base.files import write_json
from nas_core.config import Settings
from nas_core.search.candidate_files import candidate_files, drawing_file
from nas_core.search.journal import FORMAT, Header, Journal, Record
from nas_core.search.latencies import LATENCY_FILE, Latencies, MeasuredBy

ROOT = Path(__file__).resolve().parents[3]
METRICS = ("mean_iou", "frequency_weighted_iou", "mean_accuracy")
NAME = "camvid-4d8ef24e"


def real_candidates(num: int) -> list[dict[str, Any]]:
    """The first of the search in docs/data, in the order of their training."""
    table = pd.read_parquet(ROOT / "docs" / "data" / "search.parquet").sort_values("candidate")
    rows = table.head(num).astype(object).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def record_of(row: Mapping[str, Any], index: int, **changes: Any) -> Record:
    reward = changes.get("reward", row["quality"])
    values = {
        "index": index,
        "round": index // 4,
        "candidate": index + 1,
        "id": row["id"],
        "genotype": json.loads(row["genotype"]),
        "status": "finished",
        "reward": reward,
        "scores": () if reward is None else (0.9 * reward, reward),
        "metrics": {name: row[name] for name in METRICS},
        "num_parameters": row["num_parameters"],
        "macs": row["macs"],
        "seed": 1000,
        "seconds": {"stage_a": 20.0, "stage_b": 10.0},
    }
    return Record(**{**values, **changes})


def failed(row: Mapping[str, Any], index: int, reason: str) -> Record:
    none: dict[str, Any] = {"reward": None, "scores": (), "metrics": {}, "seconds": {}}
    return record_of(row, index, status="failed", reason=reason, **none)


def write_search(
    root: Path, records: Iterable[Record], *, planned: int | None = None, drawn: bool = True
) -> Path:
    """The folder of a search with these records, and with the losses and drawings of each."""
    folder = root / "artifacts" / "searches" / NAME
    records = list(records)
    search = {"num_candidates": planned or len(records) or 1, "strategy": "evolution"}
    settings = Settings.model_validate({"search": search}).model_dump(mode="json")
    identity = {"data": "0123abcd", "seed": 0, "torch": "2.14.1", "device": "cpu"}
    header = Header(format=FORMAT, settings=settings, identity=identity)
    with Journal.create(folder / "journal.jsonl", header) as journal:
        for record in records:
            journal.append(record)
            if record.is_scored:
                path = candidate_files(folder, record.id)["losses"]
                write_json(path, {"a": [2.0, 1.5, 1.2], "b": [0.9, 0.8]})
            if drawn:
                path = drawing_file(folder, record.id)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(drawing(record.id))
    write_latencies(folder, {one.id: 90.0 + one.index for one in records})
    return folder


def write_latencies(folder: Path, milliseconds: dict[str, float]) -> None:
    """Of a search's networks, by id, as the search keeps them."""
    measured_by = MeasuredBy(command="", threads=1, height=360, width=480)
    Latencies(measured_by=measured_by, milliseconds=milliseconds).write(folder / LATENCY_FILE)


def drawing(identifier: str) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="1082">'
        f'<text x="20" y="40">{identifier}</text></svg>'
    )


def write_training(
    root: Path, label: str, identifier: str, score: float | None, **changes: Any
) -> Path:
    """The folder of a full training, with these classes' IoU and a confusion matrix."""
    seed = changes.get("seed", 0)
    folder = root / "artifacts" / "trainings" / f"{label}-{seed:08d}"
    content = {
        "label": label,
        "identity": f"{seed:08d}",
        "id": identifier,
        "num_parameters": 226_939,
        "macs": 1_336_600_320,
        "seed": seed,
        "device": "cpu",
        "started": 1.7e9,
        "finished": 1.7e9 + 60 + seed,
        "splits": "train",
        "recipe": {"train": {"epochs": 2}},
        "data": "camvid",
        "data_hash": "4df1fde2",
        "val": {"mean_iou": 0.5},
        "history": [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5, "val_mean_iou": 0.5}],
    }
    write_json(folder / "training.json", {**content, **changes})
    if score is not None:
        classes = {"road": score + 0.1, "sky": score - 0.1}
        others = dict.fromkeys(("frequency_weighted_iou", "mean_accuracy", "reward"), score)
        scores = {"label": label, "id": identifier, "mean_iou": score, **others}
        write_json(folder / "test.json", {**scores, "class_iou": classes})
        (folder / "test_confusion_matrix.csv").write_text("truth,road,sky\nroad,9,1\nsky,0,0\n")
    return folder
