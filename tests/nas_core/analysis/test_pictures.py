"""Pictures of what a network does: which images, what is where, and that names cannot break one."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nas_core.analysis.pictures import (
    COLUMNS,
    Shown,
    choose_images,
    class_iou_picture,
    confusion_picture,
    contact_sheet,
)
from nas_core.data.overlay import UNLABELLED, WRONG

CLASSES = ("sky", "road")
PALETTE = np.array([[10, 120, 230], [240, 200, 20]], np.uint8)


def test_the_best_the_median_and_the_worst_are_chosen() -> None:
    scores = [0.5, 0.9, math.nan, 0.1, 0.3, 0.7, 0.4, 0.8, 0.2, 0.6]
    chosen = choose_images(scores)
    assert chosen == {1: "best", 7: "best", 9: "median", 0: "median", 8: "worst", 3: "worst"}
    assert list(chosen) == [1, 7, 9, 0, 8, 3]


@pytest.mark.parametrize(
    ("scores", "groups"),
    [
        ([], []),
        ([math.nan], []),
        ([0.5], ["best"]),
        ([0.5, 0.6], ["best", "worst"]),
        ([0.5, 0.6, 0.7], ["best", "median", "worst"]),
        ([0.5, 0.6, 0.7, 0.8], ["best", "best", "worst", "worst"]),
    ],
)
def test_a_small_split_shows_each_image_once(scores: list[float], groups: list[str]) -> None:
    assert list(choose_images(scores).values()) == groups


def row(title: str) -> Shown:
    truth = np.zeros((40, 50), np.uint8)
    truth[20:] = 1
    truth[:, :10] = 255
    prediction = np.zeros((40, 50), np.uint8)
    return Shown(title, np.full((40, 50, 3), 90, np.uint8), truth, prediction)


def colours_at(sheet: Image.Image, across: float, down: float) -> list[tuple[int, ...]]:
    """The colours of the four panels of the only row, at a place within each, from 0 to 1."""
    pixels = np.asarray(sheet)
    panel = (sheet.width - 8) // len(COLUMNS)
    height = (panel - 8) * 40 // 50
    top = 8 + 2 * 30
    return [
        tuple(pixels[top + int(down * height), 8 + column * panel + int(across * (panel - 8))])
        for column in range(len(COLUMNS))
    ]


def test_image_truth_prediction_and_errors_stand_beside_each_other() -> None:
    sheet = contact_sheet([row("best · frame 1")], CLASSES, PALETTE)
    sky, road = (tuple(int(value) for value in colour) for colour in PALETTE)
    image, truth, prediction, errors = colours_at(sheet, 0.6, 0.25)
    assert (image, truth, prediction) == ((90, 90, 90), sky, sky)
    assert len({*errors}) == 1 and errors[0] > 90  # right: a pale grey
    assert colours_at(sheet, 0.6, 0.75)[1:] == [road, sky, WRONG]
    assert colours_at(sheet, 0.05, 0.75)[1:] == [UNLABELLED, sky, UNLABELLED]


def test_without_the_image_no_panel_shows_it() -> None:
    columns = ("prediction", "errors")
    photo = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    sheets = [
        contact_sheet([replace(row("x"), image=image)], CLASSES, PALETTE, columns)
        for image in (photo, np.zeros_like(photo))
    ]
    assert sheets[0].tobytes() == sheets[1].tobytes()
    whole = contact_sheet([row("x")], CLASSES, PALETTE)
    assert sheets[0].width - 8 == (whole.width - 8) // 2
    assert np.all(np.asarray(sheets[0]) == WRONG, axis=2).any()


def test_the_legend_has_every_class_however_many() -> None:
    few = contact_sheet([row("x")], CLASSES, PALETTE)
    palette = np.arange(3 * 80, dtype=np.uint8).reshape(80, 3)
    many = contact_sheet([row("x")], [f"a rather long name {n}" for n in range(80)], palette)
    assert many.width == few.width and many.height > few.height
    legend = np.asarray(many)[few.height - 100 :].reshape(-1, 3)
    found = {tuple(colour) for colour in np.unique(legend, axis=0).tolist()}
    assert {tuple(colour) for colour in palette.tolist()} <= found


def test_a_contact_sheet_of_a_split_without_scores_is_its_legend() -> None:
    assert (
        contact_sheet([], CLASSES, PALETTE).height
        < contact_sheet([row("x")], CLASSES, PALETTE).height
    )


def test_rows_of_a_confusion_matrix_are_per_cent_of_the_true_class() -> None:
    figure = confusion_picture(np.array([[3, 1, 0], [0, 0, 0], [0, 2, 198]]), ["a", "b", "c"], "t")
    axes = figure.axes[0]
    shares = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shares[[0, 2]], [[75, 25, 0], [0, 1, 99]])
    assert np.isnan(np.asarray(axes.images[0].get_array().filled(np.nan))[1]).all()
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers == {(0, 0): "75", (1, 0): "25", (1, 2): "1", (2, 2): "99"}
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_a_bar_is_the_iou_of_its_class() -> None:
    figure = class_iou_picture({"sky": 0.8}, CLASSES, PALETTE, "arch0")
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [80, 0]
    assert [text.get_text() for text in axes.texts] == ["80.0", "not in the split"]
    np.testing.assert_allclose(axes.patches[1].get_facecolor()[:3], PALETTE[1] / 255)


def test_names_of_any_kind_are_drawn() -> None:
    names = [r"$\frac$ of a", "x" * 200, "a\nb", "通り"]
    palette = np.zeros((4, 3), np.uint8)
    matrix = np.eye(4, dtype=np.int64)
    for figure in (
        confusion_picture(matrix, names, names[0]),
        class_iou_picture(dict.fromkeys(names, 0.5), names, palette, names[0]),
    ):
        figure.canvas.draw()
    assert contact_sheet([row(names[0])], names, palette).width > 0
