"""The picture of the Pareto fronts, and the numbers that DVC compares."""

import json
from itertools import combinations
from pathlib import Path

import pandas as pd

from nas_core.training.record import EvaluateMetrics, Scores, Training
from tasks.results import pareto_picture, write_evaluation_summary, write_training_summary


def test_ids_in_the_picture_of_the_fronts_do_not_cover_each_other() -> None:
    # A front of 40 in each panel, far more than have room.
    costs = range(100_000, 300_000, 5_000)
    table = pd.DataFrame(
        {
            "id": [f"{cost:012x}" for cost in costs],
            "quality": [cost / 400_000 for cost in costs],
            "num_parameters": costs,
            "macs": [cost * 5_000 for cost in costs],
            "latency_ms": [cost / 1_000 for cost in costs],
        }
    )
    figure = pareto_picture(table)
    for panel in figure.axes:
        boxes = [text.get_window_extent() for text in panel.texts]
        assert 5 < len(boxes) < 40
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        assert panel.texts[0].get_text() == table["id"].iloc[-1][:6], "the best has its id"


def trained(label: str, identifier: str, val: dict[str, float]) -> Training:
    return Training(
        label=label, identity="i", started=0.0, id=identifier, num_parameters=1000, macs=1, seed=0,
        splits="train", device="cpu", finished=1.0, val=val, history=[],
    )  # fmt: skip


def test_dvc_compares_what_has_another_id_in_each_search(tmp_path: Path) -> None:
    shapes = []
    for ids in (("a" * 12, "b" * 12), ("c" * 12, "d" * 12)):
        trainings = {one: trained(one, one, {"mean_iou": 0.5}) for one in ids}
        trainings["arch0"] = trained("arch0", "e" * 12, {})  # trained on val too
        scores = Scores(
            mean_iou=0.25, frequency_weighted_iou=0.5, mean_accuracy=0.5, reward=0.5
        )  # fmt: skip
        write_training_summary(tmp_path, trainings)
        train = json.loads((tmp_path / "summary.json").read_text())
        write_evaluation_summary(
            tmp_path, trainings, EvaluateMetrics(dict.fromkeys(trainings, scores))
        )
        shapes.append((train, json.loads((tmp_path / "summary.json").read_text())))
    own = {"parameters": 1000, "val_miou": 0.5}
    train = {"best": own, "second": own, "arch0": {"parameters": 1000}}
    test = {role: {"test_miou": 0.25} for role in ("best", "second", "arch0")}
    assert shapes == [(train, test)] * 2
