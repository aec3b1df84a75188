"""Claims against figures made by hand."""

import pytest

from nas_core.analysis.verification import (
    ArchitectureReport,
    ScoredModel,
    VerificationReport,
    claim_rows,
    class_rows,
    class_table,
    compare_with_claim,
    render,
)
from nas_core.config import DatasetSettings, NetworkSettings
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.claims import CLAIMS, NETWORK, Claim, find_claim
from nas_core.training.record import FinalScores, Training

CLAIM = Claim("arch0", "camvid", "test", 360, 480, 0.639)


def model(seed: int, mean_iou: float, name: str = "arch0", **class_iou: float) -> ScoredModel:
    training = Training(
        label=name, identity="0", started=0.0, commit="abc", id=f"id of {name}",
        num_parameters=274_443, macs=1_040_000_000, seed=seed, splits="train+val",
        device="a processor", finished=1.0, val={}, history=[{}, {}],
    )  # fmt: skip
    test = FinalScores(
        label=name, id=f"id of {name}", mean_iou=mean_iou, frequency_weighted_iou=0.5,
        mean_accuracy=0.5, reward=0.5, class_iou=class_iou,
    )  # fmt: skip
    return ScoredModel(f"{name}-{seed}", training, test)


def report(*architectures: ArchitectureReport) -> VerificationReport:
    return VerificationReport(
        name="camvid", data_hash="a", split="test", size=(360, 480), splits="train+val",
        claims_source="a paper", classes=["sky", "road", "sea"],
        architectures=list(architectures), network={}, train={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "verified"),
    [
        ([0.639], True),
        ([0.6389999], False),
        ([0.629, 0.649001], True),  # one seed below, but not the mean
        ([0.65, 0.60], False),
    ],
)
def test_a_claim_is_verified_where_the_mean_reaches_it(scores: list[float], verified: bool) -> None:
    models = [model(seed, score) for seed, score in enumerate(scores)]
    assert compare_with_claim(models, CLAIM).verified is verified


def test_measured_figures_are_over_the_seeds() -> None:
    models = [model(0, 0.60, sky=0.9, road=0.5), model(7, 0.63, sky=0.8, road=0.7)]
    found = compare_with_claim(models, CLAIM)
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
    rows = claim_rows(
        report(
            compare_with_claim([model(0, 0.60), model(1, 0.63)], CLAIM),
            compare_with_claim([model(0, 0.639)], CLAIM),
            compare_with_claim([model(0, 0.55, "1934a25e40fa")], None),
        )
    )
    assert list(rows[0]) == [
        "model", "metric", "claimed", "measured", "seeds", "parameters", "GMACs", "epochs",
        "trained on", "claim",
    ]  # fmt: skip
    assert [list(row.values()) for row in rows] == [
        ["arch0", "test mIoU", "63.9", "61.50 [60.0..63.0]", "2", "274,443", "1.04",
         "2", "train+val", "not verified"],
        ["arch0", "test mIoU", "63.9", "63.90", "1", "274,443", "1.04",
         "2", "train+val", "verified"],
        ["1934a25e40fa", "test mIoU", "-", "55.00", "1", "274,443", "1.04",
         "2", "train+val", "-"],
    ]  # fmt: skip


def test_classes_stand_beside_it() -> None:
    content = report(
        compare_with_claim([model(0, 0.6, sky=0.9, road=0.5)], CLAIM),
        compare_with_claim([model(0, 0.6, "arch1", sky=0.8, road=0.7)], None),
    )
    assert class_rows(content) == [
        ["sky", "90.00", "80.00"],
        ["road", "50.00", "70.00"],
        ["sea", "-", "-"],
    ]
    text = render(content)
    assert "| arch0 | test mIoU | 63.9 | 60.00 | 1 |" in text
    assert "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |" in text
    assert "| class | arch0 | arch1 |\n| --- | ---: | ---: |\n| sky | 90.00 | 80.00 |" in text
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
