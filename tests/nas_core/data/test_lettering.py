"""Names of any language in pictures: drawn with a font that has them, or as numbers."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from nas_core.analysis.pictures import (
    Shown,
    class_iou_picture,
    confusion_picture,
    contact_sheet,
)
from nas_core.data import lettering
from nas_core.data.lettering import Lettering

CHINESE = ("道路", "天空")


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    lettering._font_with.cache_clear()
    yield
    lettering._font_with.cache_clear()


@pytest.fixture
def without_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "findSystemFonts", list)


def make_font(path: Path, characters: str) -> None:
    """A font whose glyphs are squares."""
    names = [".notdef", *(f"uni{ord(char):04X}" for char in characters)]
    pen = TTGlyphPen(None)
    for step, point in enumerate([(0, 0), (0, 900), (900, 900), (900, 0)]):
        (pen.lineTo if step else pen.moveTo)(point)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict(zip(map(ord, characters), names[1:], strict=True)))
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.mark.parametrize("names", [("sky", "road 2"), ("Straße", "небо"), ("ciel", "forêt")])
def test_names_that_a_font_at_hand_has(without_fonts: None, names: tuple[str, str]) -> None:
    letters = Lettering(names)
    assert letters.class_names == list(names) and letters.note == ""
    font = letters.pillow(20)
    missing = bytes(font.getmask("\U0010ffff"))
    assert all(bytes(font.getmask(char)) != missing for char in "".join(names) if char != " ")


def test_an_installed_font_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    make_font(tmp_path / "other.ttf", "道路")
    make_font(tmp_path / "squares.ttf", "".join(CHINESE))
    fonts = [str(path) for path in tmp_path.iterdir()]
    monkeypatch.setattr(lettering, "findSystemFonts", lambda: fonts)
    letters = Lettering(CHINESE, ["val: 1"])
    assert letters.path == tmp_path / "squares.ttf"
    assert letters.class_names == list(CHINESE) and letters.note == ""
    assert letters.matplotlib(9).get_file() == str(tmp_path / "squares.ttf")


def test_without_a_font_classes_have_numbers_and_a_legend(without_fonts: None) -> None:
    letters = Lettering(CHINESE, ["best · 街道_1"])
    assert letters.class_names == ["class 0", "class 1"]
    assert "class 0 is 道路, class 1 is 天空" in letters.note and "\n" not in letters.note
    assert letters.title("best · 街_1") == r"best · \u8857_1"


def test_pictures_without_a_font_warn_of_nothing(without_fonts: None) -> None:
    labels = np.zeros((8, 8), np.uint8)
    palette = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iou = dict.fromkeys(CHINESE, 0.5)
        bars = class_iou_picture(iou, CHINESE, palette, "title")
        for figure in (confusion_picture(np.eye(2, dtype=int), CHINESE, "title"), bars):
            figure.canvas.draw()
        row = Shown("街", np.zeros((8, 8, 3), np.uint8), labels, labels)
        contact_sheet([row], CHINESE, palette)
    assert [text.get_text() for text in bars.axes[0].get_yticklabels()] == ["class 0", "class 1"]
