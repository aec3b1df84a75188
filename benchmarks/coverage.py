"""How often the intervals of `nas fidelity` hold the truth.

python -m benchmarks.coverage --tables FOLDER [--draws N] [--json]

Asked where the truth is known: NAS-Bench-MR (Ding et al., CVPR 2022) has 2,507 networks that were
trained on Cityscapes at a quarter of the size, a cheap score, and in full. 14 and 40 of them are
drawn again and again, and the tau and rho of all are looked for in the 95 % intervals of those.
FOLDER holds nasbench_mr_cityscapes.csv with the columns miou_quarter_size and miou.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from benchmarks.command import AsJson, errors_in_words
from nas_core.analysis.rank_agreement import agreement
from nas_core.base.errors import DataError, first_line
from nas_core.base.files import check_regular

TABLE = "nasbench_mr_cityscapes.csv"
NUMBERS = (14, 40)
FIGURES = ("kendall_tau", "spearman_rho", "upper_half_tau", "upper_half_rho")


def read_table(folder: Path) -> pd.DataFrame:
    """The cheap and the true score of each network: columns cheap and full.

    Raises:
        DataError: the file cannot be read, or is no table of numbers with such columns and enough
            networks.
    """
    path = folder / TABLE
    try:
        check_regular(path)
        table = pd.read_csv(path, usecols=["miou_quarter_size", "miou"])
        if not np.isfinite(table.to_numpy(float)).all():
            raise ValueError("a score is missing or not finite")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from None
    if len(table) < max(NUMBERS):
        raise DataError(f"{path} has {len(table)} networks, expected {max(NUMBERS)} or more")
    return table.rename(columns={"miou_quarter_size": "cheap", "miou": "full"})


def truth(table: pd.DataFrame) -> dict[str, float]:
    """`FIGURES` of all networks."""
    best = table.nlargest(len(table) // 2, "full")
    return {
        f"{half}{name}": float(statistic(rows["cheap"], rows["full"]).statistic)
        for half, rows in (("", table), ("upper_half_", best))
        for name, statistic in (
            ("tau" if half else "kendall_tau", kendalltau),
            ("rho" if half else "spearman_rho", spearmanr),
        )
    }


def measure(table: pd.DataFrame, num: int, num_draws: int) -> list[dict[str, Any]]:
    """For each figure its coverage, mean estimate and mean width over draws of `num` networks.

    Raises:
        DataError: no draw has a figure.
    """
    true = truth(table)
    rng = np.random.default_rng(num)
    found = []
    for draw in track(range(num_draws), f"draws of {num}", console=Console(stderr=True)):
        rows = table.iloc[rng.choice(len(table), num, replace=False)]
        found.append(agreement(rows[["cheap"]].values.tolist(), rows["full"].tolist(), seed=draw))
    figures = []
    for figure in FIGURES:
        known = [one for one in found if getattr(one, figure) is not None]
        if not known:
            raise DataError(f"{TABLE}: no draw of {num} has a {figure}: too many scores are equal")
        limits = np.array([getattr(one, f"{figure}_interval") for one in known])
        low, high = limits.T
        figures.append(
            {
                "networks": num,
                "figure": figure,
                "draws": len(known),
                "truth": true[figure],
                "mean": float(np.mean([getattr(one, figure) for one in known])),
                "coverage": float(((low <= true[figure]) & (true[figure] <= high)).mean()),
                "width": float((high - low).mean()),
            }
        )
    return figures


@errors_in_words
def main(
    tables: Annotated[Path, typer.Option(help=f"Folder with {TABLE}.")],
    draws: Annotated[int, typer.Option(min=1, help="Of each number of networks.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Print how often the intervals of `nas fidelity` hold the truth."""
    table = read_table(tables)
    rows = [row for num in NUMBERS for row in measure(table, num, draws)]
    if as_json:
        print(json.dumps(rows))
        return
    shown = Table("networks", "figure", "of all", "mean of draws", "in the interval", "width")
    for row in rows:
        figures = (f"{row['truth']:.2f}", f"{row['mean']:.2f}", f"{row['coverage']:.1%}")
        shown.add_row(str(row["networks"]), row["figure"], *figures, f"{row['width']:.2f}")
    Console(width=None if sys.stdout.isatty() else 100).print(shown)


if __name__ == "__main__":
    typer.run(main)
