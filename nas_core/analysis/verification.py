"""A published claim against what trained networks score: figures and their table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import pandas as pd
from pydantic import Field, JsonValue

from nas_core.analysis.uncertainty import (
    Floats,
    Interval,
    Spread,
    class_intervals,
    percentile_interval,
    resampled_mean_iou,
    seeds_difference,
    seeds_interval,
    spread,
)
from nas_core.base.documents import Document
from nas_core.base.markdown import table
from nas_core.space.claims import Claim
from nas_core.training.record import FinalScores, Scores, Size, Training

WORDS = ("model", "models", "metric", "trained on", "claim")
"""The columns of the tables that hold no numbers."""
MEANING = (
    "By seeds: Student's t interval of the mean; one seed has none. By images: a bootstrap over "
    "blocks of consecutive frames of the split, which tells of other frames of these recordings, "
    "not of other recordings. Reached: the mean is above the claim by more than both intervals "
    "reach below it, added in squares. Reached, not certain: by less, or an interval is not known. "
    "Looks: how often networks of the architecture were run on test."
)

Verdict = Literal["reached", "reached, not certain", "not reached"]


@dataclass(frozen=True)
class ScoredModel:
    """A trained and scored network.

    Attributes:
        folder: name of the training's folder.
        counts: by image and class, as `resampled_mean_iou` takes them.
    """

    folder: str
    training: Training
    test: FinalScores
    counts: pd.DataFrame


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
    seeds_interval: Interval | None
    """Of the mean over seeds; None with one seed."""
    split_interval: Interval | None
    """By resampling blocks of images of the split; None where there are too few."""
    verdict: Verdict | None
    """Whether the mean reaches the claim; None where there is none."""
    looks: int | None
    """How often networks of the architecture were run on test; None where the split is another."""
    class_iou: dict[str, Spread]
    """Without classes that the split lacks."""
    class_split_interval: dict[str, Interval] = Field(default_factory=dict)
    """Of each class, as `split_interval`."""
    models: list[SeedReport]


class Difference(Document):
    """By how much one architecture's mean mIoU exceeds another's."""

    first: str
    second: str
    mean: float
    seeds_interval: Interval | None
    """Welch's; None where one has one seed."""
    split_interval: Interval | None
    """Of the same resamples of the split."""


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
    differences: list[Difference]
    network: dict[str, JsonValue]
    train: dict[str, JsonValue]


def compare_with_claim(
    models: Sequence[ScoredModel], claim: Claim | None, looks: int | None, *, seed: int
) -> ArchitectureReport:
    """The figures of one architecture, trained with different seeds.

    Args:
        looks: see `ArchitectureReport`.
        seed: of the bootstrap over the images.
    """
    first = models[0].training
    scores = _scores(models)
    measured, by_seeds = spread(scores), seeds_interval(scores)
    if by_seeds is not None:  # of two seeds it may reach further than a score can
        by_seeds = max(0.0, by_seeds[0]), min(1.0, by_seeds[1])
    resampled = _resampled(models, seed)
    by_split = None if resampled is None else percentile_interval(resampled[1:])
    return ArchitectureReport(
        name=first.label,
        id=first.id,
        num_parameters=first.num_parameters,
        macs=first.macs,
        claimed=claim.mean_iou if claim else None,
        measured=measured,
        seeds_interval=by_seeds,
        split_interval=by_split,
        verdict=verdict(measured.mean, claim.mean_iou, by_seeds, by_split) if claim else None,
        looks=looks,
        class_iou={
            name: spread([model.test.class_iou[name] for model in models])
            for name in models[0].test.class_iou
        },
        class_split_interval=class_intervals([model.counts for model in models], seed=seed),
        models=[_described(model) for model in models],
    )


def verdict(
    mean: float, claimed: float, by_seeds: Interval | None, by_split: Interval | None
) -> Verdict:
    """Whether a mean reaches a claim, and whether that is more than chance.

    Seeds and images are independent causes of error, so what the two intervals reach below the
    mean adds in squares. Where one is not known nothing is certain.
    """
    if mean < claimed:
        return "not reached"
    if by_seeds is None or by_split is None:
        return "reached, not certain"
    below = math.hypot(mean - by_seeds[0], mean - by_split[0])
    return "reached" if mean - below >= claimed else "reached, not certain"


def compare_pairs(models: Mapping[str, Sequence[ScoredModel]], *, seed: int) -> list[Difference]:
    """The differences between architectures, given by name.

    Args:
        seed: of the bootstrap over the images. All have the same resamples: that an image is hard
            for both of a pair is no part of their difference.
    """
    scores = {name: _scores(of) for name, of in models.items()}
    resampled = {name: _resampled(of, seed) for name, of in models.items()}
    found = []
    for first, second in combinations(models, 2):
        by_split = None
        one, other = resampled[first], resampled[second]
        if one is not None and other is not None:
            by_split = percentile_interval(one[1:] - other[1:])
        found.append(
            Difference(
                first=first,
                second=second,
                mean=spread(scores[first]).mean - spread(scores[second]).mean,
                seeds_interval=seeds_difference(scores[first], scores[second]),
                split_interval=by_split,
            )
        )
    return found


