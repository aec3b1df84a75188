"""Whether the proxy task ranks architectures as full training does: the statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import JsonValue
from scipy.stats import kendalltau, pearsonr, rankdata, spearmanr

from nas_core.analysis.reliability import reliability
from nas_core.analysis.stopping import seconds_until
from nas_core.analysis.uncertainty import NUM_RESAMPLES, Floats, Interval, percentile_interval
from nas_core.base.code import PROXY
from nas_core.base.documents import Document
from nas_core.base.errors import TrainingError
from nas_core.config import ProxySettings, Settings
from nas_core.models.compute import Compute
from nas_core.search.identity import Identity, conditions

LEAST_RANKED = 4
"""Architectures, of which fewer rank too little."""
Difference = dict[str, JsonValue]
"""The settings of a proxy that differ from the default."""


class ProxyOutcome(Document):
    """What a training on the proxy task gave that was not stopped."""

    remedy = "delete it to train again"
    error = TrainingError

    id: str
    seed: int
    scores: list[float]
    """The reward at each validation."""
    seconds: dict[str, float]
    """Of each part of the training."""
    losses: dict[str, list[float]]
    num_skipped_steps: int


class RankAgreement(Document):
    """How far two figures of the same architectures rank them alike.

    Kendall's tau-b and Spearman's rho, with 95 % percentile intervals. Where all of a figure are
    equal nothing is ranked: these are None then, and `reason` says why.
    """

    kendall_tau: float | None
    kendall_tau_interval: Interval | None
    spearman_rho: float | None
    spearman_rho_interval: Interval | None
    reason: str | None


class Agreement(RankAgreement):
    """And over the upper half of them by the score of full training.

    These are None where it has fewer than `LEAST_RANKED`, or nothing is ranked in it.
    """

    upper_half_tau: float | None
    upper_half_tau_interval: Interval | None
    upper_half_rho: float | None
    upper_half_rho_interval: Interval | None


class RewardAgreement(Agreement):
    """And how far the reward is the architecture's: see `reliability`, with its intervals.

    It bounds the agreement. None where each was trained on the proxy with one seed.
    """

    reliability: float | None
    reliability_interval: Interval | None
    upper_half_reliability: float | None
    upper_half_reliability_interval: Interval | None


class Proxy(Document):
    """A proxy, and what it costs."""

    proxy: str
    settings: Difference
    seconds: float
    """Mean of a candidate."""


class ProxyAgreement(RewardAgreement, Proxy):
    """How a proxy ranks. With several seeds, tau and rho are the means of those of each."""


class Baseline(Agreement):
    """How a figure ranks that costs no training."""

    figure: str


class HeldOutAgreement(RewardAgreement):
    """How the proxy of the settings ranks against scores on `dataset.held_out`."""

    num_architectures: int
    groups: list[str]
    baselines: list[Baseline]


class FidelityReport(RewardAgreement):
    """fidelity.json: how the proxy of the settings ranks, and each other one that was tried."""

    proxy: str
    num_architectures: int
    num_proxy_seeds: int
    baselines: list[Baseline]
    held_out: HeldOutAgreement | None
    proxies: list[ProxyAgreement]
    proxy_settings: dict[str, JsonValue]
    train: dict[str, JsonValue]
    data_hash: str


@dataclass(frozen=True)
class ProxyRow:
    """Reward and seconds of an architecture on a proxy, with one of the proxy's seeds."""

    id: str
    proxy: str
    proxy_seed: int
    """Its number, from 0."""
    reward: float
    seconds: float


@dataclass(frozen=True)
class FullRow:
    """An architecture that was trained fully, and its scores."""

    name: str
    num_parameters: int
    macs: int
    val_mean_iou: float
    held_out_mean_iou: float | None
    """None where no recording was held out."""


def proxy_identity(
    settings: Settings, data_hash: str, encoder_digest: str, compute: Compute
) -> Identity:
    """All that decides what the proxy gives an architecture, as plain values."""
    return {
        **conditions(settings, data_hash, encoder_digest, compute, PROXY),
        "meta_val": settings.search.meta_val.model_dump(mode="json"),
        "proxy": settings.search.proxy.model_dump(mode="json"),
    }


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


def proxy_rows(outcome: ProxyOutcome, proxy_seed: int, names: Sequence[str]) -> list[ProxyRow]:
    """Reward and seconds of one architecture on each proxy of `names`, as `proxies_of` has them."""
    seconds = seconds_until(outcome.seconds, len(outcome.scores))
    validations = sorted({0, len(outcome.scores) - 1})
    return [
        ProxyRow(outcome.id, name, proxy_seed, outcome.scores[number], seconds[number])
        for name, number in zip(names, validations, strict=True)
    ]


