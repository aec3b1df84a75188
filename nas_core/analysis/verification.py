"""A published claim against what trained networks score: figures and their table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from pydantic import JsonValue

from nas_core.base.documents import Document
from nas_core.base.markdown import table
from nas_core.space.claims import Claim
from nas_core.training.record import FinalScores, Scores, Size, Training

NUMBERS = ("claimed", "measured", "seeds", "parameters", "GMACs", "epochs")
"""The columns of the claim table that hold numbers."""


@dataclass(frozen=True)
class ScoredModel:
    """A trained and scored network.

    Attributes:
        folder: name of the training's folder.
    """

    folder: str
    training: Training
    test: FinalScores


class Spread(Document):
    """A figure over seeds."""

    mean: float
    min: float
    max: float


class SeedReport(Document):
    """What an architecture scores that was trained with one seed."""

    seed: int
    training: str
    """Name of the training's folder."""
    epochs: int
    commit: str | None
    device: str
    scores: Scores
    class_iou: dict[str, float]


class ArchitectureReport(Document):
    """The figures of one architecture, trained with different seeds."""

    name: str
    id: str
    num_parameters: int
    macs: int
    claimed: float | None
    """None where there is no claim."""
    measured: Spread
    verified: bool | None
    """Whether the mean reaches the claim; None where there is none."""
    class_iou: dict[str, Spread]
    """Without classes that the split lacks."""
    models: list[SeedReport]


class VerificationReport(Document):
    """verify.json."""

    remedy = "run `nas verify` again"

    name: str
    data_hash: str
    split: str
    """That the scores are of."""
    size: Size
    splits: str
    """That the networks were trained on."""
    claims_source: str
    classes: list[str]
    architectures: list[ArchitectureReport]
    network: dict[str, JsonValue]
    train: dict[str, JsonValue]


def compare_with_claim(models: Sequence[ScoredModel], claim: Claim | None) -> ArchitectureReport:
    """The figures of one architecture, trained with different seeds."""
    first = models[0].training
    measured = _over_seeds([model.test.mean_iou for model in models])
    return ArchitectureReport(
        name=first.label,
        id=first.id,
        num_parameters=first.num_parameters,
        macs=first.macs,
        claimed=claim.mean_iou if claim else None,
        measured=measured,
        verified=measured.mean >= claim.mean_iou if claim else None,
        class_iou={
            name: _over_seeds([model.test.class_iou[name] for model in models])
            for name in models[0].test.class_iou
        },
        models=[_described(model) for model in models],
    )


def class_table(architectures: Sequence[ArchitectureReport]) -> pd.DataFrame:
    """The IoU of each class: columns architecture, seed, class and iou."""
    rows = [
        {"architecture": one.name, "seed": model.seed, "class": name, "iou": value}
        for one in architectures
        for model in one.models
        for name, value in model.class_iou.items()
    ]
    return pd.DataFrame(rows, columns=["architecture", "seed", "class", "iou"])


def claim_rows(report: VerificationReport) -> list[dict[str, str]]:
    """The claim table: a row an architecture, its cells by heading; scores in per cent."""
    verdicts = {True: "verified", False: "not verified", None: "-"}
    return [
        {
            "model": one.name,
            "metric": f"{report.split} mIoU",
            "claimed": "-" if one.claimed is None else f"{100 * one.claimed:.1f}",
            "measured": _with_spread(one.measured, len(one.models)),
            "seeds": str(len(one.models)),
            "parameters": f"{one.num_parameters:,}",
            "GMACs": f"{one.macs / 1e9:.2f}",
            "epochs": str(one.models[0].epochs),
            "trained on": report.splits,
            "claim": verdicts[one.verified],
        }
        for one in report.architectures
    ]


def class_rows(report: VerificationReport) -> list[list[str]]:
    """A row a class: its name, and the IoU of each architecture in per cent."""
    return [
        [
            name,
            *(
                _with_spread(one.class_iou[name], len(one.models)) if name in one.class_iou else "-"
                for one in report.architectures
            ),
        ]
        for name in report.classes
    ]


def render(report: VerificationReport) -> str:
    """The report in Markdown."""
    height, width = report.size
    rows = claim_rows(report)
    headings = list(rows[0])
    names = [one.name for one in report.architectures]
    lines = [
        f"# {report.name}: claimed and measured",
        "",
        f"IoU in per cent on {report.split} at {width}x{height}; over several seeds the mean "
        "[least..most].",
        f"A claim is verified where the mean reaches it. Claims: {report.claims_source}.",
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


def _described(model: ScoredModel) -> SeedReport:
    training, test = model.training, model.test
    return SeedReport(
        seed=training.seed,
        training=model.folder,
        epochs=len(training.history),
        commit=training.commit,
        device=training.device,
        scores=test.scores,
        class_iou=test.class_iou,
    )


def _over_seeds(values: Sequence[float]) -> Spread:
    return Spread(mean=statistics.fmean(values), min=min(values), max=max(values))


def _with_spread(measured: Spread, num_seeds: int) -> str:
    mean = f"{100 * measured.mean:.2f}"
    if num_seeds == 1:
        return mean
    return f"{mean} [{100 * measured.min:.1f}..{100 * measured.max:.1f}]"
