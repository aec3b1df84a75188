import math

import pytest
import torch

from nas_core.config import (
    ComputeSettings,
    ProxySettings,
    RunnerSettings,
    Settings,
    TrainSettings,
)
from nas_core.training.timing import Counts, estimate, measured_images

COUNTS = Counts(train=40, val=4, meta_train=36, meta_val=4)


def settings_of(epochs: int) -> Settings:
    short = {"height": 32, "width": 32, "batch_size": 4}
    proxy = ProxySettings(**short, epochs_a=epochs, epochs_b=epochs)
    train = TrainSettings(epochs=epochs, crop_height=32, crop_width=32, batch_size=4)
    base = Settings(train=train, compute=ComputeSettings(device="cpu", precision="fp32"))
    search = base.search.model_copy(update={"proxy": proxy, "num_candidates": 5})
    return base.model_copy(update={"search": search})


def test_times_grow_with_the_lengths_and_no_file_is_left() -> None:
    one, many = (estimate(settings_of(epochs), COUNTS, 3, (40, 48)) for epochs in (1, 200))
    assert 0 < one.candidate < many.candidate / 20
    assert 0 < one.training < many.training / 20
    assert math.isclose(many.search, 5 * many.candidate / many.candidates_at_a_time)


def test_a_search_has_the_workers_and_the_threads_that_it_will_have() -> None:
    settings, before = settings_of(1), torch.get_num_threads()
    threads = ComputeSettings(device="cpu", precision="fp32", threads=1)
    runner = RunnerSettings(workers=3)
    settings = settings.model_copy(update={"compute": threads, "runner": runner})
    times = estimate(settings, COUNTS, 3, (40, 48))
    assert math.isclose(times.search, 5 * times.candidate / 3)
    assert (times.candidates_at_a_time, times.trainings_at_a_time) == (3, 3)
    assert "1 threads" in times.device
    torch.set_num_threads(before)


def test_no_more_trainings_are_at_work_than_there_are() -> None:
    settings = settings_of(1)
    runner, train = RunnerSettings(workers=8), settings.train.model_copy(update={"top": 1})
    settings = settings.model_copy(update={"runner": runner, "train": train})
    assert estimate(settings, COUNTS, 3, (40, 48)).trainings_at_a_time == 1 + len(train.also)


@pytest.mark.parametrize(
    ("crop", "device", "expected"),
    [
        ((288, 384), "cpu", 2),
        ((600, 600), "cpu", 2),
        ((144, 384), "cpu", 4),
        ((96, 128), "cpu", 8),
        ((288, 384), "cuda", 8),
    ],
)
def test_small_crops_are_measured_in_whole_batches(
    crop: tuple[int, int], device: str, expected: int
) -> None:
    train = TrainSettings(crop_height=crop[0], crop_width=crop[1])
    assert measured_images(train, 8, device) == expected


def test_two_images_are_enough() -> None:
    times = estimate(settings_of(1), Counts(train=3, val=1, meta_train=2, meta_val=1), 2, (32, 32))
    assert times.candidate > 0
    assert times.training > 0
