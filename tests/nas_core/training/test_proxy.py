from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from nas_core.base.errors import CandidateError, DataError
from nas_core.base.seeds import seeded
from nas_core.config import MetaValSettings, ProxySettings
from nas_core.data.prepared import PreparedData, Split
from nas_core.data.resident import ResidentImages
from nas_core.data.transforms import normalise, resized
from nas_core.models.compute import Compute
from nas_core.models.decoder import Decoder, resize
from nas_core.models.encoder import Encoder
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.decisions import sample
from nas_core.training import proxy, steps
from nas_core.training.losses import segmentation_loss
from nas_core.training.metrics import ConfusionMatrix
from nas_core.training.proxy import train_candidate
from nas_core.training.proxy_task import ProxyTask, build_proxy_task, divide, num_validations

SETTINGS = ProxySettings(height=48, width=64, batch_size=6, epochs_a=2, epochs_b=1, agg_size=16)
ARCH0 = ARCHITECTURES["arch0"]


def meta_val(fraction: float, seed: int) -> MetaValSettings:
    return MetaValSettings(fraction=fraction, seed=seed)


@pytest.fixture(scope="module")
def task(scenes: PreparedData) -> ProxyTask:
    compute = Compute(torch.device("cpu"), bf16=False)
    return build_proxy_task(scenes, None, SETTINGS, compute, meta_val=meta_val(0.2, 4), seed=4)


def test_the_training_split_is_divided_once(scenes: PreparedData, task: ProxyTask) -> None:
    train, val = set(task.meta_train.names), set(task.meta_val.names)
    assert len(val) == 4 and len(train) == 16 and not train & val
    assert train | val == set(scenes.split("train").names)


def test_batches_that_are_cut_on_the_device_train_alike(task: ProxyTask) -> None:
    """As on a GPU, but for the rounding of pixels."""
    assert task.resident is None
    resident = ResidentImages([task.meta_train], torch.device("cpu"), task.ignore_index)
    expected, found = (
        train_candidate(one, ARCH0, seed=1) for one in (task, replace(task, resident=resident))
    )
    assert found.losses["a"] == expected.losses["a"]
    assert found.losses["b"] == pytest.approx(expected.losses["b"], rel=0.02)
    assert found.losses["b"] != expected.losses["b"]


@pytest.mark.parametrize(("fraction", "num_val"), [(0.001, 1), (0.999, 18)])
def test_both_parts_have_an_image(scenes: PreparedData, fraction: float, num_val: int) -> None:
    compute = Compute(torch.device("cpu"), bf16=False)
    task = build_proxy_task(scenes, None, SETTINGS, compute, meta_val=meta_val(fraction, 0), seed=0)
    assert len(task.meta_val) == num_val and len(task.meta_train) == 20 - num_val


def with_labels_in(scenes: PreparedData, rows: list[int]) -> PreparedData:
    """The dataset with all other training images void."""
    train = scenes.split("train")
    masks = np.full_like(train.masks, scenes.ignore_index)
    masks[rows] = train.masks[rows]
    return replace(scenes, splits={"train": Split(train.images, masks, train.names, train.groups)})


@pytest.mark.parametrize("seed", range(4))
def test_images_without_a_label_are_left_out(scenes: PreparedData, seed: int) -> None:
    compute = Compute(torch.device("cpu"), bf16=False)
    data = with_labels_in(scenes, [3, 7, 11, 15])
    task = build_proxy_task(data, None, SETTINGS, compute, meta_val=meta_val(0.1, seed), seed=seed)
    names = [scenes.split("train").names[row] for row in (3, 7, 11, 15)]
    assert sorted((*task.meta_train.names, *task.meta_val.names)) == names
    assert len(task.meta_val) == 1


def test_a_search_uses_so_many_images_at_most(scenes: PreparedData) -> None:
    compute = Compute(torch.device("cpu"), bf16=False)
    few = SETTINGS.model_copy(update={"max_images": 7})
    used = []
    for seed in (0, 0, 1):
        task = build_proxy_task(scenes, None, few, compute, meta_val=meta_val(0.2, seed), seed=0)
        assert (len(task.meta_train), len(task.meta_val)) == (6, 1)
        used.append({*task.meta_train.names, *task.meta_val.names})
    assert used[0] == used[1] != used[2]


def test_too_few_images_with_a_label_are_counted(scenes: PreparedData) -> None:
    compute = Compute(torch.device("cpu"), bf16=False)
    data = with_labels_in(scenes, [3, 7])
    with pytest.raises(DataError, match="train: 2 of 20 images have a labelled pixel at 64x48"):
        build_proxy_task(data, None, SETTINGS, compute, meta_val=meta_val(0.1, 0), seed=0)


