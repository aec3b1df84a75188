"""Whether the proxy task ranks architectures as full training does: the statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import kendalltau, pearsonr, rankdata, spearmanr

from nas_core.analysis.stopping import seconds_until
from nas_core.code import PROXY
from nas_core.compute import Compute
from nas_core.config import ProxySettings, Settings
from nas_core.search.identity import conditions
from nas_core.search.journal import Record

Floats = npt.NDArray[np.float64]

NUM_RESAMPLES = 2000
PERCENTILES = (2.5, 97.5)


def proxy_identity(
    settings: Settings, data_hash: str, encoder_digest: str, compute: Compute
) -> dict[str, Any]:
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


def proxies_of(variant: ProxySettings, default: ProxySettings) -> dict[str, dict[str, Any]]:
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


def proxy_rows(outcome: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Reward and seconds of one architecture on each proxy of `names`.

    Args:
        outcome: of a training that was not stopped: its `scores` and `seconds`.
        names: as `proxies_of` gives them.
    """
    scores = outcome["scores"]
    seconds = seconds_until(outcome["seconds"], len(scores))
    validations = sorted({0, len(scores) - 1})
    return [
        {"proxy": name, "reward": scores[number], "seconds": seconds[number]}
        for name, number in zip(names, validations, strict=True)
    ]


def rank_agreement(
    rewards: Sequence[float],
    scores: Sequence[float],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Any]:
    """How far two figures of the same architectures rank them alike.

    Args:
        rewards, scores: one an architecture each, in the same order.
        seed: of the bootstrap over architectures.

    Returns:
        kendall_tau (tau-b), spearman_rho, and of each a 95 % percentile interval,
        kendall_tau_interval and spearman_rho_interval. Where all rewards or all scores are equal
        nothing is ranked: these are None then, and `reason` says why.
    """
    x, y = np.asarray(rewards, dtype=float), np.asarray(scores, dtype=float)
    names = ("kendall_tau", "spearman_rho")
    result: dict[str, Any] = dict.fromkeys(
        [key for name in names for key in (name, f"{name}_interval")]
    )
    for what, values in (("rewards", x), ("scores of full training", y)):
        if not _vary(values):
            return result | {"reason": f"all {what} are equal, so they rank nothing"}
    rows = np.random.default_rng(seed).integers(len(x), size=(num_resamples, len(x)))
    rows = rows[[_vary(x[i]) and _vary(y[i]) for i in rows]]
    result["kendall_tau"] = float(kendalltau(x, y).statistic)
    result["spearman_rho"] = float(spearmanr(x, y).statistic)
    # Called for each of the resamples, these two would take seconds. They are Pearson's
    # correlation: tau-b of the signs of all differences, rho of the ranks.
    for name, values_of in (("kendall_tau", _signs), ("spearman_rho", _ranks)):
        resampled = pearsonr(values_of(x[rows]), values_of(y[rows]), axis=1).statistic
        result[f"{name}_interval"] = [float(v) for v in np.percentile(resampled, PERCENTILES)]
    return result | {"reason": None}


def agreement_by_proxy(
    table: pd.DataFrame, proxies: Mapping[str, Mapping[str, Any]], *, seed: int
) -> list[dict[str, Any]]:
    """`rank_agreement` and mean seconds of each proxy.

    Args:
        table: a row an architecture and proxy, with proxy, reward, seconds and val_mean_iou.
        proxies: what differs from the default, by name.
        seed: of the bootstrap. All proxies have the same resamples.
    """
    return [
        {
            "proxy": name,
            "settings": dict(settings),
            "seconds": float(rows["seconds"].mean()),
            **rank_agreement(rows["reward"].tolist(), rows["val_mean_iou"].tolist(), seed=seed),
        }
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
