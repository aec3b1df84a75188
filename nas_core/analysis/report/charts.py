"""The figures of the pages: Plotly's, without the colours of the page, which `page.js` adds.

A chart is a list of views, of which a reader sees one and chooses by its label.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from nas_core.analysis.fronts import pareto_front
from nas_core.search.journal import Record
from nas_core.space.architectures import NAMES

if TYPE_CHECKING:  # they bring torch
    from nas_core.analysis.rank_agreement import ProxyAgreement
    from nas_core.analysis.verification import ArchitectureReport

BLUE, ORANGE, GREY, RED, GREEN = "#3d84e0", "#e0832a", "#8b949e", "#d1495b", "#3a9d62"
COLOURS = (BLUE, ORANGE, GREEN, "#a466c9", RED, "#2aa5a0", "#b58b1d", GREY)

# Each cost: what a button says, its axis, and the size of its unit.
COST_AXES = {
    "num_parameters": ("parameters", "parameters, thousands", 1e3),
    "macs": ("GMACs", "multiply-accumulates, G", 1e9),
    "latency_ms": ("latency", "latency, ms an image", 1.0),
}


@dataclass(frozen=True)
class View:
    label: str
    figure: go.Figure

    def plain(self) -> dict[str, Any]:
        return {"label": self.label, **json.loads(self.figure.to_json())}


def chart(*views: View) -> list[dict[str, Any]]:
    """What the page's script draws."""
    return [view.plain() for view in views]


def progress(candidates: Sequence[Record]) -> list[dict[str, Any]]:
    """All rewards and the best so far, over the candidates and over the training time."""
    numbers = [record.candidate for record in candidates]
    minutes = [seconds / 60 for seconds in accumulate(_seconds(one) for one in candidates)]
    return chart(
        View("by candidate", _progress(candidates, numbers, "candidate")),
        View("by time", _progress(candidates, minutes, "time in training, summed, minutes")),
    )


def _progress(candidates: Sequence[Record], places: Sequence[Any], title: str) -> go.Figure:
    figure = _figure(title, "reward")
    if len(candidates) < 12 and title == "candidate":
        figure.update_xaxes(dtick=1)
    for status, colour, symbol in (
        ("finished", BLUE, "circle"),
        ("stopped early", GREY, "circle-open"),
    ):
        rows = [
            (place, record)
            for place, record in zip(places, candidates, strict=True)
            if record.status == status
        ]
        if rows:
            figure.add_scatter(
                x=[place for place, _ in rows],
                y=[record.reward for _, record in rows],
                customdata=[[record.id, record.candidate] for _, record in rows],
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 7},
                name=status,
                hovertemplate="%{y:.4f}<br>%{customdata[0]}, candidate %{customdata[1]}",
            )
    scored = [
        (place, record.reward)
        for place, record in zip(places, candidates, strict=True)
        if record.reward is not None
    ]
    for place, record in zip(places, candidates, strict=True):
        if record.reward is not None:
            _name(figure, record.id, place, record.reward)
    if scored:
        best = list(accumulate((reward for _, reward in scored), max))
        figure.add_scatter(
            x=[*(place for place, _ in scored), places[-1]],
            y=[*best, best[-1]],
            mode="lines",
            line={"color": ORANGE, "shape": "hv", "width": 2.5},
            name="best so far",
            hovertemplate="%{y:.4f}",
        )
    failed = [
        (place, record)
        for place, record in zip(places, candidates, strict=True)
        if record.status == "failed"
    ]
    if failed:
        # They have no reward: a strip of their own, below.
        figure.add_scatter(
            x=[place for place, _ in failed],
            y=[0.0] * len(failed),
            yaxis="y2",
            customdata=[[record.id, record.candidate] for _, record in failed],
            mode="markers",
            marker={"color": RED, "symbol": "x", "size": 8},
            name="failed",
            hovertemplate="failed<br>%{customdata[0]}, candidate %{customdata[1]}",
        )
        strip = {"domain": [0, 0.06], "visible": False, "range": [-1, 1], "fixedrange": True}
        figure.update_layout(yaxis={"domain": [0.08, 1]}, yaxis2=strip)
        figure.update_xaxes(anchor="free", position=0)
    return figure


def pareto(finished: pd.DataFrame) -> list[dict[str, Any]]:
    """Quality against each cost that is known; the points name their networks to the script."""
    views = []
    for cost, (label, title, unit) in COST_AXES.items():
        known = finished.dropna(subset=[cost, "quality"])
        if known.empty:
            continue
        front = pareto_front(finished, cost)
        figure = _figure(title, "quality")
        others = known[~known["id"].isin(front["id"])]
        if not others.empty:
            _add_networks(figure, others, cost, unit, {"color": GREY, "size": 7, "opacity": 0.7})
            figure.data[-1].name = "other candidates"
        edge = [*(front[cost] / unit), float(known[cost].max()) / unit]
        figure.add_scatter(
            x=edge,
            y=[*front["quality"], float(front["quality"].iloc[-1])],
            mode="lines",
            line={"color": BLUE, "shape": "hv", "width": 1.5},
            hoverinfo="skip",
            showlegend=False,
        )
        _add_networks(figure, front, cost, unit, {"color": BLUE, "size": 11})
        figure.data[-1].name = "Pareto front"
        views.append(View(label, figure))
    return chart(*views)


