"""A published claim against what trained networks score: figures and their table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nas_core.base.markdown import table
from nas_core.space.claims import Claim

NUMBERS = ("claimed", "measured", "seeds", "parameters", "GMACs", "epochs")
"""The columns of the claim table that hold numbers."""


@dataclass(frozen=True)
class ScoredModel:
    """A trained and scored network.

    Attributes:
        folder: name of the training's folder.
        training: the content of its training.json.
        test: the content of its test.json.
    """

    folder: str
    training: Mapping[str, Any]
    test: Mapping[str, Any]


def compare_with_claim(models: Sequence[ScoredModel], claim: Claim | None) -> dict[str, Any]:
    """The figures of one architecture, trained with different seeds.

    Returns:
        Plain values. `measured` and `class_iou` (a class that the split lacks is left out) have
        mean, min and max over the seeds. `verified` says whether the mean reaches the claim; it
        and `claimed` are None where there is no claim.
    """
    first = models[0].training
    measured = _over_seeds([model.test["mean_iou"] for model in models])
    classes = models[0].test["class_iou"]
    return {
        "name": first["label"],
        "id": first["id"],
        "num_parameters": first["num_parameters"],
        "macs": first["macs"],
        "claimed": claim.mean_iou if claim else None,
        "measured": measured,
        "verified": measured["mean"] >= claim.mean_iou if claim else None,
        "class_iou": {
            name: _over_seeds([model.test["class_iou"][name] for model in models])
            for name in classes
        },
        "models": [_described(model) for model in models],
    }


def class_table(architectures: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The IoU of each class: columns architecture, seed, class and iou."""
    rows = [
        {"architecture": one["name"], "seed": model["seed"], "class": name, "iou": value}
        for one in architectures
        for model in one["models"]
        for name, value in model["class_iou"].items()
    ]
    return pd.DataFrame(rows, columns=["architecture", "seed", "class", "iou"])


def claim_rows(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The claim table: a row an architecture, its cells by heading; scores in per cent."""
    verdicts = {True: "verified", False: "not verified", None: "-"}
    return [
        {
            "model": one["name"],
            "metric": f"{report['split']} mIoU",
            "claimed": "-" if one["claimed"] is None else f"{100 * one['claimed']:.1f}",
            "measured": _with_spread(one["measured"], len(one["models"])),
            "seeds": str(len(one["models"])),
            "parameters": f"{one['num_parameters']:,}",
            "GMACs": f"{one['macs'] / 1e9:.2f}",
            "epochs": str(one["models"][0]["epochs"]),
            "trained on": report["splits"],
            "claim": verdicts[one["verified"]],
        }
        for one in report["architectures"]
    ]


def class_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """A row a class: its name, and the IoU of each architecture in per cent."""
    architectures = report["architectures"]
    return [
        [
            name,
            *(
                _with_spread(one["class_iou"][name], len(one["models"]))
                if name in one["class_iou"]
                else "-"
                for one in architectures
            ),
        ]
        for name in report["classes"]
    ]


def render(report: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    height, width = report["size"]
    rows = claim_rows(report)
    headings = list(rows[0])
    names = [one["name"] for one in report["architectures"]]
    lines = [
        f"# {report['name']}: claimed and measured",
        "",
        f"IoU in per cent on {report['split']} at {width}x{height}; over several seeds the mean "
        "[least..most].",
        f"A claim is verified where the mean reaches it. Claims: {report['claims_source']}.",
        "",
        *table(
            headings,
            [list(row.values()) for row in rows],
            [column for column, heading in enumerate(headings) if heading in NUMBERS],
        ),
        "",
        "## IoU of each class",
        "",
        *table(("class", *names), class_rows(report), range(1, len(names) + 1)),
    ]
    return "\n".join(lines) + "\n"


def _described(model: ScoredModel) -> dict[str, Any]:
    training, test = model.training, model.test
    return {
        "seed": training["seed"],
        "training": model.folder,
        "epochs": len(training["history"]),
        "commit": training["commit"],
        "device": training["device"],
        "scores": {key: value for key, value in test.items() if isinstance(value, float)},
        "class_iou": dict(test["class_iou"]),
    }


def _over_seeds(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "min": min(values), "max": max(values)}


def _with_spread(measured: Mapping[str, float], num_seeds: int) -> str:
    mean, least, most = (100 * measured[key] for key in ("mean", "min", "max"))
    return f"{mean:.2f} [{least:.1f}..{most:.1f}]" if num_seeds > 1 else f"{mean:.2f}"
