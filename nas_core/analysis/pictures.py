"""Pictures of what a trained network does on a split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageOps

from nas_core.data.lettering import Lettering
from nas_core.data.overlay import RIGHT, UNLABELLED, WRONG, colourise, error_map

COLUMNS = ("image", "truth", "prediction", "errors")
PER_GROUP = 2

# Pixels of a contact sheet.
_PANEL = 400
_GAP = 8
_LINE = 30
_TEXT = 20
_SWATCH = 30

_LONGEST_NAME = 24
_MOST_NUMBERS = 25
"""With more classes the cells of a confusion matrix are too small for numbers."""


@dataclass(frozen=True)
class Shown:
    """A row of a contact sheet: RGB image uint8 (H, W, 3), true and predicted classes (H, W)."""

    title: str
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.integer]
    prediction: npt.NDArray[np.integer]


def choose_images(scores: Sequence[float]) -> dict[int, str]:
    """The best, median and worst images, up to `PER_GROUP` each, from the best to the worst.

    Args:
        scores: of each image; NaN for one without a score, which is not chosen.

    Returns:
        best, median or worst by the image's index.
    """
    ranked = sorted(
        (index for index, score in enumerate(scores) if not math.isnan(score)),
        key=lambda index: -scores[index],
    )
    number = len(ranked)
    each = min(PER_GROUP, math.ceil(number / 3))
    middle = (number - each) // 2
    groups = {"best": 0, "worst": number - each, "median": middle}
    chosen: dict[int, str] = {}
    for name, start in groups.items():
        for index in ranked[start : start + each]:
            chosen.setdefault(index, name)
    return {index: chosen[index] for index in ranked if index in chosen}


def contact_sheet(
    rows: Sequence[Shown],
    classes: Sequence[str],
    palette: npt.NDArray[np.uint8],
    columns: Sequence[str] = COLUMNS,
) -> Image.Image:
    """A row an image: the image, its ground truth, the prediction, the errors; with a legend.

    Args:
        palette: uint8 (C, 3), the colours of the classes.
        columns: those of `COLUMNS` that are shown. Without "image" nothing shows the image, for
            data that may not be passed on: the errors lie on plain grey.
    """
    letters = Lettering(classes, (row.title for row in rows))
    sheet = _Sheet(len(columns) * (_PANEL + _GAP) + _GAP, letters)
    for place, heading in enumerate(columns):
        sheet.text(_GAP + place * (_PANEL + _GAP), heading)
    sheet.skip(_LINE)
    for row in rows:
        sheet.text(_GAP, letters.title(row.title))
        sheet.skip(_LINE)
        if "image" not in columns:
            row = replace(row, image=np.full_like(row.image, 128))
        panels = dict(zip(COLUMNS, _panels(row, palette), strict=True))
        sheet.panels([panels[column] for column in columns])
    colours = [tuple(int(value) for value in colour) for colour in palette]
    names = map(_short, letters.class_names)
    sheet.legend([*zip(names, colours, strict=True), ("not labelled", UNLABELLED)])
    sheet.legend([("errors: wrong", WRONG), ("right", RIGHT), ("not labelled", UNLABELLED)])
    return sheet.picture()


def confusion_picture(
    matrix: npt.NDArray[np.integer], classes: Sequence[str], title: str
) -> Figure:
    """Of the pixels of each true class, the per cent that were taken for each class.

    Args:
        matrix: counts (C, C), the true class in rows. A class without a pixel is an empty row.
    """
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(100 * matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    number = len(classes)
    side = min(30.0, max(5.0, 2.5 + 0.45 * number))
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    letters = Lettering(classes)
    names = [_short(name) for name in letters.class_names]
    size = min(10.0, 55 * side / number)  # points that a row has
    font = letters.matplotlib(size)
    axes.set_xticks(range(number), names, rotation=45, ha="right", font=font, parse_math=False)
    axes.set_yticks(range(number), names, font=font, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, parse_math=False)
    figure.colorbar(shown, label="% of the true class's pixels", shrink=0.8)
    if number <= _MOST_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:  # else it would read 0
                colour = "white" if share > 55 else "black"
                text = f"{share:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    return figure


def class_iou_picture(
    class_iou: Mapping[str, float],
    classes: Sequence[str],
    palette: npt.NDArray[np.uint8],
    title: str,
) -> Figure:
    """A bar a class in its colour, and a line at their mean.

    Args:
        class_iou: from 0 to 1 by class; one that it lacks is not in the split.
    """
    number = len(classes)
    figure = Figure(figsize=(8, min(60.0, 1.6 + 0.34 * number)), layout="constrained")
    axes = figure.subplots()
    values = [100 * class_iou.get(name, 0.0) for name in classes]
    axes.barh(range(number), values, color=palette / 255, edgecolor="0.3", linewidth=0.8)
    for place, name in enumerate(classes):
        text = f"{values[place]:.1f}" if name in class_iou else "not in the split"
        axes.text(values[place] + 1, place, text, va="center", fontsize=9)
    mean = float(np.mean([100 * value for value in class_iou.values()]))
    axes.axvline(mean, color="0.2", linestyle="--", linewidth=1, zorder=0)
    letters = Lettering(classes)
    names = [_short(name) for name in letters.class_names]
    axes.set_yticks(range(number), names, font=letters.matplotlib(10), parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set_xlabel(f"IoU, %; dashed: their mean, {mean:.1f}")
    axes.set_title(title, parse_math=False)
    return figure


class _Sheet:
    """A picture that grows downwards while it is drawn."""

    def __init__(self, width: int, letters: Lettering) -> None:
        self._width = width
        self._font = letters.pillow(_TEXT)
        self._top = _GAP
        self._picture = Image.new("RGB", (width, _GAP), "white")

    def skip(self, height: int) -> None:
        self._top += height

    def text(self, left: int, text: str) -> None:
        self._reserve(_LINE)
        draw = ImageDraw.Draw(self._picture)
        draw.text((left, self._top + _LINE // 2), text, "black", self._font, anchor="lm")

    def panels(self, panels: Sequence[Image.Image]) -> None:
        height = max(panel.height for panel in panels) + _GAP
        self._reserve(height)
        for column, panel in enumerate(panels):
            self._picture.paste(panel, (_GAP + column * (_PANEL + _GAP), self._top))
        self.skip(height)

    def legend(self, entries: Sequence[tuple[str, tuple[int, ...]]]) -> None:
        """Colours with their names, in as many lines as they need."""
        left = _GAP
        self._reserve(_LINE)
        for name, colour in entries:
            length = _SWATCH + 6 + math.ceil(self._font.getlength(name)) + 3 * _GAP
            if left + length > self._width and left > _GAP:
                left = _GAP
                self.skip(_LINE)
                self._reserve(_LINE)
            box = (left, self._top + 5, left + _SWATCH, self._top + _LINE - 5)
            ImageDraw.Draw(self._picture).rectangle(box, fill=colour, outline="black")
            self.text(left + _SWATCH + 6, name)
            left += length
        self.skip(_LINE)

    def picture(self) -> Image.Image:
        self._reserve(_GAP)
        return self._picture

    def _reserve(self, height: int) -> None:
        """Make the picture at least this much higher than what is drawn."""
        if self._picture.height < self._top + height:
            grown = Image.new("RGB", (self._width, self._top + height), "white")
            grown.paste(self._picture)
            self._picture = grown


def _panels(row: Shown, palette: npt.NDArray[np.uint8]) -> list[Image.Image]:
    box = (_PANEL, _PANEL)
    image = Image.fromarray(np.ascontiguousarray(row.image))
    labels = (
        colourise(row.truth, palette),
        colourise(row.prediction, palette),
        error_map(row.image, row.truth, row.prediction, len(palette)),
    )
    # Without blending: a mixture of two classes' colours would be a third one's.
    return [
        ImageOps.contain(image, box),
        *(ImageOps.contain(picture, box, Image.Resampling.NEAREST) for picture in labels),
    ]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
