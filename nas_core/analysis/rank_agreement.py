"""Whether the proxy task ranks architectures as full training does: the statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, JsonValue
from scipy.stats import kendalltau, pearsonr, rankdata, spearmanr

from nas_core.analysis.stopping import seconds_until
from nas_core.base.code import PROXY
from nas_core.base.documents import Document
from nas_core.config import ProxySettings, Settings
from nas_core.models.compute import Compute
from nas_core.search.identity import Identity, conditions
from nas_core.search.journal import Record

Floats = npt.NDArray[np.float64]

NUM_RESAMPLES = 2000
PERCENTILES = (2.5, 97.5)

Interval = Annotated[tuple[float, float], Field(strict=False)]
Difference = dict[str, JsonValue]
"""The settings of a proxy that differ from the default."""


class ProxyOutcome(Document):
    """What a training on the proxy task gave that was not stopped."""

    remedy = "delete it to train again"

    id: str
    seed: int
    scores: list[float]
    """The reward at each validation."""
    seconds: dict[str, float]
    """Of each part of the training."""
    losses: dict[str, list[float]]
    num_skipped_steps: int


class Agreement(Document):
    """How far two figures of the same architectures rank them alike.

    Kendall's tau-b and Spearman's rho, with 95 % percentile intervals. Where all of a figure are
    equal nothing is ranked: these are None then, and `reason` says why.
    """

    kendall_tau: float | None
    kendall_tau_interval: Interval | None
    spearman_rho: float | None
    spearman_rho_interval: Interval | None
    reason: str | None


class Proxy(Document):
    """A proxy, and what it costs."""

    proxy: str
    settings: Difference
    seconds: float
    """Mean of a candidate."""


class ProxyAgreement(Agreement, Proxy):
    """How a proxy ranks."""


class FidelityReport(Agreement):
    """fidelity.json: how the proxy of the settings ranks, and each other one that was tried."""

    proxy: str
    num_architectures: int
    proxies: list[ProxyAgreement]
    proxy_settings: dict[str, JsonValue]
    train: dict[str, JsonValue]
    data_hash: str


@dataclass(frozen=True)
class ProxyRow:
    """Reward and seconds of an architecture on a proxy."""

    id: str
    proxy: str
    reward: float
    seconds: float


def proxy_identity(
    settings: Settings, data_hash: str, encoder_digest: str, compute: Compute
) -> Identity:
    """All that decides what the proxy gives an architecture, as plain values."""
    return {
        **conditions(settings, data_hash, encoder_digest, compute, PROXY),
        "meta_val": settings.search.meta_val.model_dump(mode="json"),
        "proxy": settings.search.proxy.model_dump(mode="json"),
    }


def spread_by_rank(candidates: Sequence[Record], num: int) -> list[Record]:
    """`num` (2 or more) scored candidates, evenly spaced by rank, best first; all if fewer."""
    scored = [record for record in candidates if record.is_scored]
    ranked = sorted(scored, key=lambda record: (-(record.reward or 0.0), record.index))
    if len(ranked) <= num:
        return ranked
    return [ranked[i * (len(ranked) - 1) // (num - 1)] for i in range(num)]


def proxies_of(variant: ProxySettings, default: ProxySettings) -> dict[str, Difference]:
    """The proxies that one training gives: stage A alone, and the whole.

    The rates of stage B fall to zero at its end, so before that it is no shorter proxy.

    Returns:
        What differs from the default, by name: `A5`, `A5+B1`, `A5+B1 height=72,width=96`. The
        last one is `variant` itself.
    """
    proxies = {}
    for epochs_b in sorted({0, variant.epochs_b}):
        values = variant.model_dump(mode="json") | {"epochs_b": epochs_b}
        differing = {k: v for k, v in values.items() if v != getattr(default, k)}
        stages = f"A{variant.epochs_a}" + (f"+B{epochs_b}" if epochs_b else "")
        others = [f"{k}={v}" for k, v in differing.items() if not k.startswith("epochs_")]
        proxies[f"{stages} {','.join(others)}".strip()] = differing
    return proxies


def proxy_rows(outcome: ProxyOutcome, names: Sequence[str]) -> list[ProxyRow]:
    """Reward and seconds of one architecture on each proxy of `names`, as `proxies_of` has them."""
    seconds = seconds_until(outcome.seconds, len(outcome.scores))
    validations = sorted({0, len(outcome.scores) - 1})
    return [
        ProxyRow(outcome.id, name, outcome.scores[number], seconds[number])
        for name, number in zip(names, validations, strict=True)
    ]


def rank_agreement(
    rewards: Sequence[float],
    scores: Sequence[float],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Agreement:
    """How far two figures of the same architectures rank them alike.

    Args:
        rewards, scores: one an architecture each, in the same order.
        seed: of the bootstrap over architectures.
    """
    x, y = np.asarray(rewards, dtype=float), np.asarray(scores, dtype=float)
    for what, values in (("rewards", x), ("scores of full training", y)):
        if not _vary(values):
            return Agreement(
                kendall_tau=None,
                kendall_tau_interval=None,
                spearman_rho=None,
                spearman_rho_interval=None,
                reason=f"all {what} are equal, so they rank nothing",
            )
    rows = np.random.default_rng(seed).integers(len(x), size=(num_resamples, len(x)))
    rows = rows[[_vary(x[i]) and _vary(y[i]) for i in rows]]
    # Called for each of the resamples, scipy's two would take seconds. They are Pearson's
    # correlation: tau-b of the signs of all differences, rho of the ranks.
    return Agreement(
        kendall_tau=float(kendalltau(x, y).statistic),
        kendall_tau_interval=_interval(_signs(x[rows]), _signs(y[rows])),
        spearman_rho=float(spearmanr(x, y).statistic),
        spearman_rho_interval=_interval(_ranks(x[rows]), _ranks(y[rows])),
        reason=None,
    )


def _interval(x: Floats, y: Floats) -> tuple[float, float]:
    """`PERCENTILES` of Pearson's correlation over the rows of two (R, n)."""
    low, high = np.percentile(pearsonr(x, y, axis=1).statistic, PERCENTILES)
    return float(low), float(high)


def agreement_by_proxy(
    table: pd.DataFrame, proxies: Mapping[str, Difference], *, seed: int
) -> list[ProxyAgreement]:
    """`rank_agreement` and mean seconds of each proxy.

    Args:
        table: a row an architecture and proxy, with proxy, reward, seconds and val_mean_iou.
        proxies: what differs from the default, by name.
        seed: of the bootstrap. All proxies have the same resamples.
    """
    return [
        ProxyAgreement(
            proxy=name,
            settings=settings,
            seconds=float(rows["seconds"].mean()),
            **dict(
                rank_agreement(rows["reward"].tolist(), rows["val_mean_iou"].tolist(), seed=seed)
            ),
        )
        for name, settings in proxies.items()
        for rows in [table[table["proxy"] == name]]
    ]


def _signs(values: Floats) -> Floats:
    """(R, n) to (R, n * n): of the difference of each pair."""
    differences = values[:, :, None] - values[:, None, :]
    return np.sign(differences).reshape(len(values), -1)


def _ranks(values: Floats) -> Floats:
    """(R, n) to (R, n), equal values with their mean rank."""
    ranks: Floats = rankdata(values, axis=1)
    return ranks


def _vary(values: Floats) -> bool:
    return bool((values != values[0]).any())
