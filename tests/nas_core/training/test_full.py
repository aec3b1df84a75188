import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas_core.base.errors import CandidateError, RunError, WeightsError
from nas_core.config import ComputeSettings, NetworkSettings, TrainSettings
from nas_core.data.prepared import PreparedData, Split, pictures_of
from nas_core.data.resident import ResidentImages
from nas_core.models.compute import Compute
from nas_core.models.cost import form_of
from nas_core.models.labelling import predict_batch
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.genotype import Genotype
from nas_core.training.full import (
    FullResult,
    evaluate,
    label_split,
    learning_rate_factor,
    train_fully,
)
from nas_core.training.full_task import FullTask
from nas_core.training.metrics import ConfusionMatrix

NETWORK = NetworkSettings(agg_size=16, sep_repeats=1)
SETTINGS = TrainSettings(
    epochs=3,
    batch_size=6,
    crop_height=32,
    crop_width=48,
    warmup_steps=2,
    averaging=0.5,
    validate_every=2,
)
CPU = torch.device("cpu")
ARCH0, ARCH1 = ARCHITECTURES["arch0"], ARCHITECTURES["arch1"]


class InterruptionError(Exception):
    pass


def _train(
    data: PreparedData,
    compute: Compute,
    checkpoint: Path,
    settings: TrainSettings = SETTINGS,
    genotype: Genotype = ARCH0,
    seed: int = 2,
    stop_after: int | None = None,
    teacher: Segmenter | None = None,
) -> FullResult:
    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == stop_after:
            raise InterruptionError

    task = FullTask(data, None, NETWORK, settings, compute, teacher)
    return train_fully(task, genotype, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch)


def _states_equal(a: FullResult, b: FullResult) -> bool:
    states = a.segmenter.state_dict(), b.segmenter.state_dict()
    return all(tensor.equal(states[1][name]) for name, tensor in states[0].items())


def _without_seconds(result: FullResult) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]


