"""Training on a setting of the proxy to its end, and the report on how it ranks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from nas_core.analysis.proxy_training import train_to_proxy_end
from nas_core.analysis.rank_agreement import FidelityReport, ProxyOutcome
from nas_core.analysis.ranking_table import mean_rewards
from nas_core.analysis.report.other_pages import write_fidelity_page
from nas_core.base.errors import TrainingError
from nas_core.base.files import write_atomically
from nas_core.base.seeds import derive_seed
from nas_core.config import Settings
from nas_core.search.candidates import proxy_task
from nas_core.search.identity import candidate_seed
from nas_core.space.genotype import Genotype
from nas_core.workers.local import Workers
from tasks.results import write_table

# With more, their names lie over one another.
MOST_NAMED = 16


@task(
    name="train on proxy to the end",
    task_run_name="proxy · {what}",
    cache_policy=NO_CACHE,
    cache_result_in_memory=False,
)
def train_on_proxy(
    workers: Workers,
    folder: Path,
    settings: Settings,
    root: Path,
    what: str,
    architecture: Genotype,
    number: int,
) -> ProxyOutcome:
    """Train one architecture on the proxy task without early stopping, in a worker.

    Args:
        folder: named by `proxy_identity` of the settings.
        what: the architecture and the proxy, for the log.
        number: of the training's seed; 0 is that of a search.

    Returns:
        Its outcome, which is kept in `folder`. One that is there is taken as it is.

    Raises:
        TrainingError: one that is there cannot be read, or is of another training.
    """
    path = folder / f"{architecture.id}{f'-{number}' if number else ''}.json"
    seed = candidate_seed(settings.seed, architecture.id)
    if number:
        seed = derive_seed(seed, "again", number)
    if path.exists():
        kept = ProxyOutcome.read(path)
        if (kept.id, kept.seed) != (architecture.id, seed):
            raise TrainingError(f"{path} is of another training: {ProxyOutcome.remedy}")
        return kept
    shared = workers.share(proxy_task, settings, root)
    outcome = workers.call(train_to_proxy_end, shared, settings, architecture, seed)
    outcome.write(path)
    seconds = sum(outcome.seconds.values())
    get_run_logger().info(f"{what} · reward {outcome.scores[-1]:.4f} · {seconds:.0f} s")
    return outcome


def write_fidelity(
    place: Path, report: FidelityReport, table: pd.DataFrame, name: str
) -> list[Path]:
    """fidelity.json, fidelity.parquet, fidelity.png and report.html; returns their paths."""
    paths = [place / f"fidelity.{suffix}" for suffix in ("json", "parquet", "png")]
    report.write(paths[0])
    write_table(paths[1], table)
    picture = fidelity_picture(report, table)
    write_atomically(paths[2], lambda temporary: picture.savefig(temporary, dpi=120))
    return [*paths, write_fidelity_page(place, report, table, name)]


def fidelity_picture(report: FidelityReport, table: pd.DataFrame) -> Figure:
    """Reward on the default proxy against mIoU, and each proxy's tau, cheapest at the top."""
    proxies = sorted(report.proxies, key=lambda proxy: -proxy.seconds)
    proxies = [proxy for proxy in proxies if proxy.kendall_tau is not None]
    figure = Figure(figsize=(12, max(4.5, 1.5 + 0.25 * len(proxies))), layout="constrained")
    scatter, taus = figure.subplots(1, 2)
    rows = mean_rewards(table[table["proxy"] == report.proxy])
    scatter.scatter(rows["reward"], rows["val_mean_iou"], s=16, label="val")
    if "held_out_mean_iou" in rows:
        scatter.scatter(
            rows["reward"], rows["held_out_mean_iou"], s=16, marker="^", label="held out"
        )
        scatter.legend()
    if len(rows) <= MOST_NAMED:
        for row in rows.to_dict("records"):
            label = row["id"][:6] if row["name"] == row["id"] else row["name"]
            _annotate(scatter, label, row["reward"], row["val_mean_iou"])
    scatter.set_title(f"{report.proxy}: {_tau_in_words(report)}")
    scatter.set_xlabel("reward on the proxy task")
    scatter.set_ylabel("mIoU after full training")
    scatter.margins(x=0.15)  # room for the labels

    for place, proxy in enumerate(proxies):
        assert proxy.kendall_tau is not None and proxy.kendall_tau_interval is not None
        tau, (low, high) = proxy.kendall_tau, proxy.kendall_tau_interval
        # A percentile interval need not hold the estimate.
        bars = [[max(0.0, tau - low)], [max(0.0, high - tau)]]
        colour = "tab:orange" if proxy.proxy == report.proxy else "tab:blue"
        taus.errorbar(tau, place, xerr=bars, fmt="o", color=colour, capsize=3)
    names = [f"{proxy.proxy} · {proxy.seconds:.1f} s" for proxy in proxies]
    taus.set_yticks(range(len(names)), names, fontsize=8)
    taus.set_title("each proxy, and its mean seconds a candidate")
    taus.set_xlabel("Kendall's tau with val after full training, 95 % intervals")
    taus.margins(y=0.25)
    for panel in (scatter, taus):
        panel.grid(alpha=0.3)
    return figure


def _tau_in_words(report: FidelityReport) -> str:
    if report.kendall_tau is None or report.kendall_tau_interval is None:
        return str(report.reason)
    low, high = report.kendall_tau_interval
    number = report.num_architectures
    return f"tau {report.kendall_tau:.2f} [{low:.2f}, {high:.2f}], {number} architectures"


def _annotate(panel: Any, text: str, x: float, y: float) -> None:
    if math.isfinite(x) and math.isfinite(y):
        panel.annotate(text, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
