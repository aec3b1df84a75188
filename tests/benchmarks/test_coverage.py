"""The coverage of the intervals, on a made-up table and on a few draws of the real one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.coverage import FIGURES, TABLE, measure, read_table, truth
from nas_core.base.errors import DataError

ROOT = Path(__file__).parents[2]
HEADER = "miou_quarter_size,miou"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    full = rng.normal(size=2000)
    cheap = full + rng.normal(size=2000)
    columns = {"params": 1.0, "miou_quarter_size": cheap, "miou": full}
    pd.DataFrame(columns).to_csv(folder / TABLE, index=False)
    return folder


def test_the_intervals_of_a_made_up_table_hold_its_truth(folder: Path) -> None:
    table = read_table(folder)
    # Of a normal distribution with correlation r, tau is 2 / pi * arcsin(r).
    assert truth(table)["kendall_tau"] == pytest.approx(0.5, abs=0.02)
    for row in measure(table, 14, 40):
        assert 0.85 <= row["coverage"] <= 1, row
        assert row["mean"] == pytest.approx(row["truth"], abs=0.15)


def test_the_intervals_of_real_networks_hold_their_truth(benchmark_tables: Path) -> None:
    table = read_table(benchmark_tables)
    assert len(table) == 2507 and truth(table)["kendall_tau"] == pytest.approx(0.522, abs=1e-3)
    for row in measure(table, 40, 20):
        assert 0.85 <= row["coverage"] <= 1, row


def test_the_command_prints_each_figure(folder: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.coverage", "--tables", str(folder)]
    command += ["--draws", "2", "--json"]
    rows = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    assert [row["figure"] for row in rows] == [*FIGURES, *FIGURES]
    assert {row["networks"] for row in rows} == {14, 40}


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{TABLE} cannot be read"):
        read_table(tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (f"{HEADER}\n", "has 0 networks, expected 40 or more"),
        (f"{HEADER}\n" + "0.1,0.2\n" * 39, "has 39 networks"),
        (f"{HEADER}\n" + "high,0.2\n" * 40, "cannot be read: could not convert"),
        (f"{HEADER}\n" + "0.1,\n" * 40, "cannot be read: a score is missing or not finite"),
        (f"{HEADER}\n" + "inf,0.2\n" * 40, "cannot be read: a score is missing or not finite"),
        (None, "cannot be read: .*not a regular file"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    if content is None:
        os.mkfifo(tmp_path / TABLE)
    else:
        (tmp_path / TABLE).write_text(content)
    with pytest.raises(DataError, match=f"{TABLE} {problem}"):
        read_table(tmp_path)


def test_scores_that_are_all_equal_have_no_figures(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text(f"{HEADER}\n" + "0.1,0.2\n" * 40)
    with pytest.raises(DataError, match="no draw of 14 has a kendall_tau"):
        measure(read_table(tmp_path), 14, 2)
