"""The picture of a comparison of the proxy with full training."""

from pathlib import Path

import pandas as pd
import pytest

from nas_core.analysis.rank_agreement import FidelityReport
from tasks.fidelity_report import MOST_NAMED, fidelity_picture

DATA = Path(__file__).parents[2] / "docs" / "data"


@pytest.mark.parametrize("num", [MOST_NAMED, 40])
def test_networks_are_named_while_there_is_room(num: int) -> None:
    report = FidelityReport.read(DATA / "fidelity.json")
    table = pd.read_parquet(DATA / "fidelity.parquet")
    chosen = table["id"].unique()[:num]
    scatter, taus = fidelity_picture(report, table[table["id"].isin(chosen)]).axes
    names = [text.get_text() for text in scatter.texts]
    assert names == ([one[:6] for one in chosen] if num == MOST_NAMED else [])
    shown = {text.get_text() for text in scatter.get_legend().get_texts()}
    assert shown == {"val", "held out"}
    assert [len(points.get_offsets()) for points in scatter.collections] == [num, num]
    assert [label.get_text() for label in taus.get_yticklabels()] == ["A5+B2 · 9.9 s", "A5 · 5.9 s"]


def test_without_a_held_out_recording_there_is_one_score() -> None:
    report = FidelityReport.read(DATA / "fidelity.json").model_copy(update={"held_out": None})
    table = pd.read_parquet(DATA / "fidelity.parquet").drop(columns="held_out_mean_iou")
    scatter, _ = fidelity_picture(report, table).axes
    assert scatter.get_legend() is None and len(scatter.collections) == 1
