from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from flows.cli.tables import print_fidelity
from nas_core.analysis.rank_agreement import FidelityReport, agreement_by_proxy
from nas_core.config import Settings
from tasks.fidelity_report import write_fidelity


def make_table(val: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"{digit}" * 12 for digit in "abcd"],
            "name": ["arch0", *[f"{digit}" * 12 for digit in "bcd"]],
            "proxy": "A5",
            "reward": [0.1, 0.2, 0.3, 0.4],
            "seconds": 2.0,
            "val_mean_iou": val,
        }
    )


def make_report(table: pd.DataFrame) -> FidelityReport:
    (row,) = agreement_by_proxy(table, {"A5": {}}, seed=0)
    return FidelityReport(
        **row.model_dump(exclude={"settings", "seconds"}),
        num_architectures=4,
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
    console = Console(record=True, width=100)
    print_fidelity(console, tmp_path, Settings(), report)
    shown = console.export_text()
    assert "A5" in shown and ("are equal" in shown) == constant
