"""A picture of boxes, lines and words, as SVG or PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Patch, PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

Format = Literal["svg", "png"]
Point = tuple[float, float]

INK = "#1b1f24"
_EDGE = "#b9c0c8"
_POINTS = 72  # an inch
_RADIUS = 4

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "nas",
    "font.sans-serif": ["DejaVu Sans"],  # the one that matplotlib brings
}


class Canvas:
    """A white figure with a point as its unit, and y downwards.

    Args:
        width, height: of the figure.
        left: how far from the figure's left edge x is 0.
    """

    def __init__(self, width: float, height: float, left: float) -> None:
        size = (width / _POINTS, height / _POINTS)
        self._figure = Figure(figsize=size, dpi=_POINTS, facecolor="white")
        # Without axes, which would take as long as all the rest.
        points = Affine2D().translate(left, -height).scale(1 / _POINTS, -1 / _POINTS)
        self._transform = points + self._figure.dpi_scale_trans

    def content(self, file_format: Format) -> bytes:
        """The content of a file, the same for the same picture; a PNG has two pixels a point.

        Not for several threads at a time: matplotlib's settings are others meanwhile.
        """
        unsaid = {"svg": ("Creator", "Date"), "png": ("Software",)}[file_format]
        stream = io.BytesIO()
        with matplotlib.rc_context(_SETTINGS):
            self._figure.savefig(
                stream, format=file_format, dpi=2 * _POINTS, metadata=dict.fromkeys(unsaid)
            )
        return stream.getvalue()

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        colour: str = INK,
        size: float = 10.5,
        weight: str = "normal",
        align: str = "left",
    ) -> None:
        """One line; `y` is that of the middle of its small letters."""
        self._figure.text(
            x,
            y + 0.27 * size,
            text,
            color=colour,
            fontfamily="sans-serif",
            fontsize=size,
            fontweight=weight,
            ha=align,
            va="baseline",
            parse_math=False,
            transform=self._transform,
        )

    def lines(self, x: float, y: float, lines: Sequence[str], align: str = "center") -> None:
        """Several lines, in the middle of which is `y`."""
        for row, line in enumerate(lines):
            self.text(x, y + 13 * (row - (len(lines) - 1) / 2), line, size=10, align=align)

    def box(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        style = "round,pad=0,rounding_size=4"
        self._add(FancyBboxPatch((x, y), width, height, style, fc=fill, ec=_EDGE, lw=0.8), level=0)

    def line(
        self,
        points: Sequence[Point],
        colour: str,
        *,
        level: int = 3,
        arrow: bool = False,
        name: str | None = None,
    ) -> None:
        """Along the points, with round bends.

        Args:
            level: a line of a higher one lies over it; boxes are at 0, gaps at 2.
            arrow: it ends in a head, which points to the right.
            name: the id of its element in an SVG.
        """
        if arrow:
            *before, (x, y) = points
            points = [*before, (x - 5, y)]
            head = [(x, y), (x - 7, y - 3.5), (x - 7, y + 3.5)]
            self._add(Polygon(head, color=colour, lw=0), level)
        self._add(PathPatch(_rounded(points), fc="none", ec=colour, lw=1.6, gid=name), level)

    def gap(self, start: Point, end: Point) -> None:
        """White, on which a line that is drawn along it crosses those of level 1."""
        self._add(PathPatch(Path([start, end]), ec="white", lw=5), level=2)

    def dot(self, x: float, y: float, colour: str) -> None:
        self._add(Circle((x, y), 2.6, color=colour, lw=0), level=4)

    def _add(self, patch: Patch, level: int) -> None:
        patch.set(transform=self._transform, zorder=level)
        self._figure.add_artist(patch)


def _rounded(points: Sequence[Point]) -> Path:
    """A path along the points whose bends are rounded."""
    vertices, codes = [points[0]], [Path.MOVETO]
    for before, at, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_towards(at, before), at, _towards(at, after)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*vertices, points[-1]], [*codes, Path.LINETO])


def _towards(start: Point, end: Point) -> Point:
    """Where a bend at `start` meets the line to `end`."""
    share = min(_RADIUS / math.dist(start, end), 0.5)
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
