"""The pages of a verification, a comparison of strategies and a test of the proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nas_core.analysis.comparison import WINDOW, ComparisonReport, bands
from nas_core.analysis.ranking_table import MEANING as RANKING
from nas_core.analysis.ranking_table import WORDS as RANKING_WORDS
from nas_core.analysis.ranking_table import held_out_rows, mean_rewards, ranking_rows
from nas_core.analysis.report import charts
from nas_core.analysis.report.page import REPORT_FILE, write_page
from nas_core.analysis.uncertainty import Spread
from nas_core.analysis.verification import (
    MEANING,
    WORDS,
    VerificationReport,
    claim_rows,
    class_rows,
    difference_rows,
)
from nas_core.base.times import duration

if TYPE_CHECKING:
    from nas_core.analysis.rank_agreement import FidelityReport  # brings torch

NUM_POINTS = 200


@dataclass(frozen=True)
class PageSection:
    """A part of a page: a chart by its name, a table, or both.

    Attributes:
        empty: what stands there if the chart has nothing to show.
        words: the columns of the table, counted from 0, that hold no numbers.
    """

    heading: str
    hint: str = ""
    chart: str = ""
    kind: str = ""
    empty: str = "Nothing to show."
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    words: Sequence[int] = (0,)


def write_verification_page(place: Path, report: VerificationReport) -> Path:
    """Claimed and measured scores, class by class; returns the path of report.html in `place`."""
    architectures = report.architectures
    rows = claim_rows(report)
    height, width = report.size
    told = [
        f"{row['model']} scores {row['measured']} % where {row['claimed']} % is claimed: "
        f"{row['claim']}"
        if row["claimed"] != "-"
        else f"{row['model']} scores {row['measured']} %, without a claim"
        for row in rows
    ]
    models = [
        (
            one.name,
            str(model.seed),
            str(model.epochs),
            str(model.commit)[:10],
            model.device,
            model.training,
        )
        for one in architectures
        for model in one.models
    ]
    sections = [
        PageSection(
            "Claimed and measured",
            f"{report.split} mIoU in per cent at {width}×{height}; over several seeds the mean "
            f"[least..most]. {MEANING} Claims: {report.claims_source}.",
            chart="claims",
            kind="low",
            **_table(rows),
        ),
        *(
            [
                PageSection(
                    "Differences",
                    "Points of mIoU by which the first exceeds the second, over the same images.",
                    **_table(difference_rows(report)),
                )
            ]
            if report.differences
            else []
        ),
        PageSection(
            "IoU of each class",
            "Per cent; in round brackets 95 % by images.",
            chart="class_iou",
            kind="classes",
            headings=("class", *(one.name for one in architectures)),
            rows=class_rows(report),
        ),
        PageSection(
            "Trainings",
            headings=("network", "seed", "epochs", "commit", "device", "folder"),
            rows=models,
            words=(0, 3, 4, 5),
        ),
    ]
    by_network = {
        one.name: {name: spread.model_dump() for name, spread in one.class_iou.items()}
        for one in architectures
    }
    found = {
        "claims": charts.claims(architectures),
        "class_iou": charts.class_iou(report.classes, by_network),
    }
    return _write(
        place,
        "Claims of the paper",
        f"{report.name}: claimed and measured",
        f"On {report.split}, {'; '.join(told)}.",
        sections,
        found,
    )


def write_comparison_page(place: Path, report: ComparisonReport, table: pd.DataFrame) -> Path:
    """Strategies side by side over time; returns the path of report.html in `place`.

    Args:
        table: see `Comparison.curves`.
    """
    budget = report.budget_seconds
    rows = [
        (
            strategy,
            ", ".join(map(str, over_seeds.seeds)),
            *(
                _spread(equal[figure])
                for equal in (over_seeds.equal_time, over_seeds.equal_candidates)
                for figure in ("best_reward", "mean_reward", "last_quarter_reward")
            ),
        )
        for strategy, over_seeds in report.strategies.items()
    ]
    scored = {
        strategy: best.mean
        for strategy, over_seeds in report.strategies.items()
        if (best := over_seeds.equal_time["best_reward"]) is not None
    }
    lead = "No candidate of any search has a reward."
    if scored:
        first = max(scored, key=lambda strategy: scored[strategy])
        lead = (
            f"Within {duration(budget)} of training a search, {first} found the best network on "
            f"average: its best reward is {scored[first]:.4f}."
        )
    seconds = np.linspace(0, budget, NUM_POINTS).tolist()
    curves = {
        title: bands(table, column, seconds)
        for column, title in (
            ("best_reward", "best so far"),
            ("mean_reward", f"mean of the last {WINDOW}"),
        )
    }
    sections = [
        PageSection(
            "Rewards over training time",
            "Lines are means over the seeds, bands reach from the least to the most.",
            chart="strategies",
            kind="tall",
        ),
        PageSection(
            "Figures",
            f"At equal time: within {duration(budget)} of training a search. At equal number: "
            f"{report.num_candidates} candidates. Means over the seeds [least..most].",
            headings=(
                *("strategy", "seeds", "best, equal time", "mean, equal time"),
                *("last quarter, equal time", "best, equal number", "mean, equal number"),
                "last quarter, equal number",
            ),
            rows=rows,
        ),
    ]
    found = {"strategies": charts.strategies(curves)}
    title = f"{report.name}: strategies compared"
    return _write(place, "Search strategies", title, lead, sections, found)


def write_fidelity_page(
    place: Path, report: FidelityReport, table: pd.DataFrame, name: str
) -> Path:
    """How the proxy ranks; returns the path of report.html in `place`.

    Args:
        table: that of fidelity.parquet.
    """
    count = report.num_architectures
    if report.kendall_tau is None or report.kendall_tau_interval is None:
        lead = f"Over {count} architectures no rank correlation is defined: {report.reason}."
    else:
        low, high = report.kendall_tau_interval
        lead = (
            f"Over {count} architectures, the proxy {report.proxy} ranks as full training does "
            f"with Kendall's tau {report.kendall_tau:.2f} (95 % interval {low:.2f} to "
            f"{high:.2f})."
        )
    sections = [
        PageSection(
            "Proxy and full training",
            "A point an architecture: its reward on the proxy task, the mean over "
            f"{report.num_proxy_seeds} seeds, and its val mIoU after full training."
            if report.num_proxy_seeds > 1
            else "A point an architecture: its reward on the proxy task, and its val mIoU after "
            "full training.",
            chart="scatter",
            kind="tall",
        ),
        PageSection(
            "Each proxy",
            "With 95 % intervals, beside what the sizes alone say; seconds are the mean of a "
            f"candidate. {RANKING}",
            chart="taus",
            kind="low",  # it is as high as its proxies are many
            empty="No correlation is defined for any proxy.",
            **_table(ranking_rows(report)),
        ),
    ]
    if report.held_out is not None:
        groups = ", ".join(report.held_out.groups)
        sections.append(
            PageSection(
                "On what no network was trained on",
                f"The same against mIoU on {groups}.",
                **_table(held_out_rows(report)),
            )
        )
    found = {
        "scatter": charts.proxies(mean_rewards(table), report.proxy),
        "taus": charts.taus(report.proxies),
    }
    return _write(
        place, "Fidelity of the proxy", f"{name}: proxy and full training", lead, sections, found
    )


def _write(
    place: Path,
    kicker: str,
    title: str,
    lead: str,
    sections: Sequence[PageSection],
    found: Mapping[str, Any],
) -> Path:
    content = {
        "kicker": kicker,
        "title": title,
        "lead": lead,
        "sections": sections,
        "charts": found,
        "networks": {},
        "drawings": {},
        "notes": [],
        "has_images": False,
    }
    return write_page(place / REPORT_FILE, "sections.html.jinja", content)


def _table(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    headings = list(rows[0])
    words = [column for column, heading in enumerate(headings) if heading in WORDS + RANKING_WORDS]
    return {"headings": headings, "rows": [list(row.values()) for row in rows], "words": words}


def _spread(values: Spread | None) -> str:
    if values is None:
        return "none"
    mean = f"{values.mean:.4f}"
    if values.min == values.max:
        return mean
    return f"{mean} [{values.min:.4f}..{values.max:.4f}]"
