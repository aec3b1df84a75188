from __future__ import annotations

import numpy as np
import pytest

from nas_core.data.camvid import CLASSES
from nas_core.data.street_scene import ROAD, SKY, draw_scene


@pytest.mark.parametrize(("height", "width"), [(32, 32), (90, 120), (50, 201), (180, 64)])
def test_any_size(height: int, width: int) -> None:
    for seed in range(5):
        image, mask = draw_scene(height, width, np.random.default_rng(seed))
        assert image.mode == "RGB"
        assert mask.mode == "L"
        assert image.size == mask.size == (width, height)
        assert np.array(mask).max() <= len(CLASSES)


def test_same_generator_state_same_scene() -> None:
    first, again, other = (draw_scene(45, 60, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    assert first[1].tobytes() != other[1].tobytes()


def test_the_sky_is_above_and_the_road_below() -> None:
    masks = np.stack(
        [np.array(draw_scene(90, 120, np.random.default_rng(seed))[1]) for seed in range(20)]
    )
    assert (masks[:, 0] == SKY).mean() > 0.3
    assert (masks[:, -1] == ROAD).mean() > 0.4
    assert not (masks[:, -1] == SKY).any()
