"""Draws one street scene: an image and the mask that labels each of its pixels.

A pinhole camera looks along a straight street. A point of the ground is given by its depth
t in (0, 1] (0 at the horizon, 1 at the lower edge) and its lateral place u in image widths at
t = 1; everything that stands there is scaled by t. Objects are painted from far to near.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from nas_core.data.camvid import CLASSES, VOID

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(
    len(CLASSES)
)

Colour = tuple[int, int, int]
Point = tuple[float, float]

_GRAIN = {SKY: 2.0, BUILDING: 7.0, ROAD: 6.0, PAVEMENT: 7.0, TREE: 20.0, FENCE: 8.0}
"""Standard deviation of a class's own texture, in grey values; 4 for the others."""


def draw_scene(
    height: int, width: int, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """An RGB image and its mask, an 8-bit grey image of class numbers and void."""
    street = _Street.random(height, width, rng)
    canvas = _Canvas(height, width)
    _paint_sky(canvas, street, rng)
    _paint_ground(canvas, street, rng)
    for side in (-1, 1):
        _paint_buildings(canvas, street, side, rng)
    objects = [
        (t, paint, side)
        for paint, most in _NUM_OBJECTS.items()
        for side in (-1, 1)
        for t in rng.uniform(0.12, 0.95, rng.integers(0, most + 1))
    ]
    for t, paint, side in sorted(objects, key=lambda item: item[0]):
        paint(canvas, street, float(t), side, rng)
    labels = np.array(canvas.mask)
    pixels = _light(np.array(canvas.image, dtype=np.float32), labels, rng)
    return Image.fromarray(pixels), canvas.mask


@dataclass(frozen=True)
class _Street:
    """The camera's view and the street's widths, in pixels and in image widths at t = 1."""

    height: int
    width: int
    horizon: float
    vanishing_x: float
    road: float
    pavement: float

    @classmethod
    def random(cls, height: int, width: int, rng: np.random.Generator) -> _Street:
        return cls(
            height,
            width,
            horizon=height * rng.uniform(0.34, 0.48),
            vanishing_x=width * rng.uniform(0.38, 0.62),
            road=rng.uniform(0.5, 0.72),
            pavement=rng.uniform(0.25, 0.45),
        )

    def place(self, u: float, t: float, up: float = 0.0) -> Point:
        """Pixel (x, y) of a point `up` image heights (at t = 1) above the ground."""
        x = self.vanishing_x + u * t * self.width
        y = self.horizon + t * (self.height - self.horizon) - up * t * self.height
        return x, y

    @property
    def facade(self) -> float:
        """Lateral place of the buildings."""
        return self.road + self.pavement


class _Canvas:
    """An image and its mask that are drawn together."""

    def __init__(self, height: int, width: int) -> None:
        self.image = Image.new("RGB", (width, height))
        self.mask = Image.new("L", (width, height), VOID)
        self._image, self._mask = ImageDraw.Draw(self.image), ImageDraw.Draw(self.mask)

    def polygon(self, points: Sequence[Point], label: int, colour: Colour) -> None:
        self._image.polygon(points, fill=colour)
        self._mask.polygon(points, fill=label)

    def box(self, corner: Point, opposite: Point, label: int, colour: Colour) -> None:
        bounds = _ordered(corner, opposite)
        self._image.rectangle(bounds, fill=colour)
        self._mask.rectangle(bounds, fill=label)

    def ellipse(self, centre: Point, radii: Point, label: int, colour: Colour) -> None:
        (x, y), (across, down) = centre, radii
        bounds = (x - across, y - down, x + across, y + down)
        self._image.ellipse(bounds, fill=colour)
        self._mask.ellipse(bounds, fill=label)

    def ring(self, centre: Point, radius: float, label: int, colour: Colour) -> None:
        (x, y), line = centre, max(1, round(radius / 5))
        bounds = (x - radius, y - radius, x + radius, y + radius)
        self._image.ellipse(bounds, outline=colour, width=line)
        self._mask.ellipse(bounds, outline=label, width=line)


def _ordered(corner: Point, opposite: Point) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = corner, opposite
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(min(255, max(0, value * factor))) for value in colour)
    return red, green, blue


