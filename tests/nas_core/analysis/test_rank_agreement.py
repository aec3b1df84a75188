import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kendalltau, spearmanr

from nas_core.analysis.rank_agreement import (
    ProxyOutcome,
    ProxyRow,
    agreement,
    agreement_by_proxy,
    baselines,
    proxies_of,
    proxy_identity,
    proxy_rows,
    rank_agreement,
    reward_agreement,
)
from nas_core.analysis.reliability import reliability
from nas_core.config import MetaValSettings, ProxySettings, SearchSettings, Settings
from nas_core.models.compute import Compute

CPU = Compute(torch.device("cpu"), bf16=False)
DEFAULT = ProxySettings()


def column(rewards: Sequence[float]) -> list[list[float]]:
    """With one seed of the proxy."""
    return [[reward] for reward in rewards]


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_and_intervals_are_those_of_scipy(ties: bool) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=15)
    y = x + rng.normal(size=15)
    if ties:
        x, y = x.round(), y.round()
    found = rank_agreement(x[:, None].tolist(), y.tolist(), seed=9, num_resamples=300)
    assert found.kendall_tau == pytest.approx(kendalltau(x, y, variant="b").statistic)
    assert found.spearman_rho == pytest.approx(spearmanr(x, y).statistic)
    rows = np.random.default_rng(9).integers(15, size=(300, 15))
    for name, statistic in (("kendall_tau", kendalltau), ("spearman_rho", spearmanr)):
        expected = np.percentile([statistic(x[i], y[i]).statistic for i in rows], (2.5, 97.5))
        assert getattr(found, f"{name}_interval") == pytest.approx(list(expected))
        low, high = getattr(found, f"{name}_interval")
        assert -1 <= low < getattr(found, name) < high <= 1
    assert found.reason is None


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, -1.0)])
def test_perfect_and_reversed_rankings(sign: int, expected: float) -> None:
    x = [0.1, 0.4, 0.2, 0.9, 0.5]
    found = rank_agreement(column(x), [sign * value**3 for value in x], seed=0, num_resamples=200)
    for name in ("kendall_tau", "spearman_rho"):
        assert getattr(found, name) == pytest.approx(expected)
        assert getattr(found, f"{name}_interval") == pytest.approx([expected, expected])


def test_ties_count_as_tau_b_counts_them() -> None:
    # 4 concordant pairs of 6, one tied in x and another in y: 4 / 5 by tau-b, not 4 / 6.
    found = rank_agreement(column([1, 1, 2, 3]), [1, 2, 3, 3], seed=0, num_resamples=50)
    assert found.kendall_tau == pytest.approx(4 / 5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("x", "y", "what"),
    [([1, 1, 1, 1], [1, 2, 3, 4], "rewards"), ([1, 2, 3, 4], [2, 2, 2, 2], "full training")],
)
def test_what_is_constant_has_no_rank_and_a_reason(
    x: list[float], y: list[float], what: str
) -> None:
    found = rank_agreement(column(x), y, seed=0)
    assert found.kendall_tau is None and found.spearman_rho_interval is None
    assert what in found.reason and "equal" in found.reason
    json.dumps(found.model_dump(), allow_nan=False)


@pytest.mark.filterwarnings("error")
def test_degenerate_resamples_are_left_out() -> None:
    # About half of all resamples of these have one value of x only.
    found = rank_agreement(
        column([1, 1, 1, 1, 1, 2]), [1, 2, 3, 4, 5, 6], seed=0, num_resamples=300
    )
    assert np.isfinite([*found.kendall_tau_interval, *found.spearman_rho_interval]).all()


def test_the_same_seed_gives_the_same_interval() -> None:
    x, y = [1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5]
    first, again, other = (
        rank_agreement(column(x), y, seed=s, num_resamples=100) for s in (1, 1, 2)
    )
    assert first == again != other


def test_a_training_gives_a_proxy_after_stage_a_and_at_its_end() -> None:
    assert proxies_of(DEFAULT, DEFAULT) == {"A5": {"epochs_b": 0}, "A5+B2": {}}
    assert proxies_of(DEFAULT.model_copy(update={"epochs_b": 0}), DEFAULT) == {
        "A5": {"epochs_b": 0}
    }
    changed = {"height": 80, "epochs_a": 8, "epochs_b": 1}
    smaller = DEFAULT.model_copy(update=changed)
    assert proxies_of(smaller, DEFAULT) == {
        "A8 height=80": {**changed, "epochs_b": 0},
        "A8+B1 height=80": changed,
    }


def test_longer_variants_have_the_same_stage_a() -> None:
    longer = proxies_of(DEFAULT.model_copy(update={"epochs_b": 4}), DEFAULT)
    assert longer == {"A5": {"epochs_b": 0}, "A5+B4": {"epochs_b": 4}}


def test_the_settings_of_a_proxy_give_it_back() -> None:
    variant = DEFAULT.model_copy(update={"width": 96, "crops_per_image": 2})
    for name, settings in proxies_of(variant, DEFAULT).items():
        again = ProxySettings.model_validate(DEFAULT.model_dump() | settings)
        assert list(proxies_of(again, DEFAULT))[-1] == name