def _add_networks(
    figure: go.Figure, rows: pd.DataFrame, cost: str, unit: float, marker: Mapping[str, Any]
) -> None:
    figure.add_scatter(
        x=list(rows[cost] / unit),
        y=list(rows["quality"]),
        customdata=list(rows["id"]),
        mode="markers",
        marker=dict(marker),
        hovertemplate="%{y:.4f} at %{x:.4~r}<br>%{customdata}<extra></extra>",
    )
    for _, row in rows[rows["id"].isin(NAMES)].iterrows():
        _name(figure, row["id"], row[cost] / unit, row["quality"])


def _name(figure: go.Figure, identifier: str, x: float, y: float) -> None:
    """Write its name above the point of a network that has one."""
    if name := NAMES.get(identifier):
        figure.add_annotation(x=x, y=y, text=name, showarrow=False, yshift=12)


def losses(by_stage: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """The loss of each epoch of a candidate, small."""
    figure = _figure("epoch", "")
    epoch = 0
    for (stage, values), colour in zip(sorted(by_stage.items()), COLOURS, strict=False):
        figure.add_scatter(
            x=list(range(epoch + 1, epoch + 1 + len(values))),
            y=list(values),
            mode="lines+markers",
            marker={"size": 4},
            line={"color": colour, "width": 2},
            name=f"stage {stage.upper()}",
        )
        epoch += len(values)
    figure.update_layout(margin={"l": 34, "r": 8, "t": 4, "b": 34}, showlegend=False)
    figure.update_xaxes(dtick=1 if epoch < 10 else None)
    figure.update_yaxes(nticks=4)
    return chart(View("", figure))


def histories(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Loss and val mIoU of full trainings over their epochs, by name."""
    views = []
    for key, title in (("loss", "loss"), ("val_mean_iou", "val mIoU")):
        figure = _figure("epoch", title)
        for (name, history), colour in zip(rows.items(), _colours(), strict=False):
            points = [row for row in history if key in row and "epoch" in row]
            if points:
                figure.add_scatter(
                    x=[row["epoch"] for row in points],
                    y=[row[key] for row in points],
                    mode="lines" if len(points) > 1 else "markers",
                    line={"color": colour},
                    name=name,
                )
        if figure.data:
            figure.update_layout(showlegend=True)
            views.append(View(title, figure))
    return chart(*views)


def class_iou(
    classes: Sequence[str], by_network: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> list[dict[str, Any]]:
    """A bar a class and network, in per cent; whiskers from the least to the most over seeds.

    Args:
        by_network: mean, min and max by network and class; a class may be missing.
    """
    figure = _figure("IoU, %", "")
    for (network, values), colour in zip(by_network.items(), _colours(), strict=False):
        known = [one for one in classes if one in values]
        mean, least, most = (
            [100 * values[one][key] for one in known] for key in ("mean", "min", "max")
        )
        figure.add_bar(
            x=mean,
            y=known,
            orientation="h",
            name=network,
            marker={"color": colour},
            error_x=_whiskers(mean, least, most),
            hovertemplate="%{y}: %{x:.1f} %",
        )
    figure.update_layout(showlegend=True, barmode="group")
    figure.update_xaxes(range=[0, 100])
    figure.update_yaxes(
        categoryorder="array", categoryarray=list(classes), autorange="reversed", dtick=1
    )
    return chart(View("", figure))


def confusion(by_network: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Of the pixels of each true class, the per cent taken for each class; a view a network.

    Args:
        by_network: counts, a row a true class. One without a pixel stays empty.
    """
    views = []
    for network, counts in by_network.items():
        totals = counts.sum(axis=1)
        shares = (100 * counts.div(totals.where(totals > 0), axis=0)).astype(float)
        figure = _figure("predicted", "true")
        figure.add_heatmap(
            x=list(map(str, counts.columns)),
            y=list(map(str, counts.index)),
            z=[[None if cell != cell else round(cell, 2) for cell in row] for row in shares.values],
            zmin=0,
            zmax=100,
            colorscale="Blues",
            showscale=False,
            hovertemplate="true %{y}, predicted %{x}: %{z:.1f} %<extra></extra>",
            texttemplate="%{z:.0f}" if len(counts) <= 15 else None,
            textfont={"size": 10},
        )
        figure.update_yaxes(autorange="reversed", dtick=1)
        figure.update_xaxes(dtick=1, tickangle=-45)
        views.append(View(network, figure))
    return chart(*views)


def claims(architectures: Sequence[ArchitectureReport]) -> list[dict[str, Any]]:
    """Measured mIoU with its interval from the images, and what is claimed, in per cent.

    Where there is none, the spread over seeds is in its place.

    Args:
        architectures: of verify.json.
    """
    figure = _figure("mIoU, %", "")
    names = [one.name for one in architectures]
    mean = [100 * one.measured.mean for one in architectures]
    ranges = [one.split_interval or (one.measured.min, one.measured.max) for one in architectures]
    least, most = ([100 * limits[end] for limits in ranges] for end in (0, 1))
    figure.add_scatter(
        x=mean,
        y=names,
        error_x=_whiskers(mean, least, most),
        mode="markers",
        marker={"color": BLUE, "size": 11},
        name="measured",
    )
    claimed = {one.name: one.claimed for one in architectures if one.claimed is not None}
    if claimed:
        figure.add_scatter(
            x=[100 * value for value in claimed.values()],
            y=list(claimed),
            mode="markers",
            marker={"color": ORANGE, "size": 16, "symbol": "line-ns", "line": {"width": 3}},
            name="claimed",
        )
        figure.data[-1].marker.line.color = ORANGE
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_layout(showlegend=True)
    return chart(View("", figure))


def strategies(curves: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """A line a strategy over the training time, with a band over its seeds; a view a table.

    Args:
        curves: as `comparison.bands` makes them, by what they show.
    """
    views = []
    for title, table in curves.items():
        figure = _figure("time in training, minutes", f"reward, {title}")
        for (strategy, band), colour in zip(
            table.groupby("strategy", sort=False), _colours(), strict=False
        ):
            known = band.dropna()
            minutes = list(known["training_seconds"] / 60)
            if not minutes:
                continue
            group = {"legendgroup": str(strategy), "mode": "lines"}
            figure.add_scatter(
                x=[*minutes, *reversed(minutes)],
                y=[*known["max"], *reversed(list(known["min"]))],
                fill="toself",
                fillcolor=colour,
                opacity=0.15,
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                **group,
            )
            figure.add_scatter(
                x=minutes,
                y=list(known["mean"]),
                line={"color": colour, "width": 2.5, "shape": "hv"},
                name=str(strategy),
                hovertemplate="%{y:.4f} after %{x:.1f} min",
                **group,
            )
        if figure.data:
            figure.update_layout(showlegend=True)
            views.append(View(title, figure))
    return chart(*views)


def proxies(table: pd.DataFrame, first: str) -> list[dict[str, Any]]:
    """Reward on a proxy against val mIoU after full training; a view a proxy.

    Args:
        first: the proxy that is shown first.
    """
    views = []
    names = sorted(table["proxy"].unique(), key=lambda name: name != first)
    for proxy in names:
        known = table[table["proxy"] == proxy].dropna(subset=["reward", "val_mean_iou"])
        if known.empty:
            continue
        figure = _figure("reward on the proxy task", "val mIoU after full training")
        figure.add_scatter(
            x=list(known["reward"]),
            y=list(known["val_mean_iou"]),
            text=list(known["name"]),
            mode="markers",
            marker={"color": BLUE, "size": 10},
            hovertemplate="%{text}<br>reward %{x:.4f}, val mIoU %{y:.4f}<extra></extra>",
        )
        views.append(View(str(proxy), figure))
    return chart(*views)


def taus(rows: Sequence[ProxyAgreement]) -> list[dict[str, Any]]:
    """Kendall's tau of each proxy with its interval, the cheapest above."""
    known = sorted(
        (row for row in rows if row.kendall_tau_interval is not None), key=lambda row: row.seconds
    )
    if not known:
        return []
    figure = _figure("Kendall's tau", "")
    least, most = zip(*(row.kendall_tau_interval or () for row in known), strict=True)
    values = [row.kendall_tau or 0.0 for row in known]
    figure.add_scatter(
        x=values,
        y=[f"{row.proxy} · {row.seconds:.1f} s" for row in known],
        error_x=_whiskers(values, least, most),
        mode="markers",
        marker={"color": BLUE, "size": 10},
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_layout(height=120 + 34 * len(known))
    return chart(View("", figure))


def _whiskers(
    values: Sequence[float], least: Sequence[float], most: Sequence[float]
) -> dict[str, Any]:
    # An interval of percentiles need not hold the estimate.
    return {
        "array": [max(0.0, high - at) for high, at in zip(most, values, strict=True)],
        "arrayminus": [max(0.0, at - low) for at, low in zip(values, least, strict=True)],
        "thickness": 1.2,
        "width": 3,
        "color": GREY,
    }


def _figure(x: str, y: str) -> go.Figure:
    figure = go.Figure(layout={"template": "none"})
    figure.update_xaxes(title={"text": x})
    figure.update_yaxes(title={"text": y})
    return figure


def _colours() -> list[str]:
    return list(COLOURS) * 8


def _seconds(record: Record) -> float:
    return sum(record.seconds.values())
