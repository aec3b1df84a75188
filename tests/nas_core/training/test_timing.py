import math

from nas_core.config import ComputeSettings, ProxySettings, Settings, TrainSettings
from nas_core.training.timing import Counts, estimate

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
    assert math.isclose(many.search, 5 * many.candidate)


def test_two_images_are_enough() -> None:
    times = estimate(settings_of(1), Counts(train=3, val=1, meta_train=2, meta_val=1), 2, (32, 32))
    assert times.candidate > 0
    assert times.training > 0