def test_the_draw_of_a_dataset_in_which_all_is_labelled(scenes: PreparedData) -> None:
    order = np.random.default_rng(4).permutation(20)
    names = scenes.split("train").names
    chosen = divide(scenes, SETTINGS, meta_val(0.2, 4))
    assert chosen.val.tolist() == sorted(order[:4])
    compute = Compute(torch.device("cpu"), bf16=False)
    for seed in (4, 5):
        task = build_proxy_task(
            scenes, None, SETTINGS, compute, meta_val=meta_val(0.2, 4), seed=seed
        )
        assert task.meta_val.names == tuple(names[row] for row in sorted(order[:4]))


def test_cached_taps_are_what_the_encoder_gives(task: ProxyTask) -> None:
    encoder = Encoder()
    encoder.load_state_dict(task.encoder_state)
    with torch.inference_mode():
        taps = encoder.eval()(normalise(task.meta_val.images))
    for cached, tap in zip(task.val_taps, taps, strict=True):
        torch.testing.assert_close(cached.permute(0, 3, 1, 2), tap, rtol=1e-4, atol=1e-5)


def test_given_encoder_weights_are_used(scenes: PreparedData) -> None:
    state = seeded(99, Encoder).state_dict()
    compute = Compute(torch.device("cpu"), bf16=False)
    task = build_proxy_task(scenes, state, SETTINGS, compute, meta_val=meta_val(0.2, 4), seed=4)
    for name, tensor in state.items():
        torch.testing.assert_close(task.encoder_state[name], tensor)


def test_the_score_is_that_of_the_returned_network_on_meta_val(task: ProxyTask) -> None:
    result = train_candidate(task, ARCH0, seed=1)
    val = resized(task.meta_val, 48, 64)
    confusion = ConfusionMatrix(task.num_classes, task.ignore_index)
    with torch.inference_mode():
        predictions = result.segmenter(normalise(val.images)).argmax(1)
    confusion.update(predictions, torch.from_numpy(np.array(val.masks)))
    assert result.scores[-1] == pytest.approx(confusion.reward, abs=1e-6)
    assert result.confusion.matrix.equal(confusion.matrix)
    assert len(result.scores) == num_validations(SETTINGS) == 2
    assert set(result.losses) == {"a", "b"} and len(result.losses["a"]) == 2
    assert set(result.seconds) == {"stage_a", "stage_b", "validation"}
    assert not result.stopped_early


def test_the_loss_is_that_of_logits_resized_by_interpolation(scenes: PreparedData) -> None:
    settings = SETTINGS.model_copy(update={"batch_size": 99, "epochs_a": 1, "epochs_b": 0})
    compute = Compute(torch.device("cpu"), bf16=False)
    task = build_proxy_task(scenes, None, settings, compute, meta_val=meta_val(0.2, 4), seed=4)
    network = seeded(
        1, lambda: Segmenter(Encoder(), Decoder(ARCH0, task.num_classes, settings.agg_size, 1))
    )
    logits = network.decoder([tap.permute(0, 3, 1, 2).clone() for tap in task.crop_taps])
    assert logits.shape[2:] != task.crop_masks.shape[1:]
    expected = segmentation_loss(
        resize(logits, task.crop_masks.shape[1:]),
        task.crop_masks,
        task.class_weights,
        task.ignore_index,
    )
    (found,) = train_candidate(task, ARCH0, seed=1).losses["a"]
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_training_lowers_the_loss(task: ProxyTask) -> None:
    losses = train_candidate(task, ARCH0, seed=1).losses["a"]
    assert losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_network(task: ProxyTask) -> None:
    first, again = (train_candidate(task, ARCH0, seed=5) for _ in range(2))
    assert first.scores == again.scores and first.losses == again.losses
    for name, tensor in first.segmenter.state_dict().items():
        assert tensor.equal(again.segmenter.state_dict()[name]), name
    assert train_candidate(task, ARCH0, seed=6).losses != first.losses


def test_candidates_do_not_depend_on_those_before_them(task: ProxyTask) -> None:
    alone = train_candidate(task, ARCH0, seed=5).scores
    train_candidate(task, sample(np.random.default_rng(0)), seed=8)
    assert train_candidate(task, ARCH0, seed=5).scores == alone


def test_the_global_generator_is_left_alone(task: ProxyTask) -> None:
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    train_candidate(task, ARCH0, seed=5)
    assert torch.rand(1).equal(expected)


def test_stops_below_a_threshold(task: ProxyTask) -> None:
    result = train_candidate(task, ARCH0, seed=1, thresholds=[1.0, 0.0])
    assert result.stopped_early and len(result.scores) == 1
    assert result.scores[-1] == pytest.approx(result.confusion.reward)
    assert "b" not in result.losses