def rank_agreement(
    rewards: Sequence[Sequence[float]],
    scores: Sequence[float],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> RankAgreement:
    """How far rewards rank architectures as their scores do.

    The intervals hold what they say: see benchmarks/coverage.py.

    Args:
        rewards: (N, K), of each architecture one a seed; tau and rho are means over the seeds.
        scores: (N,), in the same order.
        seed: of the bootstrap over architectures.
    """
    x, y = np.asarray(rewards, dtype=float).T, np.asarray(scores, dtype=float)
    for what, equal in (
        ("rewards", not all(map(_vary, x))),
        ("scores of full training", not _vary(y)),
    ):
        if equal:
            return _unranked(f"all {what} are equal, so they rank nothing")
    rows = np.random.default_rng(seed).integers(len(y), size=(num_resamples, len(y)))
    rows = rows[[_vary(y[i]) and all(_vary(run[i]) for run in x) for i in rows]]
    # Called for each of the resamples, scipy's two would take seconds. They are Pearson's
    # correlation: tau-b of the signs of all differences, rho of the ranks.
    return RankAgreement(
        kendall_tau=float(np.mean([kendalltau(run, y).statistic for run in x])),
        kendall_tau_interval=_interval([_signs(run[rows]) for run in x], _signs(y[rows])),
        spearman_rho=float(np.mean([spearmanr(run, y).statistic for run in x])),
        spearman_rho_interval=_interval([_ranks(run[rows]) for run in x], _ranks(y[rows])),
        reason=None,
    )


def _unranked(reason: str) -> RankAgreement:
    return RankAgreement(
        kendall_tau=None,
        kendall_tau_interval=None,
        spearman_rho=None,
        spearman_rho_interval=None,
        reason=reason,
    )


def _interval(runs: Sequence[Floats], y: Floats) -> Interval:
    """Of Pearson's correlation over the rows of (R, n), the mean over runs."""
    return percentile_interval(np.mean([pearsonr(x, y, axis=1).statistic for x in runs], axis=0))


def agreement(
    rewards: Sequence[Sequence[float]], scores: Sequence[float], *, seed: int
) -> Agreement:
    """See `rank_agreement`. The interval of the upper half is of those that are in it."""
    whole = rank_agreement(rewards, scores, seed=seed)
    best = _upper_half(scores)
    upper = _unranked("too few")
    if len(best) >= LEAST_RANKED:
        upper = rank_agreement([rewards[i] for i in best], [scores[i] for i in best], seed=seed)
    return Agreement(
        **dict(whole),
        upper_half_tau=upper.kendall_tau,
        upper_half_tau_interval=upper.kendall_tau_interval,
        upper_half_rho=upper.spearman_rho,
        upper_half_rho_interval=upper.spearman_rho_interval,
    )


def reward_agreement(
    rewards: Sequence[Sequence[float]], scores: Sequence[float], *, seed: int
) -> RewardAgreement:
    """`agreement`, and the reliability of the rewards over the same architectures."""
    upper = [rewards[i] for i in _upper_half(scores)]
    return RewardAgreement(
        **dict(agreement(rewards, scores, seed=seed)),
        **_reliability("", rewards, seed),
        **_reliability("upper_half_", upper, seed),
    )


def _reliability(name: str, rewards: Sequence[Sequence[float]], seed: int) -> dict[str, Any]:
    share = interval = None
    if len(rewards) >= LEAST_RANKED and len(rewards[0]) > 1:
        found = reliability(rewards, seed=seed)
        share, interval = found.reliability, found.reliability_interval
    return {f"{name}reliability": share, f"{name}reliability_interval": interval}


def _upper_half(scores: Sequence[float]) -> list[int]:
    best = np.argsort(-np.asarray(scores), kind="stable")[: len(scores) // 2]
    return [int(row) for row in best]


def agreement_by_proxy(
    table: pd.DataFrame,
    proxies: Mapping[str, Difference],
    *,
    seed: int,
    score: str = "val_mean_iou",
) -> list[ProxyAgreement]:
    """`reward_agreement` and mean seconds of each proxy.

    Args:
        table: a row an architecture, proxy and seed of the proxy, with id, proxy, reward, seconds
            and the score.
        proxies: what differs from the default, by name.
        seed: of the bootstrap. All proxies have the same resamples.
        score: the column of the scores of full training.
    """
    found = []
    for name, settings in proxies.items():
        rows = table[table["proxy"] == name]
        by_id = rows.groupby("id", sort=False)
        judged = reward_agreement(
            by_id["reward"].agg(list).tolist(), by_id[score].first().tolist(), seed=seed
        )
        seconds = float(rows["seconds"].mean())
        found.append(ProxyAgreement(proxy=name, settings=settings, seconds=seconds, **dict(judged)))
    return found


def baselines(table: pd.DataFrame, *, seed: int, score: str = "val_mean_iou") -> list[Baseline]:
    """How the sizes of the architectures rank them; see `agreement_by_proxy`."""
    known = table.drop_duplicates("id")
    return [
        Baseline(
            figure=figure,
            **dict(agreement(known[[column]].values.tolist(), known[score].tolist(), seed=seed)),
        )
        for figure, column in (("parameters", "num_parameters"), ("MACs", "macs"))
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
