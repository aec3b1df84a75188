from __future__ import annotations

import numpy as np

from nas_core.data.camvid import PALETTE
from nas_core.data.overlay import colourise, overlay, side_by_side

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


def test_side_by_side() -> None:
    prediction = np.zeros((2, 3), np.int64)
    picture = np.array(side_by_side(IMAGE, LABELS, prediction, COLOURS))
    assert picture.shape == (2, 9, 3)
    np.testing.assert_array_equal(picture[:, :3], IMAGE)
    np.testing.assert_array_equal(picture[:, 3:6], np.array(overlay(IMAGE, LABELS, COLOURS)))
    np.testing.assert_array_equal(picture[:, 6:], np.array(overlay(IMAGE, prediction, COLOURS)))
