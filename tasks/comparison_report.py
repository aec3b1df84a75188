"""What a comparison of strategies leaves: its figures, a picture and a page."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nas_core.analysis.comparison import STRATEGIES, WINDOW, Comparison, bands
from nas_core.analysis.report.other_pages import write_comparison_page
from nas_core.base.files import write_atomically, write_json
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


def write_comparison(place: Path, comparison: Comparison, about: Mapping[str, Any]) -> list[Path]:
    """Write curves.parquet, compare.json, compare.png and report.html into the folder `place`.

    Args:
        about: what compare.json says beside the figures; its `name` is in the titles.

    Returns:
        Their paths.
    """
    curves, figures, picture = (
        place / name for name in ("curves.parquet", "compare.json", "compare.png")
    )
    write_table(curves, comparison.curves)
    write_json(figures, {**about, **comparison.figures})
    figure = comparison_picture(comparison, str(about["name"]))
    write_atomically(picture, lambda temporary: figure.savefig(temporary, dpi=150))
    page = write_comparison_page(place, comparison, str(about["name"]))
    return [curves, figures, picture, page]


def comparison_picture(comparison: Comparison, name: str) -> Figure:
    """Best and mean reward against training time: mean over seeds, and a band of min to max."""
    figures = comparison.figures
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels = figure.subplots(1, len(PANELS))
    for panel, (column, title) in zip(panels, PANELS.items(), strict=True):
        _draw(panel, comparison, column)
        panel.set_title(title)
        panel.set_xlabel("proxy training time (min)")
        panel.set_ylabel("reward")
        panel.grid(alpha=0.3)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels))
    seeds = [len(strategy["seeds"]) for strategy in figures["strategies"].values()]
    spread = f"mean of {seeds[0]} seeds, band: min to max" if min(seeds) > 1 else "one seed"
    figure.suptitle(f"{name}: {figures['num_candidates']} candidates a search, {spread}")
    return figure


def _draw(panel: Axes, comparison: Comparison, column: str) -> None:
    seconds = np.linspace(0, comparison.figures["budget_seconds"], NUM_POINTS)
    for strategy, band in bands(comparison.curves, column, seconds.tolist()).groupby(
        "strategy", sort=False
    ):
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
