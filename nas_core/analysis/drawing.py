"""An architecture drawn: the encoder's taps, the layers with their templates, and the head.

Each output runs down a lane of its own at the left, from which arrows lead to what takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nas_core.analysis.canvas import INK, Canvas, Format, Point
from nas_core.config import DEFAULT_ENCODER
from nas_core.models.cost import Shape, measure_cost
from nas_core.models.encoder import encoder_parts
from nas_core.space.genotype import AGGREGATIONS, NUM_STRIDED_LAYERS, NUM_TAPS, OPERATIONS, Genotype

OPERATION_NAMES = {
    "sep_conv_3x3": "sep conv 3×3",
    "sep_conv_5x5": "sep conv 5×5",
    "global_average_pool": "global average pool",
    "max_pool_3x3": "max pool 3×3",
    "sep_conv_5x5_dil6": "sep conv 5×5, dilation 6",
    "skip_connect": "skip connect",
}
AGGREGATION_NAMES = {"psum": "weighted sum", "cat": "concat, conv 1×1"}

# In points. From above: the title, the encoder, room for the taps' ways, and the layers with gaps.
_WIDTH, _MARGIN = 600, 12
_TITLE, _ENCODER, _TAPS, _LAYER, _GAP = 58, 68, 26, 84, 20
_HEAD, _HEAD_PITCH, _NOTES = 36, 18, 70  # the head's heading, and from one input to the next
_LANE = 11
_CARD_X, _CARD_Y, _CARDS = 3, -2, 9  # from one repeat to the next, and room for all
# Of a layer: how far below its top its inputs are, and where its columns begin.
_INPUTS = (42, 68)
_OPERATION, _AGGREGATION, _SHAPE = 62, 240, 362

_GREY, _PANEL = "#59636e", "#f4f6f8"
# Paul Tol's muted scheme, which colour-blind readers can tell apart, with the pale ones darker.
_COLOURS = (
    *("#332288", "#117733", "#c0505f", "#0e8fbf", "#8a8a20"),
    *("#882255", "#2f9485", "#b8740b", "#aa4499"),
)
_FILLS = {"sep": "#dbe9f9", "max": "#fbe8d3", "global": "#f8dcdc", "skip": "#e6e6e6"}


@dataclass(frozen=True)
class _Arrow:
    """From the lane of an output to what takes it, at a height."""

    name: str
    label: str
    height: float


@dataclass
class _Output:
    """An entry of the pool, and its way: down from `leaves`, left at `turns`, down its lane."""

    name: str
    colour: str
    leaves: Point
    turns: float
    arrows: list[_Arrow] = field(default_factory=list)
    lane: int = 0

    @property
    def ends(self) -> float:
        return self.arrows[-1].height


def draw(
    genotype: Genotype,
    name: str,
    *,
    num_classes: int,
    agg_size: int,
    sep_repeats: int,
    input_size: tuple[int, int],
    encoder: str = DEFAULT_ENCODER,
    file_format: Format = "svg",
) -> bytes:
    """The content of a picture file, the same for the same arguments.

    Not for several threads at a time: see `Canvas.content`.

    Args:
        name: of the architecture, for the title.
        num_classes, agg_size, sep_repeats: see `Decoder`.
        encoder: its name, see `Encoder`.
        input_size: height and width of the image that sizes and multiply-accumulates are of.
        file_format: svg, 600 points wide, or png, 1200 pixels wide.
    """
    cost = measure_cost(
        genotype,
        num_classes=num_classes,
        agg_size=agg_size,
        sep_repeats=sep_repeats,
        input_size=input_size,
        encoder=encoder,
    )
    drawing = _Drawing(genotype, cost.pool_shapes)
    drawing.title(name, cost.num_parameters, cost.macs)
    drawing.encoder(encoder, input_size)
    for index in range(len(genotype.structure)):
        drawing.layer(index)
    drawing.head(agg_size, num_classes, cost.output_size)
    drawing.connections()
    drawing.notes(sep_repeats)
    return drawing.canvas.content(file_format)


class _Drawing:
    """The parts of a drawing. x counts from the left edge of the layers, so lanes are below 0."""

    def __init__(self, genotype: Genotype, shapes: Sequence[Shape]) -> None:
        self.genotype, self.shapes = genotype, shapes
        layers = range(len(genotype.structure) + 1)
        self.tops = [_TITLE + _ENCODER + _TAPS + index * (_LAYER + _GAP) for index in layers]
        self.head_height = _HEAD + _HEAD_PITCH * max(3, len(genotype.head_inputs)) + 6
        self.pool = _pool(genotype, self.tops)
        left = _MARGIN + _LANE * _assign_lanes(self.pool)
        self.margin, self.width = _MARGIN - left, _WIDTH - _MARGIN - left - _CARDS
        self.canvas = Canvas(_WIDTH, self.tops[-1] + self.head_height + _NOTES, left)

    def title(self, name: str, num_parameters: int, macs: int) -> None:
        shown = name if name == self.genotype.id else f"{name} · {self.genotype.id}"
        facts = f"{num_parameters:,} parameters, {macs / 1e9:.2f} GMACs; sizes are width × height"
        self.canvas.text(self.margin, 26, shown, size=15, weight="bold")
        self.canvas.text(self.margin, 45, facts, colour=_GREY)

    def encoder(self, name: str, input_size: tuple[int, int]) -> None:
        canvas = self.canvas
        canvas.box(0, _TITLE, self.width, _ENCODER, _PANEL)
        middle = _TITLE + 25
        first, second = encoder_parts(name)
        for x, width, lines in (
            (8, 84, ("image", _size(input_size))),
            (112, 152, first),
            (284, 152, second),
        ):
            canvas.box(x, middle - 17, width, 34, "white")
            canvas.lines(x + width / 2, middle, lines)
        canvas.line([(92, middle), (112, middle)], INK, arrow=True)
        canvas.line([(264, middle), (284, middle)], INK, arrow=True)
        for output, shape in zip(self.pool, self.shapes[:NUM_TAPS], strict=False):
            facts = ", ".join(_shape(shape)) if output.arrows else "unused"
            text = f"{output.name}: {facts}"
            canvas.text(output.leaves[0] + 7, _TITLE + 55, text, colour=output.colour)

    def layer(self, index: int) -> None:
        canvas, top, layer = self.canvas, self.tops[index], self.genotype.structure[index]
        template = self.genotype.templates[layer.template]
        for card in reversed(range(layer.repeats)):
            canvas.box(_CARD_X * card, top + _CARD_Y * card, self.width, _LAYER, _PANEL)
        output = self.pool[NUM_TAPS + index]
        canvas.text(8, top + 16, output.name, colour=output.colour, weight="bold")
        facts = f"template {layer.template}, × {layer.repeats}, stride {layer.stride}"
        canvas.text(_OPERATION, top + 16, facts)
        middle = top + sum(_INPUTS) / 2
        for operation, below in zip((template.op1, template.op2), _INPUTS, strict=True):
            name, y = OPERATIONS[operation], top + below
            canvas.box(_OPERATION, y - 10, 148, 20, _FILLS[name.partition("_")[0]])
            canvas.text(_OPERATION + 74, y, OPERATION_NAMES[name], align="center")
            path = [(_OPERATION + 148, y), (_OPERATION + 160, y), (_OPERATION + 160, middle)]
            canvas.line([*path, (_AGGREGATION, middle)], INK, arrow=True)
        canvas.box(_AGGREGATION, middle - 10, 108, 20, "white")
        aggregation = AGGREGATION_NAMES[AGGREGATIONS[template.agg]]
        canvas.text(_AGGREGATION + 54, middle, aggregation, align="center")
        canvas.lines(_SHAPE, middle, _shape(self.shapes[NUM_TAPS + index]), align="left")

    def head(self, agg_size: int, num_classes: int, output_size: tuple[int, int]) -> None:
        canvas, top = self.canvas, self.tops[-1]
        height = self.head_height - _HEAD - 8
        middle = top + _HEAD + height / 2
        canvas.box(0, top, self.width, self.head_height, _PANEL)
        canvas.text(8, top + 16, "head", weight="bold")
        facts = f"logits of {_size(output_size)}, resized to the image"
        canvas.text(_OPERATION, top + 16, facts)
        collected = [self.shapes[NUM_TAPS + index][0] for index in self.genotype.head_inputs]
        joined = "ReLU" if len(collected) == 1 else "resize, concat, ReLU"
        canvas.box(_OPERATION, top + _HEAD, 122, height, "white")
        canvas.lines(_OPERATION + 61, middle, (joined, f"{sum(collected)} channels"))
        for x, lines in (
            (204, ("conv 1×1, BN, ReLU", f"{agg_size} channels")),
            (340, ("conv 3×3", f"{num_classes} classes")),
        ):
            canvas.line([(x - 20, middle), (x, middle)], INK, arrow=True)
            canvas.box(x, middle - 18, 116, 36, "white")
            canvas.lines(x + 58, middle, lines)

    def connections(self) -> None:
        """The outputs that are taken, and an arrow with its name to each that takes one."""
        canvas = self.canvas
        for output in self.pool:
            if not output.arrows:
                continue
            colour, lane, (x, y) = output.colour, -_LANE * (output.lane + 1), output.leaves
            # What crosses a lane interrupts it; its bends belong to the lines that cross.
            canvas.line([(lane, output.turns + 6), (lane, output.ends - 6)], colour, level=1)
            self._gap(lane, output.turns)
            turn = (lane, output.turns)
            canvas.line([(x, y), (x, output.turns), turn, (lane, output.turns + 6)], colour)
            for arrow in output.arrows:
                self._gap(lane, arrow.height)
                path = [(lane, arrow.height), (_OPERATION, arrow.height)]
                if arrow is output.arrows[-1]:
                    path = [(lane, arrow.height - 6), *path]
                else:
                    canvas.dot(lane, arrow.height, colour)
                canvas.line(path, colour, arrow=True, name=arrow.name)
                canvas.text(6, arrow.height - 7, arrow.label, colour=colour, size=9.5)

    def _gap(self, lane: float, height: float) -> None:
        if lane < -_LANE:  # else there is none to cross
            self.canvas.gap((lane + 3, height), (-2, height))

    def notes(self, sep_repeats: int) -> None:
        times = "once" if sep_repeats == 1 else f"{sep_repeats} times"
        top = self.tops[-1] + self.head_height + 18
        for row, line in enumerate(
            (
                "× n: the template n times, first on (a, b), then on (b, result), with new weights",
                f"sep conv: depthwise convolution, conv 1×1, BN and ReLU, {times}",
                f"where a and b come to different sizes: the smaller in layers 0 to "
                f"{NUM_STRIDED_LAYERS - 1}, else the larger",
            )
        ):
            self.canvas.text(self.margin, top + 15 * row, line, colour=_GREY, size=9.5)


def _pool(genotype: Genotype, tops: Sequence[float]) -> list[_Output]:
    """The taps and the layers with what takes them, from above to below."""
    pool = []
    for tap in range(NUM_TAPS):
        leaves = (122.0 + 172 * tap, _TITLE + 42.0)
        turns = _TITLE + _ENCODER + 8.0 * (1 + tap)
        pool.append(_Output(f"tap {tap}", _COLOURS[tap], leaves, turns))
    for index, top in enumerate(tops[:-1]):
        leaves = (_AGGREGATION + 54, top + sum(_INPUTS) / 2 + 10)
        colour = _COLOURS[NUM_TAPS + index]
        pool.append(_Output(f"layer {index}", colour, leaves, top + _LAYER + 8))
    for index, (top, layer) in enumerate(zip(tops, genotype.structure, strict=False)):
        for side, entry, below in zip("ab", (layer.in1, layer.in2), _INPUTS, strict=True):
            source = pool[entry]
            name = f"{source.name} to layer {index} {side}"
            source.arrows.append(_Arrow(name, f"{side}: {source.name}", top + below))
    for place, index in enumerate(genotype.head_inputs):
        source = pool[NUM_TAPS + index]
        height = tops[-1] + _HEAD + _HEAD_PITCH * (place + 0.5)
        source.arrows.append(_Arrow(f"{source.name} to head", source.name, height))
    return pool


def _assign_lanes(pool: Sequence[_Output]) -> int:
    """Give each output that is taken a lane, the shorter the nearer; returns their number."""
    lanes: list[list[_Output]] = []
    taken = [output for output in pool if output.arrows]
    for output in sorted(taken, key=lambda output: output.ends - output.turns):
        output.lane = next(
            (
                number
                for number, others in enumerate(lanes)
                if all(output.turns > o.ends or output.ends < o.turns for o in others)
            ),
            len(lanes),
        )
        if output.lane == len(lanes):
            lanes.append([])
        lanes[output.lane].append(output)
    return len(lanes)


def _size(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width}×{height}"


def _shape(shape: Shape) -> tuple[str, str]:
    channels, height, width = shape
    return _size((height, width)), f"{channels} channels"