def _between(low: Colour, high: Colour, rng: np.random.Generator) -> Colour:
    """A random colour: one brightness between two bounds, and a tint."""
    brightness = rng.uniform() + rng.normal(0, 0.12, 3)
    red, green, blue = (
        int(np.clip(least + (most - least) * share, 0, 255))
        for least, most, share in zip(low, high, brightness, strict=True)
    )
    return red, green, blue


def _paint_sky(canvas: _Canvas, street: _Street, rng: np.random.Generator) -> None:
    clear = rng.random() < 0.5
    top = _between((90, 130, 180), (130, 170, 225), rng) if clear else _grey(150, 215, rng)
    for row in range(int(street.horizon) + 2):
        shade = 1 + 0.25 * row / street.horizon
        canvas.box((0, row), (street.width, row), SKY, _shade(top, shade))


def _grey(low: int, high: int, rng: np.random.Generator) -> Colour:
    value = int(rng.integers(low, high))
    return value, value, min(255, value + 6)


def _paint_ground(canvas: _Canvas, street: _Street, rng: np.random.Generator) -> None:
    pavement, road = _grey(105, 160, rng), _grey(62, 112, rng)
    canvas.box((0, street.horizon), (street.width, street.height), PAVEMENT, pavement)
    apex = (street.vanishing_x, street.horizon)
    edges = [street.place(side * street.road, 1.2) for side in (-1, 1)]
    canvas.polygon([apex, *edges], ROAD, road)
    for side in (-1, 1):
        kerb = [street.place(side * street.road * f, 1.2) for f in (1.0, 1.04)]
        canvas.polygon([apex, *kerb], PAVEMENT, _shade(pavement, 1.25))
    for near in np.arange(0.1, 1.2, 0.22):  # lane marks belong to the road, as in CamVid
        marks = [street.place(u, t) for u, t in _patch(0.012, near, near + 0.1)]
        canvas.polygon(marks, ROAD, _shade(road, 1.9))
    if rng.random() < 0.6:
        t, side = rng.uniform(0.2, 0.8), rng.choice((-1, 1))
        shadow = [(0.0, t), (side * 1.2, t - 0.08), (side * 1.2, t + 0.15), (0.0, t + 0.1)]
        _darken(canvas, [street.place(u, depth) for u, depth in shadow])


def _patch(half: float, near: float, far: float) -> list[Point]:
    return [(-half, near), (half, near), (half, far), (-half, far)]


def _darken(canvas: _Canvas, points: Sequence[Point]) -> None:
    """A cast shadow: the image gets darker and the labels stay."""
    shadow = Image.new("L", canvas.image.size, 255)
    ImageDraw.Draw(shadow).polygon(points, fill=165)
    black = Image.new("RGB", canvas.image.size)
    canvas.image.paste(Image.composite(canvas.image, black, shadow))


def _paint_buildings(canvas: _Canvas, street: _Street, side: int, rng: np.random.Generator) -> None:
    """A row of facades from far to near, with gaps through which the sky or trees show."""
    t = 0.04
    while t < 1.3:
        depth = t * rng.uniform(0.35, 0.9) + 0.03
        if rng.random() < 0.8:
            _paint_facade(canvas, street, side, (t, t + depth), rng)
        else:
            _paint_tree(canvas, street, t + depth / 2, side, rng)
        t += depth