@pytest.mark.parametrize("epochs_b", [0, 1])
def test_with_all_its_scores_it_is_not_stopped_early(task: ProxyTask, epochs_b: int) -> None:
    settings = SETTINGS.model_copy(update={"epochs_a": 1, "epochs_b": epochs_b})
    thresholds = [0.0] * epochs_b + [1.0]
    result = train_candidate(replace(task, settings=settings), ARCH0, seed=1, thresholds=thresholds)
    assert len(result.scores) == 1 + epochs_b and result.scores[-1] < 1
    assert not result.stopped_early


@pytest.mark.parametrize("thresholds", [[], [0.0], [0.0, 0.0, 0.0]])
def test_a_wrong_number_of_thresholds_is_an_error(task: ProxyTask, thresholds: list[float]) -> None:
    expected = f"{len(thresholds)} thresholds for 2 validations"
    with pytest.raises(ValueError, match=expected):
        train_candidate(task, ARCH0, seed=1, thresholds=thresholds)


def test_a_loss_that_is_never_finite_fails_the_candidate(scenes: PreparedData) -> None:
    state = seeded(0, Encoder).state_dict()
    broken = {k: torch.full_like(v, torch.nan) if "weight" in k else v for k, v in state.items()}
    compute = Compute(torch.device("cpu"), bf16=False)
    task = build_proxy_task(scenes, broken, SETTINGS, compute, meta_val=meta_val(0.2, 4), seed=4)
    with pytest.raises(CandidateError, match="not finite"):
        train_candidate(task, ARCH0, seed=1)


def test_logits_that_are_not_finite_fail_the_candidate(task: ProxyTask) -> None:
    """One bad batch: its step is skipped, but batch norm's statistics are spoilt from then on."""
    taps = tuple(tap.clone() for tap in task.crop_taps)
    taps[0][0] = torch.nan
    with pytest.raises(
        CandidateError, match=r"logits that are not finite at validation 1 of 2; a lower"
    ):
        train_candidate(replace(task, crop_taps=taps), ARCH0, seed=1)


def test_weights_that_are_not_finite_fail_the_candidate(task: ProxyTask) -> None:
    """Before they are kept, even where the logits do not show it."""
    state = {name: tensor.clone() for name, tensor in task.encoder_state.items()}
    name = max(name for name in state if name.endswith("running_var"))
    state[name].fill_(torch.inf)
    with pytest.raises(CandidateError, match=f"encoder.{name} has .* not finite at validation 1"):
        train_candidate(replace(task, encoder_state=state), ARCH0, seed=1)


def test_the_rates_of_stage_b_fall_linearly_to_zero(
    task: ProxyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[list[float]] = []

    optimise = steps.optimise

    def spy(loss: Tensor, optimizer: Optimizer, *rest: Any) -> float:
        rates.append([group["lr"] for group in optimizer.param_groups])
        return optimise(loss, optimizer, *rest)

    monkeypatch.setattr(steps, "optimise", spy)
    settings = SETTINGS.model_copy(update={"epochs_a": 1, "epochs_b": 2})
    train_candidate(replace(task, settings=settings), ARCH0, seed=1)
    # 16 images in batches of 6 are two steps an epoch.
    assert rates[:2] == [[settings.learning_rate_a]] * 2
    expected = [[5e-4 * share, 2e-3 * share] for share in (1, 0.75, 0.5, 0.25)]
    np.testing.assert_allclose(rates[2:], expected)


def test_steps_that_read_nothing_train_alike(
    task: ProxyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, but for the graphs."""
    expected = train_candidate(task, ARCH0, seed=1)
    monkeypatch.setattr(proxy, "for_its_device", lambda step: step.without_reading)
    found = train_candidate(task, ARCH0, seed=1)
    for stage, losses in expected.losses.items():
        assert found.losses[stage] == pytest.approx(losses, rel=1e-2)
    assert found.scores == pytest.approx(expected.scores, abs=0.05)
    assert found.num_skipped_steps == expected.num_skipped_steps == 0


def test_bf16_trains_as_well_as_fp32(scenes: PreparedData, task: ProxyTask) -> None:
    compute = Compute(torch.device("cpu"), bf16=True)
    half = build_proxy_task(scenes, None, SETTINGS, compute, meta_val=meta_val(0.2, 4), seed=4)
    expected = train_candidate(task, ARCH0, seed=1).losses["a"]
    found = train_candidate(half, ARCH0, seed=1).losses["a"]
    assert found == pytest.approx(expected, rel=0.1)