def test_an_interrupted_training_ends_with_the_same_weights(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    whole = _train(scenes, compute, tmp_path / "whole.pt")
    for epoch in (1, 2):
        with pytest.raises(InterruptionError):
            _train(scenes, compute, tmp_path / "parts.pt", stop_after=epoch)
    resumed = _train(scenes, compute, tmp_path / "parts.pt")
    assert _states_equal(whole, resumed)
    assert _without_seconds(whole) == _without_seconds(resumed)
    assert whole.val is not None and resumed.val is not None
    assert whole.val.matrix.equal(resumed.val.matrix)


def test_a_finished_training_is_not_repeated(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    first = _train(scenes, compute, tmp_path / "c.pt")
    again = _train(scenes, compute, tmp_path / "c.pt", stop_after=1)  # no epoch is run
    assert _states_equal(first, again) and first.history == again.history


def test_history_validates_as_asked_and_at_the_end(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    result = _train(scenes, compute, tmp_path / "c.pt")
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert ["val_mean_iou" in row for row in result.history] == [False, True, True]
    assert result.val is not None
    assert result.history[-1]["val_mean_iou"] == result.val.mean_iou
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_batches_that_are_cut_on_the_device_train_alike(
    scenes: PreparedData, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, but for the rounding of pixels."""
    settings = SETTINGS.model_copy(update={"epochs": 1})
    expected = _train(scenes, compute, tmp_path / "cpu.pt", settings).history[0]["loss"]
    monkeypatch.setattr(
        ResidentImages, "on", lambda _, splits, ignored: ResidentImages(splits, CPU, ignored)
    )
    found = _train(scenes, compute, tmp_path / "resident.pt", settings).history[0]["loss"]
    assert found == pytest.approx(expected, rel=0.02) and found != expected


def test_a_result_tells_each_device_that_it_was_trained_on(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    path = tmp_path / "c.pt"
    with pytest.raises(InterruptionError):
        _train(scenes, compute, path, stop_after=1)
    content = torch.load(path)
    torch.save(content | {"devices": ["cuda: another, bf16"]}, path)
    here = f"{compute.describe()}, torch {torch.__version__}"
    assert _train(scenes, compute, path).devices == ["cuda: another, bf16", here]
    assert _train(scenes, compute, path).devices == ["cuda: another, bf16", here]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_training_on_a_gpu_starts_like_that_on_the_cpu(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    gpu = Compute.from_settings(ComputeSettings(precision="fp32"))
    expected = _train(scenes, compute, tmp_path / "cpu.pt").history
    found = _train(scenes, gpu, tmp_path / "gpu.pt").history
    assert found[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-2)
    assert [row["skipped_steps"] for row in found] == [0, 0, 0]


def test_the_other_seed_gives_another_network(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    first = _train(scenes, compute, tmp_path / "a.pt")
    other = _train(scenes, compute, tmp_path / "b.pt", seed=3)
    assert not _states_equal(first, other)


def test_trained_on_val_it_has_no_val_score(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"splits": "train+val", "epochs": 1})
    result = _train(scenes, compute, tmp_path / "c.pt", settings)
    assert result.val is None
    assert not any(key.startswith("val_") for row in result.history for key in row)


@pytest.mark.parametrize("splits", ["train", "train+val"])
@pytest.mark.parametrize("broken", ["encoder", "decoder"])
def test_a_network_that_is_not_finite_fails_at_the_next_validation(
    scenes: PreparedData, compute: Compute, tmp_path: Path, broken: str, splits: str
) -> None:
    settings = SETTINGS.model_copy(update={"splits": splits})
    path = tmp_path / "c.pt"
    with pytest.raises(InterruptionError):
        _train(scenes, compute, path, settings, stop_after=1)
    content = torch.load(path)
    moments = content["state"]["optimizer"]["state"]
    # The first parameters are the encoder's, the last the decoder's: the next step overflows.
    moments[0 if broken == "encoder" else max(moments)]["exp_avg"].fill_(3e38)
    torch.save(content, path)
    before = path.read_bytes()
    with pytest.raises(CandidateError, match=r"not finite at the validation of epoch 2; a lower"):
        _train(scenes, compute, path, settings)
    assert path.read_bytes() == before


def test_an_evaluation_of_logits_that_are_not_finite_gives_no_score(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    segmenter = _train(scenes, compute, tmp_path / "c.pt").segmenter
    with torch.no_grad():
        segmenter.decoder.classify.weight.fill_(3e38)
    split = scenes.split("test")
    with pytest.raises(WeightsError, match="the network gives logits that are not finite"):
        evaluate(segmenter, split, scenes.num_classes, scenes.ignore_index)


def test_evaluation_counts_every_labelled_pixel_once(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    segmenter = _train(scenes, compute, tmp_path / "c.pt").segmenter
    split = scenes.split("test")
    confusion = evaluate(segmenter, split, scenes.num_classes, scenes.ignore_index)
    assert int(confusion.matrix.sum()) == int((split.masks != scenes.ignore_index).sum())


def test_images_of_other_sizes_are_scored_at_their_own(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    segmenter = _train(scenes, compute, tmp_path / "c.pt").segmenter
    split = scenes.split("val")
    cut = [(slice(None), slice(None)), (slice(40), slice(50)), (slice(40), slice(50))]
    mixed = Split(
        pictures_of([split.images[row][part] for row, part in enumerate(cut)]),
        pictures_of([split.masks[row][part] for row, part in enumerate(cut)]),
        split.names[:3],
        split.groups[:3],
    )
    for row, labels in enumerate(label_split(segmenter, mixed)):
        alone = predict_batch(segmenter, mixed.images[row][None])[0]
        np.testing.assert_array_equal(labels, alone)
    confusion = evaluate(segmenter, mixed, scenes.num_classes, scenes.ignore_index)
    labelled = sum(int((mask != scenes.ignore_index).sum()) for mask in mixed.masks)
    assert int(confusion.matrix.sum()) == labelled


def test_a_network_trained_in_bf16_is_scored_as_it_predicts(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    result = _train(scenes, replace(compute, bf16=True), tmp_path / "c.pt")
    split = scenes.split("val")
    labels = predict_batch(result.segmenter, split.images)
    expected = ConfusionMatrix(scenes.num_classes, scenes.ignore_index)
    expected.update(torch.from_numpy(labels), torch.from_numpy(split.masks))
    assert result.val is not None
    assert torch.equal(result.val.matrix, expected.matrix)
    assert result.history[-1]["val_mean_iou"] == expected.metrics()["mean_iou"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
def test_an_unreadable_checkpoint_is_refused(
    scenes: PreparedData, compute: Compute, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"c.pt is not a readable checkpoint"):
        _train(scenes, compute, path)
    assert path.read_bytes() == content


def test_a_truncated_checkpoint_is_refused(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    path = tmp_path / "c.pt"
    _train(scenes, compute, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RunError, match="not a readable checkpoint"):
        _train(scenes, compute, path)


def test_a_foreign_checkpoint_is_refused(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    path = tmp_path / "c.pt"
    torch.save({"weights": torch.ones(3)}, path)
    with pytest.raises(RunError, match="not a checkpoint of this program"):
        _train(scenes, compute, path)


def test_a_checkpoint_of_another_training_is_refused(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    path = tmp_path / "c.pt"
    _train(scenes, compute, path)
    with pytest.raises(RunError, match=f"'{ARCH0.id}', this training has '{ARCH1.id}'"):
        _train(scenes, compute, path, genotype=ARCH1)
    with pytest.raises(RunError, match="other settings, data or seed"):
        _train(scenes, compute, path, seed=9)


@pytest.fixture(scope="module")
def after_one_epoch(scenes: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint with two epochs to go."""
    path = tmp_path_factory.mktemp("checkpoint") / "c.pt"
    with pytest.raises(InterruptionError):
        _train(scenes, Compute(CPU, bf16=False), path, stop_after=1)
    return path.read_bytes()


def _change(keys: str, value: Any) -> Callable[[Any], None]:
    """Sets the entry below these keys, or takes it away where `value` is None."""

    def change(content: Any) -> None:
        *above, last = (int(key) if key.isdecimal() else key for key in keys.split())
        for key in above:
            content = content[key]
        if value is None:
            del content[last]
        else:
            content[last] = value

    return change


FIRST = "state optimizer state 0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_change("format", True), "not a checkpoint of this program"),
        (_change("format", torch.tensor([1, 1])), "not a checkpoint of this program"),
        (_change("num_classes", torch.tensor([1, 1])), "num_classes"),
        (_change("num_classes", 11.0), "num_classes 11.0"),
        (_change("identity", torch.zeros(2)), "other settings, data or seed"),
        (_change("devices", "cpu"), "devices"),
        (_change("devices", None), "devices"),
        (_change("history", []), "0 epochs of 3"),
        (_change("history 0 epoch", 5), "epoch 1"),
        (_change("history 0 epoch", None), "epoch"),
        (_change("history 0 loss", math.nan), "epoch 1 is no finite number"),
        (_change("history 0 loss", "0.5"), "epoch 1 is no finite number"),
        (_change("history 0 loss", None), "epoch 1"),
        (_change("history 0 x.y", 1.0), "a name of epoch 1"),
        (_change("history 0 skipped_steps", 1), "an average of"),
        (_change("state average n_averaged", torch.tensor(-3)), "an average of -3 steps"),
        (_change("state optimizer state", {}), "optimizer"),
        (_change(FIRST, None), "optimizer's state lacks encoder.features.0.0.weight"),
        (_change("state optimizer state 10000", {}), "optimizer"),
        (_change(f"{FIRST} exp_avg", None), "exp_avg"),
        (_change(f"{FIRST} exp_avg", torch.zeros(3)), "exp_avg is torch.float32 [3]"),
        (_change(f"{FIRST} exp_avg", torch.full((32, 3, 3, 3), math.nan)), "not finite"),
        (_change(f"{FIRST} exp_avg_sq", torch.full((32, 3, 3, 3), -1.0)), "optimizer"),
        (_change(f"{FIRST} step", torch.tensor(-5.0)), "optimizer"),
        (_change(f"{FIRST} step", "x"), "could not convert"),
        (_change(f"{FIRST} max_exp_avg_sq", 1), "AdamW"),
    ],
)
def test_a_checkpoint_that_is_none_of_this_training_is_refused(
    scenes: PreparedData,
    compute: Compute,
    tmp_path: Path,
    after_one_epoch: bytes,
    change: Callable[[Any], None],
    message: str,
) -> None:
    content = torch.load(io.BytesIO(after_one_epoch), weights_only=True)
    change(content)
    path = tmp_path / "c.pt"
    torch.save(content, path)
    with pytest.raises(RunError, match=r"c\.pt .*" + re.escape(message)):
        _train(scenes, compute, path)


def test_a_network_that_leaves_encoder_blocks_unused_goes_on(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    unused = Genotype.from_dict(
        {
            "templates": [[1, 2, 0], [1, 5, 1], [0, 5, 1]],
            "structure": [
                [0, 0, 1, 2, 0], [0, 2, 2, 0, 1], [2, 0, 1, 2, 0], [4, 3, 0, 0, 0],
                [0, 4, 0, 2, 0], [6, 6, 0, 0, 0], [3, 6, 1, 0, 0],
            ],
        }
    )  # fmt: skip
    with pytest.raises(InterruptionError):
        _train(scenes, compute, tmp_path / "c.pt", stop_after=1, genotype=unused)
    moments = torch.load(tmp_path / "c.pt")["state"]["optimizer"]["state"]
    gone_on = _train(scenes, compute, tmp_path / "c.pt", genotype=unused)
    whole = _train(scenes, compute, tmp_path / "whole.pt", genotype=unused)
    assert len(moments) < len(list(whole.segmenter.parameters()))
    assert _states_equal(gone_on, whole)


def test_what_settings_decide_is_not_taken_from_a_checkpoint(
    scenes: PreparedData, compute: Compute, tmp_path: Path, after_one_epoch: bytes
) -> None:
    content = torch.load(io.BytesIO(after_one_epoch), weights_only=True)
    for group in content["state"]["optimizer"]["param_groups"]:
        group |= {"lr": 9.0, "betas": None, "weight_decay": 1e9, "amsgrad": True}
    torch.save(content, tmp_path / "c.pt")
    gone_on = _train(scenes, compute, tmp_path / "c.pt")
    whole = _train(scenes, compute, tmp_path / "whole.pt")
    assert _states_equal(gone_on, whole)
    assert repr(_without_seconds(gone_on)) == repr(_without_seconds(whole))


def test_identity_follows_what_decides_the_outcome(scenes: PreparedData, compute: Compute) -> None:
    def identity(settings: TrainSettings, seed: int = 0, teacher: Segmenter | None = None) -> str:
        task = FullTask(scenes, None, NETWORK, settings, compute, teacher)
        return task.identity(ARCH0, seed)

    same = SETTINGS.model_copy(update={"top": 9, "also": ()})
    other = SETTINGS.model_copy(update={"epochs": 4})
    assert identity(SETTINGS) == identity(same)
    teachers = [Segmenter.build(ARCH0, **form_of(NETWORK, scenes.num_classes)) for _ in range(2)]
    taught = [identity(SETTINGS, teacher=teacher) for teacher in teachers]
    assert len({identity(SETTINGS), identity(other), identity(SETTINGS, seed=1), *taught}) == 5


def test_class_weighting_changes_the_training(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    short = SETTINGS.model_copy(update={"epochs": 1, "crop_height": 32, "crop_width": 32})
    plain = _train(scenes, compute, tmp_path / "plain", short)
    unweighted = short.model_copy(update={"class_weighting": False})
    changed = _train(scenes, compute, tmp_path / "changed", unweighted)
    assert not _states_equal(plain, changed)
    assert changed.history[0]["skipped_steps"] == 0


def test_rates_rise_to_their_peak_and_fall_to_zero() -> None:
    settings = SETTINGS.model_copy(update={"warmup_steps": 10})
    factor = learning_rate_factor(settings, 110)
    assert [factor(0), factor(9), factor(10)] == pytest.approx([1 / 11, 10 / 11, 1])
    assert factor(60) == pytest.approx(0.5**0.9)
    assert factor(110) == pytest.approx(0)
    rates = [factor(step) for step in range(10, 111)]
    assert rates == sorted(rates, reverse=True)
