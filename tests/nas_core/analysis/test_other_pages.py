"""The pages of a verification, a comparison and a test of the proxy, of what was really found."""

from pathlib import Path

import pandas as pd
import pytest

from nas_core.analysis.comparison import ComparisonReport, StrategyReport
from nas_core.analysis.rank_agreement import FidelityReport
from nas_core.analysis.report.other_pages import (
    write_comparison_page,
    write_fidelity_page,
    write_verification_page,
)
from nas_core.analysis.verification import VerificationReport
from tests.nas_core.analysis.searches import ROOT
from tests.nas_core.analysis.test_report import data_of, words

DATA = ROOT / "docs" / "data"


def test_claims_stand_beside_what_is_measured(tmp_path: Path) -> None:
    text = write_verification_page(
        tmp_path, VerificationReport.read(DATA / "verify_camvid.json")
    ).read_text()
    told = "arch0 scores 64.33 [64.1..64.5] % where 63.9 % is claimed: reached, not certain"
    assert told in words(text)
    # By seeds, by images, and the looks; the difference is of pairs.
    assert "64.33 [64.1..64.5] 2 61.7..66.9 61.3..66.1 5 274,443" in words(text)
    assert "arch0 - camvid0 -0.96 - -1.9..0.1" in words(text)
    assert "camvid0 scores 65.30 %, without a claim" in words(text)
    charts = data_of(text)["charts"]
    measured, claimed = charts["claims"][0]["data"]
    assert measured["y"] == ["arch0", "arch1", "camvid0"] and claimed["y"] == ["arch0", "arch1"]
    assert measured["x"][0] == pytest.approx(64.334, abs=1e-3)
    # The interval from the images.
    assert measured["error_x"]["array"][0] == pytest.approx(66.08 - 64.334, abs=0.02)
    assert [bars["name"] for bars in charts["class_iou"][0]["data"]] == measured["y"]


def test_strategies_are_compared_over_time(tmp_path: Path) -> None:
    report = ComparisonReport.read(DATA / "compare.json")
    text = write_comparison_page(
        tmp_path, report, pd.read_parquet(DATA / "curves.parquet")
    ).read_text()
    assert "Within 17 min of training a search, evolution found the best network" in words(text)
    views = data_of(text)["charts"]["strategies"]
    assert [view["label"] for view in views] == ["best so far", "mean of the last 20"]
    lines = [trace["name"] for trace in views[0]["data"] if "name" in trace]
    assert lines == ["ppo", "evolution", "random"]


def test_a_comparison_without_a_reward(tmp_path: Path) -> None:
    figures = dict.fromkeys(("best_reward", "mean_reward", "last_quarter_reward"))
    ppo = StrategyReport(seeds=[0], equal_time=figures, equal_candidates=figures)
    known = ComparisonReport.read(DATA / "compare.json")
    report = known.model_copy(update={"strategies": {"ppo": ppo}})
    curves = pd.read_parquet(DATA / "curves.parquet").head(5)
    curves = curves.assign(best_reward=float("nan"), mean_reward=float("nan"))
    text = write_comparison_page(tmp_path, report, curves).read_text()
    assert "No candidate of any search has a reward." in words(text)
    assert "Nothing to show." in words(text) and "ppo 0 none none" in words(text)


def test_the_proxy_stands_beside_full_training(tmp_path: Path) -> None:
    report = FidelityReport.read(DATA / "fidelity.json")
    table = pd.read_parquet(DATA / "fidelity.parquet")
    text = write_fidelity_page(tmp_path, report, table, "camvid").read_text()
    assert "Over 40 architectures, the proxy A5+B2 ranks as full training does" in words(text)
    assert "A5+B2 9.9 0.58 (0.42, 0.72) 0.06 (-0.28, 0.37) 0.77 (0.58, 0.88)" in words(text)
    assert "parameters - -0.07 (-0.28, 0.15)" in words(text)
    charts = data_of(text)["charts"]
    assert charts["scatter"][0]["label"] == "A5+B2"
    assert len(charts["scatter"]) == len(report.proxies) == len(charts["taus"][0]["data"][0]["x"])


def test_a_proxy_without_a_correlation_says_why(tmp_path: Path) -> None:
    known = FidelityReport.read(DATA / "fidelity.json")
    none = dict.fromkeys(
        ("kendall_tau", "kendall_tau_interval", "spearman_rho", "spearman_rho_interval")
    )
    alone = known.proxies[0].model_copy(update={**none, "proxy": "A5", "seconds": 5.0})
    changes = {"proxy": "A5", "proxies": [alone], "reason": "all rewards are equal"}
    report = known.model_copy(update={**none, **changes})
    table = pd.read_parquet(DATA / "fidelity.parquet").query("proxy == 'A5'")
    text = words(write_fidelity_page(tmp_path, report, table, "camvid").read_text())
    assert "no rank correlation is defined: all rewards are equal." in text
    assert "No correlation is defined for any proxy." in text and "A5 5.0 none" in text
