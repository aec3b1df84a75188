"""How proxies and sizes rank architectures, in tables. Without torch, which takes seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from nas_core.analysis.uncertainty import Interval

if TYPE_CHECKING:
    from nas_core.analysis.rank_agreement import Agreement, FidelityReport, RewardAgreement

WORDS = ("ranked by",)
"""The columns that hold no numbers."""
MEANING = (
    "Tau and rho against the score of full training, over all architectures and over the upper "
    "half by that score, which has no figures below 4; with several proxy seeds, means over them. "
    "Reliability is the share of a reward's variance that is between architectures: it bounds tau."
)


def ranking_rows(report: FidelityReport) -> list[dict[str, str]]:
    """A row a proxy and a size, cells by heading, against val mIoU of full training."""
    several = report.num_proxy_seeds > 1
    found = [_row(one.proxy, one, one, f"{one.seconds:.1f}", several) for one in report.proxies]
    return found + [_row(one.figure, one, None, "-", several) for one in report.baselines]


def held_out_rows(report: FidelityReport) -> list[dict[str, str]]:
    """The same of the configured proxy against mIoU on what was held out, if anything was."""
    if report.held_out is None:
        return []
    several, judged = report.num_proxy_seeds > 1, report.held_out
    seconds = next(f"{one.seconds:.1f}" for one in report.proxies if one.proxy == report.proxy)
    found = [_row(report.proxy, judged, judged, seconds, several)]
    return found + [_row(one.figure, one, None, "-", several) for one in judged.baselines]


def mean_rewards(table: pd.DataFrame) -> pd.DataFrame:
    """A row an architecture and proxy, with the mean of its rewards over the proxy's seeds."""
    means = table.groupby(["proxy", "id"], sort=False)["reward"].transform("mean")
    return table.assign(reward=means).drop_duplicates(["proxy", "id"])


def _row(
    name: str, of: Agreement, reward: RewardAgreement | None, seconds: str, several: bool
) -> dict[str, str]:
    row = {
        "ranked by": name,
        "time, s": seconds,
        "tau": _estimate(of.kendall_tau, of.kendall_tau_interval),
        "tau, upper half": _estimate(of.upper_half_tau, of.upper_half_tau_interval),
        "rho": _estimate(of.spearman_rho, of.spearman_rho_interval),
        "rho, upper half": _estimate(of.upper_half_rho, of.upper_half_rho_interval),
    }
    if several:
        row |= {"reliability": "-", "reliability, upper half": "-"}
    if several and reward is not None:
        row["reliability"] = _estimate(reward.reliability, reward.reliability_interval)
        row["reliability, upper half"] = _estimate(
            reward.upper_half_reliability, reward.upper_half_reliability_interval
        )
    return row


def _estimate(value: float | None, interval: Interval | None) -> str:
    if value is None or interval is None:
        return "none"
    return f"{value:.2f} ({interval[0]:.2f}, {interval[1]:.2f})"
