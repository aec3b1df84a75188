from __future__ import annotations

import numpy as np

from nas_core.data.camvid import PALETTE
from nas_core.data.overlay import WRONG, colourise, error_map, overlay

COLOURS = np.array(PALETTE, dtype=np.uint8)
IMAGE = np.full((2, 3, 3), 100, np.uint8)
LABELS = np.array([[0, 1, 11], [3, 255, 10]], np.uint8)


def test_colours_of_classes_and_black_elsewhere() -> None:
    picture = np.array(colourise(LABELS, COLOURS))
    assert picture.shape == (2, 3, 3)
    assert picture[1, 0].tolist() == [128, 64, 128]
    assert picture[0, 2].tolist() == picture[1, 1].tolist() == [0, 0, 0]
    assert np.array(colourise(LABELS.astype(np.int64) - 1, COLOURS))[0, 0].tolist() == [0, 0, 0]


def test_overlay_tints_labelled_pixels_only() -> None:
    picture = np.array(overlay(IMAGE, LABELS, COLOURS))
    assert picture[0, 2].tolist() == [100, 100, 100]
    np.testing.assert_allclose(picture[1, 0], 0.4 * IMAGE[1, 0] + 0.6 * COLOURS[3], atol=1)


def test_errors_are_red_over_a_pale_image() -> None:
    image = IMAGE.copy()
    image[0] = 250
    truth = np.array([[0, 1, 11], [3, 255, 10]], np.uint8)
    prediction = np.array([[0, 2, 0], [3, 0, 9]], np.int64)
    picture = np.array(error_map(image, truth, prediction, 11))
    assert picture[0, 1].tolist() == picture[1, 2].tolist() == list(WRONG)
    assert picture[0, 2].tolist() == picture[1, 1].tolist() == [0, 0, 0]
    light, dark = picture[0, 0], picture[1, 0]
    assert len({*light}) == len({*dark}) == 1 and 255 > light[0] > dark[0] > 90
