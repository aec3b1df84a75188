from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from flows.cli.tables import print_fidelity
from nas_core.analysis.rank_agreement import (
    FidelityReport,
    HeldOutAgreement,
    RewardAgreement,
    agreement_by_proxy,
    baselines,
)
from nas_core.config import Settings
from tasks.fidelity_report import MOST_NAMED, fidelity_picture, write_fidelity

DATA = Path(__file__).parents[2] / "docs" / "data"


def make_table(val: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"{digit}" * 12 for digit in "abcd"],
            "name": ["arch0", *[f"{digit}" * 12 for digit in "bcd"]],
            "num_parameters": [1, 2, 3, 4],
            "macs": [4, 3, 2, 1],
            "proxy": "A5",
            "reward": [0.1, 0.2, 0.3, 0.4],
            "seconds": 2.0,
            "val_mean_iou": val,
        }
    )


def make_report(table: pd.DataFrame, num_proxy_seeds: int = 1) -> FidelityReport:
    (row,) = agreement_by_proxy(table, {"A5": {}}, seed=0)
    judged = row.model_dump(include={*RewardAgreement.model_fields})
    held_out = HeldOutAgreement(
        **judged, num_architectures=4, groups=["0006R0"], baselines=baselines(table, seed=0)
    )
    return FidelityReport(
        **judged,
        proxy="A5",
        num_architectures=4,
        num_proxy_seeds=num_proxy_seeds,
        baselines=baselines(table, seed=0),
        held_out=held_out,
        proxies=[row],
        proxy_settings={},
        train={},
        data_hash="a",
    )


@pytest.mark.parametrize("val", [[0.3, 0.2, 0.4, 0.5], [0.3] * 4])
def test_a_report_with_and_without_a_ranking(tmp_path: Path, val: list[float]) -> None:
    table = make_table(val)
    report = make_report(table)
    constant = len(set(val)) == 1
    assert (report.kendall_tau is None) == constant
    paths = write_fidelity(tmp_path, report, table, "tiny")
    figures = [f"fidelity.{suffix}" for suffix in ("json", "parquet", "png")]
    assert [path.name for path in paths] == [*figures, "report.html"]
    assert FidelityReport.read(paths[0]) == report
    assert "NaN" not in paths[0].read_text()
    with Image.open(paths[2]) as picture:
        assert picture.width > picture.height
    console = Console(record=True, width=80)
    print_fidelity(console, tmp_path, Settings(), report)
    shown = console.export_text()
    assert "A5" in shown and ("are equal" in shown) == constant
    assert "parameters" in shown and "against mIoU on 0006R0" in shown


def test_the_table_of_several_seeds_fits_a_terminal(tmp_path: Path) -> None:
    first = make_table([0.3, 0.2, 0.4, 0.5])
    second = first.assign(reward=[0.12, 0.19, 0.33, 0.37])
    table = pd.concat([first, second])
    report = make_report(table, num_proxy_seeds=2)
    named = report.proxies[0].model_copy(
        update={"proxy": "A5+B2 height=120,width=160,sep_repeats=2", "seconds": 12345.6}
    )
    report = report.model_copy(update={"proxies": [*report.proxies, named]})
    console = Console(record=True, width=80)
    print_fidelity(console, Path("/project"), Settings(), report)
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80 and "…" not in shown
    assert report.reliability is not None and f"{report.reliability:.2f} (" in shown
    paths = write_fidelity(tmp_path, report, table, "tiny")
    page = paths[-1].read_text()
    assert "reliability, upper half" in page and "On what no network was trained on" in page


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
    report = FidelityReport.read(DATA / "fidelity.json")
    table = pd.read_parquet(DATA / "fidelity.parquet").drop(columns="held_out_mean_iou")
    scatter, _ = fidelity_picture(report, table).axes
    assert scatter.get_legend() is None and len(scatter.collections) == 1
