"""What a comparison of strategies leaves: its figures, a picture and a page."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nas_core.analysis.comparison import STRATEGIES, WINDOW, ComparisonReport, bands
from nas_core.analysis.report.other_pages import write_comparison_page
from nas_core.base.files import write_atomically
from tasks.results import write_table

# The colours of Okabe and Ito, which colour-blind people can tell apart; the line styles also
# do in black and white.
_STYLES = (
    ("#0072B2", "-"),
    ("#56B4E9", "--"),
    ("#009E73", "-."),
    ("#D55E00", (0, (5, 1, 1, 1, 1, 1))),
    ("#000000", ":"),
    ("#CC79A7", (0, (3, 1))),
    ("#E69F00", (0, (1, 1))),
)
STYLES = dict(zip(STRATEGIES, cycle(_STYLES), strict=False))
PANELS = {
    "best_reward": "Best so far",
    "mean_reward": f"Mean of the last {WINDOW} candidates",
}
NUM_POINTS = 500


def write_comparison(place: Path, report: ComparisonReport, curves: pd.DataFrame) -> list[Path]:
    """Write curves.parquet, compare.json, compare.png and report.html into the folder `place`.

    Returns:
        Their paths.
    """
    paths = [place / name for name in ("curves.parquet", "compare.json", "compare.png")]
    write_table(paths[0], curves)
    report.write(paths[1])
    figure = comparison_picture(report, curves)
    write_atomically(paths[2], lambda temporary: figure.savefig(temporary, dpi=150))
    return [*paths, write_comparison_page(place, report, curves)]


def comparison_picture(report: ComparisonReport, curves: pd.DataFrame) -> Figure:
    """Best and mean reward against training time: mean over seeds, and a band of min to max."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels = figure.subplots(1, len(PANELS))
    for panel, (column, title) in zip(panels, PANELS.items(), strict=True):
        _draw(panel, curves, column, report.budget_seconds)
        panel.set_title(title)
        panel.set_xlabel("proxy training time (min)")
        panel.set_ylabel("reward")
        panel.grid(alpha=0.3)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels))
    seeds = [len(strategy.seeds) for strategy in report.strategies.values()]
    spread = f"mean of {seeds[0]} seeds, band: min to max" if min(seeds) > 1 else "one seed"
    figure.suptitle(f"{report.name}: {report.num_candidates} candidates a search, {spread}")
    return figure


def _draw(panel: Axes, curves: pd.DataFrame, column: str, budget_seconds: float) -> None:
    seconds = np.linspace(0, budget_seconds, NUM_POINTS)
    for strategy, band in bands(curves, column, seconds.tolist()).groupby("strategy", sort=False):
        colour, style = STYLES[str(strategy)]
        minutes = band["training_seconds"] / 60
        panel.fill_between(
            minutes, band["min"], band["max"], color=colour, alpha=0.15, linewidth=0, step="post"
        )
        panel.step(
            minutes,
            band["mean"],
            where="post",
            color=colour,
            linestyle=style,
            linewidth=2,
            label=str(strategy),
        )
