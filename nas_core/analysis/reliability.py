"""How far the rewards of networks are due to the networks: several runs of each, as variances."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.stats import kendalltau

from nas_core.analysis.uncertainty import NUM_RESAMPLES, Floats, Interval, percentile_interval
from nas_core.base.documents import Document


class Variances(Document):
    """How far some networks' rewards are theirs.

    Attributes:
        sd_within: standard deviation of one network's rewards.
        sd_between: that of the networks' true means, 0 where the estimate of its square is
            negative.
        reliability: the share of the variance that is between networks, in [0, 1].
        reliability_interval: 95 %, by percentiles of the bootstrap.
        kendall_tau: mean tau-b between two runs; None where a run ranks nothing.
    """

    num_networks: int
    sd_within: float
    sd_between: float
    reliability: float
    reliability_interval: Interval
    kendall_tau: float | None


class Reliability(Variances):
    """Of all networks, and of the half with the highest means."""

    upper_half: Variances


def reliability(
    rewards: Sequence[Sequence[float]], *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Reliability:
    """The share of the variance of one run's rewards that is between networks.

    It is the intraclass correlation ICC(1) of a one-way analysis of variance (Shrout and Fleiss,
    Psychological Bulletin 86, 1979), and bounds how well one run can rank.

    Args:
        rewards: (N, K): of N networks, four or more, in K runs each, two or more, that differ in
            their seed.
        seed: of the bootstrap over networks.

    Returns:
        Its upper half are the N // 2 networks of the highest means: each resample has its own.

    Raises:
        ValueError: fewer networks or runs.
    """
    values = np.asarray(rewards, dtype=float)
    if values.ndim != 2 or values.shape[0] < 4 or values.shape[1] < 2:
        raise ValueError(f"rewards of shape {values.shape}: four networks and two runs at least")
    rows = np.random.default_rng(seed).integers(len(values), size=(num_resamples, len(values)))
    resampled = values[rows]
    upper, resampled_upper = _upper_half(values[None])[0], _upper_half(resampled)
    return Reliability(
        **dict(_variances_of(values, resampled)), upper_half=_variances_of(upper, resampled_upper)
    )


def _variances_of(values: Floats, resampled: Floats) -> Variances:
    within, between = (float(variance[0]) for variance in _variances(values[None]))
    shares = _share(*_variances(resampled))
    return Variances(
        num_networks=len(values),
        sd_within=within**0.5,
        sd_between=between**0.5,
        reliability=float(_share(np.array(within), np.array(between))),
        reliability_interval=percentile_interval(shares),
        kendall_tau=_mean_tau(values),
    )


def _variances(values: Floats) -> tuple[Floats, Floats]:
    """(R, N, K) to (R,) and (R,): the variance within and between networks."""
    within = values.var(axis=2, ddof=1).mean(axis=1)
    of_means = values.mean(axis=2).var(axis=1, ddof=1)
    return within, np.maximum(0.0, of_means - within / values.shape[2])


def _share(within: Floats, between: Floats) -> Floats:
    total = within + between
    share: Floats = np.divide(between, total, out=np.zeros_like(total), where=total > 0)
    return share


def _upper_half(values: Floats) -> Floats:
    """(R, N, K) to (R, N // 2, K)."""
    best = np.argsort(-values.mean(axis=2), axis=1, kind="stable")[:, : values.shape[1] // 2]
    return np.take_along_axis(values, best[:, :, None], axis=1)


def _mean_tau(values: Floats) -> float | None:
    pairs = combinations(range(values.shape[1]), 2)
    taus = [kendalltau(values[:, one], values[:, other]).statistic for one, other in pairs]
    return None if np.isnan(taus).any() else float(np.mean(taus))