def class_table(architectures: Sequence[ArchitectureReport]) -> pd.DataFrame:
    """The IoU of each class: columns architecture, seed, class and iou."""
    rows = [
        {"architecture": one.name, "seed": model.seed, "class": name, "iou": value}
        for one in architectures
        for model in one.models
        for name, value in model.class_iou.items()
    ]
    return pd.DataFrame(rows, columns=["architecture", "seed", "class", "iou"])


def claim_table(architectures: Sequence[ArchitectureReport]) -> pd.DataFrame:
    """A row an architecture with the figures of `ArchitectureReport` that are no lists."""
    return pd.DataFrame(
        [
            {
                "architecture": one.name,
                "id": one.id,
                "num_parameters": one.num_parameters,
                "macs": one.macs,
                "claimed": one.claimed,
                "mean_iou": one.measured.mean,
                "seeds": len(one.models),
                **_bounds("seeds", one.seeds_interval),
                **_bounds("split", one.split_interval),
                "looks": one.looks,
                "verdict": one.verdict,
            }
            for one in architectures
        ]
    )


def claim_rows(report: VerificationReport) -> list[dict[str, str]]:
    """The claim table: a row an architecture, its cells by heading; scores in per cent."""
    return [
        {
            "model": one.name,
            "metric": f"{report.split} mIoU",
            "claimed": "-" if one.claimed is None else f"{100 * one.claimed:.1f}",
            "measured": _with_spread(one.measured, len(one.models)),
            "seeds": str(len(one.models)),
            "95 % by seeds": shown_interval(one.seeds_interval),
            "95 % by images": shown_interval(one.split_interval),
            "looks": "-" if one.looks is None else str(one.looks),
            "parameters": f"{one.num_parameters:,}",
            "GMACs": f"{one.macs / 1e9:.2f}",
            "epochs": str(one.models[0].epochs),
            "trained on": report.splits,
            "claim": one.verdict or "-",
        }
        for one in report.architectures
    ]


def difference_rows(report: VerificationReport) -> list[dict[str, str]]:
    """A row a pair of architectures: by how much the first is better, in points of mIoU."""
    return [
        {
            "models": f"{one.first} - {one.second}",
            "difference": f"{100 * one.mean:+.2f}",
            "95 % by seeds": shown_interval(one.seeds_interval),
            "95 % by images": shown_interval(one.split_interval),
        }
        for one in report.differences
    ]


def shown_interval(interval: Interval | None) -> str:
    """In per cent."""
    return "-" if interval is None else f"{100 * interval[0]:.1f}..{100 * interval[1]:.1f}"


def class_rows(report: VerificationReport) -> list[list[str]]:
    """A row a class: its name, and the IoU of each architecture in per cent, with the interval by
    images in brackets."""
    return [
        [name, *(_class_cell(one, name) for one in report.architectures)] for name in report.classes
    ]


def _class_cell(one: ArchitectureReport, name: str) -> str:
    if name not in one.class_iou:
        return "-"
    interval = one.class_split_interval.get(name)
    by_images = "" if interval is None else f" ({shown_interval(interval)})"
    return _with_spread(one.class_iou[name], len(one.models)) + by_images


def render(report: VerificationReport) -> str:
    """The report in Markdown."""
    height, width = report.size
    names = [one.name for one in report.architectures]
    lines = [
        f"# {report.name}: claimed and measured",
        "",
        f"IoU in per cent on {report.split} at {width}x{height}; over several seeds the mean "
        "[least..most].",
        f"{MEANING} Claims: {report.claims_source}.",
        "",
        *_markdown(claim_rows(report)),
        "",
    ]
    if report.differences:
        lines += ["## Differences", "", *_markdown(difference_rows(report)), ""]
    lines += [
        "## IoU of each class",
        "",
        "In round brackets 95 % by images.",
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


def _scores(models: Sequence[ScoredModel]) -> list[float]:
    return [model.test.mean_iou for model in models]


def _resampled(models: Sequence[ScoredModel], seed: int) -> Floats | None:
    return resampled_mean_iou([model.counts for model in models], seed=seed)


def _bounds(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _markdown(rows: Sequence[Mapping[str, str]]) -> list[str]:
    headings = list(rows[0])
    numbers = [column for column, heading in enumerate(headings) if heading not in WORDS]
    return table(headings, [list(row.values()) for row in rows], numbers)


def _with_spread(measured: Spread, num_seeds: int) -> str:
    mean = f"{100 * measured.mean:.2f}"
    if num_seeds == 1:
        return mean
    return f"{mean} [{100 * measured.min:.1f}..{100 * measured.max:.1f}]"