def _paint_facade(
    canvas: _Canvas,
    street: _Street,
    side: int,
    depths: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    far, near = depths
    up = rng.uniform(0.8, 1.7)
    wall = _between((85, 70, 60), (185, 160, 145), rng)
    u = side * street.facade

    def corner(along: float, rise: float) -> Point:
        return street.place(u, far + (near - far) * along, up * rise)

    canvas.polygon([corner(0, 0), corner(0, 1), corner(1, 1), corner(1, 0)], BUILDING, wall)
    window = _shade(wall, rng.uniform(0.45, 0.7) if rng.random() < 0.8 else 1.3)
    columns, rows = int(rng.integers(2, 5)), int(rng.integers(2, 5))
    for column in range(columns):
        for row in range(rows):
            left, right = (column + 0.25) / columns, (column + 0.7) / columns
            low, high = (row + 0.3) / rows, (row + 0.75) / rows
            quad = [corner(left, low), corner(left, high), corner(right, high), corner(right, low)]
            canvas.polygon(quad, BUILDING, window)


def _paint_tree(
    canvas: _Canvas, street: _Street, t: float, side: int, rng: np.random.Generator
) -> None:
    u = side * (street.facade - rng.uniform(-0.02, 0.08))
    up = rng.uniform(0.3, 0.5)
    x, ground = street.place(u, t)
    trunk = max(0.5, 0.012 * t * street.width)
    top = street.place(u, t, up)[1]
    canvas.box(
        (x - trunk, top), (x + trunk, ground), TREE, _between((45, 35, 25), (80, 65, 50), rng)
    )
    leaves = _between((35, 60, 25), (95, 120, 60), rng)
    for _ in range(7):
        spread = rng.normal(0, (0.05 * street.width * t, 0.06 * street.height * t))
        radii = rng.uniform(0.06, 0.14, 2) * t * street.width
        centre = (x + spread[0], top + spread[1])
        canvas.ellipse(centre, (radii[0], radii[1]), TREE, _shade(leaves, rng.uniform(0.75, 1.25)))


def _paint_fence(
    canvas: _Canvas, street: _Street, t: float, side: int, rng: np.random.Generator
) -> None:
    u, up = side * (street.facade - 0.03), rng.uniform(0.1, 0.17)
    far, near = t, t * rng.uniform(1.4, 2.0) + 0.1
    colour = _between((70, 55, 45), (140, 125, 110), rng)
    corners = [street.place(u, far), street.place(u, far, up)]
    corners += [street.place(u, near, up), street.place(u, near)]
    canvas.polygon(corners, FENCE, colour)
    for along in np.linspace(far, near, 14):
        x, ground = street.place(u, along)
        top = street.place(u, along, up)[1]
        canvas.box((x, top), (x, ground), FENCE, _shade(colour, 0.6))


def _paint_pole(
    canvas: _Canvas, street: _Street, t: float, side: int, rng: np.random.Generator
) -> None:
    """A lamp post or a sign post, with its sign."""
    u = side * (street.road + 0.04)
    has_sign = rng.random() < 0.6
    up = rng.uniform(0.28, 0.4) if has_sign else rng.uniform(0.5, 0.9)
    x, ground = street.place(u, t)
    top = street.place(u, t, up)[1]
    half = max(0.5, 0.008 * t * street.width)
    canvas.box((x - half, top), (x + half, ground), POLE, _grey(45, 130, rng))
    if not has_sign:
        return
    size = max(1.5, 0.035 * t * street.width)
    vivid = ((190, 30, 35), (30, 70, 180), (225, 200, 50))[rng.integers(3)]
    if rng.random() < 0.5:
        canvas.ellipse((x, top), (size, size), SIGN, vivid)
        canvas.ellipse((x, top), (size * 0.55, size * 0.55), SIGN, (225, 225, 225))
    else:
        canvas.box((x - size, top - size), (x + size, top + size), SIGN, vivid)


def _paint_car(
    canvas: _Canvas, street: _Street, t: float, side: int, rng: np.random.Generator
) -> None:
    u = side * street.road * rng.uniform(0.45, 0.85)
    x, ground = street.place(u, t)
    half, tall = 0.14 * t * street.width, 0.24 * t * street.height
    paint = _between((20, 20, 20), (210, 200, 200), rng)
    if rng.random() < 0.4:
        paint = ((150, 25, 30), (30, 50, 110), (35, 80, 60))[rng.integers(3)]
    canvas.ellipse((x, ground), (half * 1.15, tall * 0.1), ROAD, (35, 35, 38))
    canvas.box((x - half, ground - tall * 0.62), (x + half, ground - tall * 0.12), CAR, paint)
    cabin = [(-0.85, 0.6), (-0.6, 1.0), (0.6, 1.0), (0.85, 0.6)]
    canvas.polygon([(x + a * half, ground - b * tall) for a, b in cabin], CAR, _shade(paint, 0.9))
    glass = [(-0.68, 0.64), (-0.5, 0.92), (0.5, 0.92), (0.68, 0.64)]
    canvas.polygon([(x + a * half, ground - b * tall) for a, b in glass], CAR, (50, 58, 66))
    for wheel in (-0.75, 0.75):
        centre = (x + wheel * half, ground - tall * 0.1)
        canvas.ellipse(centre, (half * 0.18, tall * 0.12), CAR, (22, 22, 22))
        lamp = (x + wheel * half, ground - tall * 0.45)
        canvas.ellipse(lamp, (half * 0.12, tall * 0.06), CAR, (225, 215, 180))


def _paint_person(
    canvas: _Canvas, x: float, ground: float, size: float, label: int, rng: np.random.Generator
) -> None:
    """A standing person of `size` pixels; the ground is where the feet are."""
    top = _between((20, 20, 20), (215, 200, 200), rng)
    legs = _between((20, 20, 30), (85, 85, 110), rng)
    wide = size * 0.13
    canvas.box((x - wide * 0.8, ground - size * 0.5), (x + wide * 0.8, ground), label, legs)
    canvas.box((x - wide, ground - size * 0.84), (x + wide, ground - size * 0.45), label, top)
    head = (max(0.6, size * 0.075), max(0.6, size * 0.09))
    canvas.ellipse(
        (x, ground - size * 0.91), head, label, _between((90, 65, 50), (215, 175, 150), rng)
    )


def _paint_pedestrian(
    canvas: _Canvas, street: _Street, t: float, side: int, rng: np.random.Generator
) -> None:
    u = side * (street.road + street.pavement * rng.uniform(0.1, 0.8))
    x, ground = street.place(u, t)
    _paint_person(canvas, x, ground, 0.33 * t * street.height, PEDESTRIAN, rng)


def _paint_bicyclist(
    canvas: _Canvas, street: _Street, t: float, side: int, rng: np.random.Generator
) -> None:
    u = side * street.road * rng.uniform(0.2, 0.9)
    x, ground = street.place(u, t)
    size = 0.34 * t * street.height
    wheel = max(1.0, size * 0.2)
    frame = _between((20, 20, 20), (160, 60, 60), rng)
    for away in (-1.0, 1.0):
        hub = (x + away * size * 0.24, ground - wheel)
        canvas.ring(hub, wheel, BICYCLIST, (28, 28, 28))
    bar = (ground - wheel * 1.3, ground - wheel * 0.8)
    canvas.box((x - size * 0.24, bar[0]), (x + size * 0.24, bar[1]), BICYCLIST, frame)
    _paint_person(canvas, x, ground - wheel * 0.7, size * 0.85, BICYCLIST, rng)


def _paint_bin(
    canvas: _Canvas, street: _Street, t: float, side: int, rng: np.random.Generator
) -> None:
    """Something that belongs to no class."""
    x, ground = street.place(side * (street.facade - 0.06), t)
    half, tall = 0.03 * t * street.width, 0.12 * t * street.height
    canvas.box((x - half, ground - tall), (x + half, ground), VOID, _grey(30, 90, rng))


_Painter = Callable[[_Canvas, _Street, float, int, np.random.Generator], None]
_NUM_OBJECTS: dict[_Painter, int] = {
    _paint_fence: 2,
    _paint_tree: 3,
    _paint_pole: 3,
    _paint_car: 3,
    _paint_pedestrian: 3,
    _paint_bicyclist: 1,
    _paint_bin: 2,
}
"""The most of each kind on each side of the street."""


def _light(
    pixels: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Add texture, light and its colour, and the camera's blur and noise: uint8 (H, W, 3)."""
    height, width = labels.shape
    grain = np.array([_GRAIN.get(label, 4.0) for label in range(VOID + 1)], np.float32)
    texture = rng.standard_normal((height, width, 1), dtype=np.float32)
    pixels = pixels + texture * grain[labels][..., None]
    cast = rng.uniform(0.92, 1.08, 3) * rng.uniform(0.65, 1.2)
    left, right = rng.uniform(0.85, 1.15, 2)
    across = np.linspace(left, right, width)[None, :, None]
    lit = np.clip(pixels * cast * across, 0, 255).astype(np.uint8)
    blurred = Image.fromarray(lit).filter(ImageFilter.GaussianBlur(0.5 * height / 90))
    noise = rng.normal(0, 5, (height, width, 3))
    return np.clip(np.array(blurred, dtype=np.float32) + noise, 0, 255).astype(np.uint8)