def test_rows_have_the_seconds_until_each_validation() -> None:
    outcome = ProxyOutcome(
        id="a",
        seed=0,
        scores=[0.3, 0.4, 0.5],
        seconds={"stage_a": 5.0, "stage_b": 4.0, "validation": 3.0},
        losses={},
        num_skipped_steps=0,
    )
    assert proxy_rows(outcome, 1, ["A5", "A5+B2"]) == [
        ProxyRow("a", "A5", 1, 0.3, 6.0),
        ProxyRow("a", "A5+B2", 1, 0.5, 12.0),
    ]
    alone = outcome.model_copy(
        update={"scores": [0.3], "seconds": {"stage_a": 5.0, "validation": 1.0}}
    )
    assert proxy_rows(alone, 0, ["A5"]) == [ProxyRow("a", "A5", 0, 0.3, 6.0)]


def test_each_proxy_is_judged_by_its_own_rows() -> None:
    val = [0.1, 0.2, 0.3, 0.4]
    table = pd.DataFrame(
        {
            "id": [*"abcd", *"abcd"],
            "proxy": ["A5"] * 4 + ["A5+B1"] * 4,
            "reward": [*val, *reversed(val)],
            "seconds": [1.0, 1, 1, 5, 4, 4, 4, 4],
            "val_mean_iou": val * 2,
        }
    )
    first, second = agreement_by_proxy(table, {"A5": {"epochs_b": 0}, "A5+B1": {}}, seed=0)
    assert (first.proxy, first.settings, first.seconds) == ("A5", {"epochs_b": 0}, 2.0)
    assert first.kendall_tau == pytest.approx(1) and second.kendall_tau == pytest.approx(-1)


def test_several_seeds_give_the_mean_of_their_correlations() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(size=20)
    runs = y[:, None] + rng.normal(size=(20, 3))
    found = rank_agreement(runs.tolist(), y.tolist(), seed=0, num_resamples=500)
    taus = [kendalltau(run, y).statistic for run in runs.T]
    assert found.kendall_tau == pytest.approx(np.mean(taus))
    low, high = found.kendall_tau_interval
    assert low < np.mean(taus) < high


def test_the_upper_half_is_that_of_the_scores() -> None:
    # Bad ones are known for bad; among the good the reward is reversed.
    scores = [0.1, 0.2, 0.3, 0.4, 0.8, 0.81, 0.82, 0.83]
    rewards = column([0.1, 0.2, 0.3, 0.4, 0.63, 0.62, 0.61, 0.6])
    found = agreement(rewards, scores, seed=0)
    assert found.kendall_tau == pytest.approx(16 / 28)
    assert found.upper_half_tau == pytest.approx(-1)
    assert found.upper_half_tau_interval == pytest.approx((-1, -1))
    assert found.upper_half_rho == pytest.approx(-1)
    few = agreement(rewards[1:], scores[1:], seed=0)
    assert few.kendall_tau is not None and few.upper_half_tau is None


def test_reliability_is_beside_it_where_there_are_several_seeds() -> None:
    rng = np.random.default_rng(0)
    scores = np.linspace(0.3, 0.7, 40)
    rewards = scores[:, None] + rng.normal(0, 0.02, (40, 3))
    found = reward_agreement(rewards.tolist(), scores.tolist(), seed=0)
    whole, upper = (
        reliability(rewards[rows].tolist(), seed=0) for rows in (slice(40), slice(20, 40))
    )
    assert found.reliability == pytest.approx(whole.reliability)
    assert found.upper_half_reliability == pytest.approx(upper.reliability)
    assert found.upper_half_reliability < found.reliability > 0.9
    alone = reward_agreement(rewards[:, :1].tolist(), scores.tolist(), seed=0)
    assert alone.reliability is None and alone.upper_half_reliability_interval is None


def test_sizes_are_judged_as_rewards_are() -> None:
    table = pd.DataFrame(
        {
            "id": [*"abcd", *"abcd"],
            "proxy": ["A5"] * 4 + ["A5+B1"] * 4,
            "num_parameters": [1, 2, 3, 4] * 2,
            "macs": [5, 5, 5, 5] * 2,
            "val_mean_iou": [0.1, 0.3, 0.2, 0.4] * 2,
        }
    )
    parameters, macs = baselines(table, seed=0)
    assert (parameters.figure, macs.figure) == ("parameters", "MACs")
    assert parameters.kendall_tau == pytest.approx(4 / 6)
    assert macs.kendall_tau is None and "equal" in str(macs.reason)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"search": SearchSettings(meta_val=MetaValSettings(fraction=0.2))},
        {"search": SearchSettings(proxy=ProxySettings(height=80))},
    ],
)
def test_what_decides_the_reward_names_the_folder(change: dict[str, Any]) -> None:
    settings = Settings()
    identity = proxy_identity(settings, "data", "encoder", CPU)
    assert proxy_identity(settings.model_copy(update=change), "data", "encoder", CPU) != identity
    assert proxy_identity(settings, "other", "encoder", CPU) != identity
    assert proxy_identity(settings, "data", "other", CPU) != identity
    half = Compute(torch.device("cpu"), bf16=True)
    assert proxy_identity(settings, "data", "encoder", half) != identity


@pytest.mark.parametrize(
    "change",
    [{"search": SearchSettings(num_candidates=99, strategy="random")}, {"name": "other"}],
)
def test_what_does_not_decide_it_does_not(change: dict[str, Any]) -> None:
    changed = Settings().model_copy(update=change)
    assert proxy_identity(changed, "d", "e", CPU) == proxy_identity(Settings(), "d", "e", CPU)
