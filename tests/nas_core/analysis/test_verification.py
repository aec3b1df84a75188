"""Claims against figures made by hand."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from flows.cli.tables import print_verification
from nas_core.analysis.uncertainty import COUNT_COLUMNS as COLUMNS
from nas_core.analysis.verification import (
    ArchitectureReport,
    ScoredModel,
    VerificationReport,
    claim_rows,
    claim_table,
    class_rows,
    class_table,
    compare_pairs,
    compare_with_claim,
    render,
    verdict,
)
from nas_core.config import DatasetSettings, NetworkSettings, Settings
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.claims import CLAIMS, NETWORK, Claim, find_claim
from nas_core.training.record import FinalScores, Training

CLAIM = Claim("arch0", "camvid", "test", 360, 480, 0.639)


IMAGES = [f"frame{number}" for number in range(40)]


def model(
    seed: int, mean_iou: float, name: str = "arch0", noise: float = 0.0, **class_iou: float
) -> ScoredModel:
    """With as many images as let the split vary by `noise` around a score."""
    training = Training(
        label=name, identity="0", started=0.0, commit="abc", id=f"id-of-{name}",
        num_parameters=274_443, macs=1_040_000_000, seed=seed, splits="train+val",
        device="a processor", finished=1.0, val={}, history=[{}, {}],
    )  # fmt: skip
    test = FinalScores(
        label=name, id=f"id-of-{name}", mean_iou=mean_iou, frequency_weighted_iou=0.5,
        mean_accuracy=0.5, reward=0.5, class_iou=class_iou,
    )  # fmt: skip
    # IoU is hits of 10,000 where nothing else is taken for the class.
    hits = [round(1e4 * (mean_iou + noise * (-1) ** index)) for index in range(len(IMAGES))]
    rows = [
        (image, image, "sky", hit, 10_000, hit) for image, hit in zip(IMAGES, hits, strict=True)
    ]
    return ScoredModel(f"{name}-{seed}", training, test, pd.DataFrame(rows, columns=[*COLUMNS]))


def judged(
    models: list[ScoredModel], claim: Claim | None = CLAIM, looks: int | None = 3
) -> ArchitectureReport:
    return compare_with_claim(models, claim, looks, seed=0)


def report(*architectures: ArchitectureReport) -> VerificationReport:
    return VerificationReport(
        name="camvid", data_hash="a", split="test", size=(360, 480), splits="train+val",
        claims_source="a paper", classes=["sky", "road", "sea"],
        architectures=list(architectures), differences=[], network={}, train={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "noise", "expected"),
    [
        ([0.6389999], 0.0, "not reached"),
        ([0.65, 0.60], 0.0, "not reached"),
        ([0.70], 0.0, "reached, not certain"),  # one seed says nothing of others
        ([0.629, 0.649001], 0.0, "reached, not certain"),
        ([0.650, 0.651, 0.649], 0.0, "reached"),
        ([0.650, 0.651, 0.649], 0.1, "reached, not certain"),  # by the images
        ([0.650, 0.651, 0.600], 0.0, "not reached"),
    ],
)
def test_a_claim_is_reached_for_certain_by_more_than_chance(
    scores: list[float], noise: float, expected: str
) -> None:
    models = [model(seed, score, noise=noise) for seed, score in enumerate(scores)]
    assert judged(models).verdict == expected
    assert judged(models, None).verdict is None


def test_the_two_causes_of_error_add_in_squares() -> None:
    # 3 and 4 points below the mean are 5.
    intervals = (0.62, 0.68), (0.61, 0.69)
    assert verdict(0.65, 0.599, *intervals) == "reached"
    assert verdict(0.65, 0.601, *intervals) == "reached, not certain"
    assert verdict(0.65, 0.65, (0.65, 0.65), None) == "reached, not certain"


def test_the_interval_of_the_split_is_of_its_images() -> None:
    found = judged([model(0, 0.6, noise=0.1)])
    assert found.seeds_interval is None and found.split_interval is not None
    low, high = found.split_interval
    # 1.96 standard errors of 0.1 / sqrt(40).
    assert (high - low) / 2 == pytest.approx(1.96 * 0.1 / 40**0.5, rel=0.1)
    few = replace(model(0, 0.6), counts=model(0, 0.6).counts.head(5))
    assert judged([few]).split_interval is None


def test_pairs_are_compared_over_the_same_images() -> None:
    noisy = {
        "arch0": [model(0, 0.60, noise=0.1), model(1, 0.61, noise=0.1)],
        "arch1": [model(0, 0.62, "arch1", noise=0.1)],
        "mine": [model(0, 0.60, "mine", noise=0.1), model(1, 0.59, "mine", noise=0.1)],
    }
    found = compare_pairs(noisy, seed=0)
    assert [(one.first, one.second) for one in found] == [
        ("arch0", "arch1"), ("arch0", "mine"), ("arch1", "mine"),
    ]  # fmt: skip
    assert found[0].mean == pytest.approx(0.605 - 0.62)
    assert found[0].split_interval == pytest.approx((-0.015, -0.015), abs=1e-4)
    assert found[0].seeds_interval is None and found[1].seeds_interval is not None


def test_measured_figures_are_over_the_seeds() -> None:
    models = [model(0, 0.60, sky=0.9, road=0.5), model(7, 0.63, sky=0.8, road=0.7)]
    found = judged(models)
    assert found.measured.model_dump() == pytest.approx({"mean": 0.615, "min": 0.60, "max": 0.63})
    assert found.class_iou["road"].model_dump() == pytest.approx(
        {"mean": 0.6, "min": 0.5, "max": 0.7}
    )
    assert [(one.seed, one.training) for one in found.models] == [
        (0, "arch0-0"), (7, "arch0-7"),
    ]  # fmt: skip
    assert found.models[1].scores.mean_iou == 0.63
    assert (found.claimed, found.num_parameters) == (0.639, 274_443)
    table = class_table([found])
    assert table.values.tolist() == [
        ["arch0", 0, "sky", 0.9], ["arch0", 0, "road", 0.5],
        ["arch0", 7, "sky", 0.8], ["arch0", 7, "road", 0.7],
    ]  # fmt: skip


def test_the_table_says_what_was_claimed_and_what_was_measured() -> None:
    content = report(
        judged([model(0, 0.60), model(1, 0.63)]),
        judged([model(0, 0.639)]),
        judged([model(0, 0.55, "1934a25e40fa")], None, None),
    )
    rows = claim_rows(content)
    assert list(rows[0]) == [
        "model", "metric", "claimed", "measured", "seeds", "95 % by seeds", "95 % by images",
        "looks", "parameters", "GMACs", "epochs", "trained on", "claim",
    ]  # fmt: skip
    assert [list(row.values()) for row in rows] == [
        ["arch0", "test mIoU", "63.9", "61.50 [60.0..63.0]", "2", "42.4..80.6", "61.5..61.5", "3",
         "274,443", "1.04", "2", "train+val", "not reached"],
        ["arch0", "test mIoU", "63.9", "63.90", "1", "-", "63.9..63.9", "3",
         "274,443", "1.04", "2", "train+val", "reached, not certain"],
        ["1934a25e40fa", "test mIoU", "-", "55.00", "1", "-", "55.0..55.0", "-",
         "274,443", "1.04", "2", "train+val", "-"],
    ]  # fmt: skip
    table = claim_table(content.architectures)
    assert table["seeds_low"].tolist()[0] == pytest.approx(0.4244, abs=1e-4)
    assert table["seeds_low"].isna().tolist() == [False, True, True]
    assert table["looks"].tolist()[:2] == [3, 3]


def test_the_table_fits_a_terminal() -> None:
    models = {
        name: [model(0, 0.6, name, sky=0.6), model(1, 0.7, name, sky=0.7)]
        for name in ("arch0", "1934a25e40fa")
    }
    known = report(*(judged(of) for of in models.values()))
    content = known.model_copy(update={"differences": compare_pairs(models, seed=0)})
    console = Console(record=True, width=80)
    print_verification(console, Path("/project"), Settings(), content)
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    for cell in ("1934a25e40fa", "65.00", "[60.0..70.0]", "1.5..100.0", "arch0 - 1934a25e40fa",
                 "certain", "274,443", "1.04"):  # fmt: skip
        assert cell in shown


def test_classes_stand_beside_it() -> None:
    content = report(
        judged([model(0, 0.6, sky=0.9, road=0.5)]),
        judged([model(0, 0.6, "arch1", sky=0.8, road=0.7)], None),
    )
    assert class_rows(content) == [
        ["sky", "90.00 (60.0..60.0)", "80.00 (60.0..60.0)"],
        ["road", "50.00", "70.00"],
        ["sea", "-", "-"],
    ]
    text = render(content)
    assert "| arch0 | test mIoU | 63.9 | 60.00 | 1 | - | 60.0..60.0 | 3 |" in text
    assert "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |" in text
    assert "Differences" not in text
    assert "| class | arch0 | arch1 |\n| --- | ---: | ---: |\n| sky | 90.00 (60.0..60.0) |" in text
    assert "a paper" in text and "test at 480x360" in text


def test_a_claim_is_of_one_network_on_one_split_at_one_size() -> None:
    arch0 = ARCHITECTURES["arch0"]
    claim = find_claim(arch0, NETWORK, "camvid", "test", 360, 480)
    assert claim is not None and claim.mean_iou == 0.639
    for other in (
        (arch0, NETWORK, "camvid", "val", 360, 480),
        (arch0, NETWORK, "camvid", "test", 720, 960),
        (arch0, NETWORK, "synthetic", "test", 360, 480),
        (arch0, NetworkSettings(agg_size=65), "camvid", "test", 360, 480),
    ):
        assert find_claim(*other) is None


def test_every_claim_can_be_found_with_the_default_network() -> None:
    kinds = DatasetSettings.model_json_schema()["properties"]["kind"]["enum"]
    for claim in CLAIMS:
        genotype = ARCHITECTURES[claim.architecture]
        size = (claim.height, claim.width)
        assert claim.dataset in kinds
        assert find_claim(genotype, NetworkSettings(), claim.dataset, claim.split, *size) == claim
