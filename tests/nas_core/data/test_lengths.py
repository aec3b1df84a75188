import pytest

from nas_core.config import ProxySettings, TrainSettings
from nas_core.data.lengths import lengths, proxy_lengths, steps_per_epoch, training_lengths

STEPS_A, STEPS_B, STEPS = 100, 40, 1350


def test_camvid_has_the_defaults() -> None:
    assert lengths(367, 330) == {"proxy": {}, "train": {}}


@pytest.mark.parametrize("number", [3, 20, 76, 150, 330, 600])
def test_a_candidate_has_as_many_steps_however_few_images(number: int) -> None:
    found, batch = proxy_lengths(number), ProxySettings().batch_size
    steps_a = found["epochs_a"] * steps_per_epoch(number * found["crops_per_image"], batch)
    steps_b = found["epochs_b"] * steps_per_epoch(number, batch)
    assert abs(steps_a - STEPS_A) <= 20
    assert abs(steps_b - STEPS_B) <= 5


@pytest.mark.parametrize("number", [3, 85, 200, 367, 1000])
def test_a_training_has_as_many_steps_and_as_great_a_share_of_warm_up(number: int) -> None:
    found = training_lengths(number)
    steps = found["epochs"] * steps_per_epoch(number, TrainSettings().batch_size)
    assert abs(steps - STEPS) <= 65
    assert found["warmup_steps"] == round(100 * steps / STEPS)
    assert round(found["epochs"] / found["validate_every"]) in (5, 6)


def test_many_images_are_seen_a_few_times_and_very_many_once() -> None:
    assert training_lengths(4470)["epochs"] == 5
    assert training_lengths(20_000)["epochs"] == 2
    assert training_lengths(100_000) == {"epochs": 1, "warmup_steps": 926, "validate_every": 1}
    values = lengths(100_000, 1800)
    assert values["proxy"] == {"epochs_a": 1, "epochs_b": 1, "max_images": 2000}
