"""Drawings of architectures: all is there, under its name, and nothing lies over anything else."""

import io
import re
from collections import Counter
from functools import cache
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageFont

from nas_core.analysis.drawing import AGGREGATION_NAMES, OPERATION_NAMES, draw
from nas_core.models.cost import measure_cost
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.decisions import sample
from nas_core.space.genotype import AGGREGATIONS, OPERATIONS, Genotype

FORM = {"num_classes": 11, "agg_size": 64, "sep_repeats": 2, "input_size": (360, 480)}
# One input for all, so that seven layers go to the head; and each layer after the one before.
WIDE = {"templates": [[2, 5, 0]] * 3, "structure": [[0, 0, 0, 3, 0]] * 7}
DEEP = {
    "templates": [[4, 4, 1]] * 3,
    "structure": [[0, 1, 2, 3, 1], *([k, k + 1, 2, 3, int(k < 3)] for k in range(1, 7))],
}
GENOTYPES = {
    **ARCHITECTURES,
    "wide": Genotype.from_dict(WIDE),
    "deep": Genotype.from_dict(DEEP),
    **{f"random {seed}": sample(np.random.default_rng(seed)) for seed in range(6)},
}
WIDTH = 600
FONT = ImageFont.truetype(font_manager.findfont("DejaVu Sans:bold"), 100)

each = pytest.mark.parametrize("name", GENOTYPES)


@cache
def elements(name: str) -> list[ElementTree.Element]:
    svg = draw(GENOTYPES[name], name, **FORM)
    return list(ElementTree.fromstring(svg).iter())


def texts(name: str) -> Counter[str]:
    return Counter(one.text for one in elements(name) if one.tag.endswith("}text"))


def entry(number: int) -> str:
    return f"tap {number}" if number < 2 else f"layer {number - 2}"


@each
def test_every_layer_is_named_with_its_template(name: str) -> None:
    genotype, shown = GENOTYPES[name], texts(name)
    templates = [genotype.templates[layer.template] for layer in genotype.structure]
    operations = Counter(OPERATIONS[op] for one in templates for op in (one.op1, one.op2))
    for operation, label in OPERATION_NAMES.items():
        assert shown[label] == operations[operation], operation
    aggregations = Counter(AGGREGATIONS[one.agg] for one in templates)
    for aggregation, label in AGGREGATION_NAMES.items():
        assert shown[label] == aggregations[aggregation], aggregation
    facts = Counter(
        f"template {layer.template}, × {layer.repeats}, stride {layer.stride}"
        for layer in genotype.structure
    )
    assert {text: shown[text] for text in facts} == facts
    assert shown[f"{name} · {genotype.id}"] == 1
    assert set(OPERATION_NAMES) == set(OPERATIONS)
    assert set(AGGREGATION_NAMES) == set(AGGREGATIONS)


@each
def test_sizes_and_channels_are_those_of_the_network(name: str) -> None:
    cost, shown = measure_cost(GENOTYPES[name], **FORM), texts(name)
    layers = cost.pool_shapes[2:]
    sizes = Counter(f"{width}×{height}" for _, height, width in layers)
    sizes["480×360"] += 1  # the image
    assert {text: shown[text] for text in sizes} == sizes
    assert all(shown[f"{channels} channels"] for channels, _, _ in layers)
    assert shown["11 classes"] == 1 and shown["64 channels"] >= 1
    joined = sum(layers[index][0] for index in GENOTYPES[name].head_inputs)
    assert shown[f"{joined} channels"] >= 1


@each
def test_there_is_an_arrow_to_each_input_and_from_each_output_that_the_head_takes(
    name: str,
) -> None:
    genotype = GENOTYPES[name]
    inputs = {
        f"{entry(taken)} to layer {index} {side}"
        for index, layer in enumerate(genotype.structure)
        for side, taken in (("a", layer.in1), ("b", layer.in2))
    }
    outputs = {f"layer {index} to head" for index in genotype.head_inputs}
    drawn = Counter(one.get("id") for one in elements(name) if " to " in one.get("id", ""))
    assert drawn == Counter(inputs | outputs)
    taken = {taken for layer in genotype.structure for taken in (layer.in1, layer.in2)}
    assert [texts(name)[f"tap {tap}: unused"] for tap in (0, 1)] == [
        tap not in taken for tap in (0, 1)
    ]


@each
def test_no_text_is_small_leaves_the_picture_or_touches_another(name: str) -> None:
    boxes = []
    for one in elements(name):
        if not one.tag.endswith("}text"):
            continue
        style = one.get("style")
        size = float(re.search(r"font-size: ([\d.]+)px", style)[1])
        assert size >= 9
        width = FONT.getlength(one.text) * size / 100
        start = {"start": 0.0, "middle": 0.5}[re.search(r"text-anchor: (\w+)", style)[1]]
        left, bottom = float(one.get("x")) - start * width, float(one.get("y"))
        boxes.append((one.text, left, left + width, bottom - 0.75 * size, bottom + 0.2 * size))
        assert left >= 0 and left + width <= WIDTH, one.text
    for (a, a0, a1, a2, a3), (b, b0, b1, b2, b3) in combinations(boxes, 2):
        assert a1 <= b0 or b1 <= a0 or a3 <= b2 or b3 <= a2, (a, b)


@each
def test_no_lane_is_shared_by_two_outputs_at_one_height(name: str) -> None:
    lanes: dict[float, list[tuple[float, float]]] = {}
    for one in elements(name):
        found = re.fullmatch(r"M (\S+) (\S+)\s+L \1 (\S+)\s*", one.get("d", ""))
        if found and "stroke-width: 1.6" in one.get("style"):
            x, start, end = map(float, found.groups())
            lanes.setdefault(x, []).append((start, end))
    taken = {entry for layer in GENOTYPES[name].structure for entry in (layer.in1, layer.in2)}
    assert sum(map(len, lanes.values())) == len(taken | set(range(2, 9)))
    for spans in lanes.values():
        assert all(
            end < start for (_, end), (start, _) in zip(spans, sorted(spans)[1:], strict=False)
        )


def test_a_name_is_text_whatever_it_is() -> None:
    svg = draw(ARCHITECTURES["arch0"], "$a$ <b> & 'c'", **FORM)
    shown = [one.text for one in ElementTree.fromstring(svg).iter() if one.tag.endswith("}text")]
    assert any(text.startswith("$a$ <b> & 'c' · ") for text in shown)


def test_the_same_picture_has_the_same_bytes() -> None:
    for file_format in ("svg", "png"):
        first, second = (
            draw(ARCHITECTURES["arch1"], "arch1", **FORM, file_format=file_format) for _ in "ab"
        )
        assert first == second
        assert b"Date" not in first and b"atplotlib" not in first


def test_a_png_has_two_pixels_for_each_point() -> None:
    svg, png = (draw(ARCHITECTURES["arch0"], "a", **FORM, file_format=f) for f in ("svg", "png"))
    height = int(re.search(rb'viewBox="0 0 600 (\d+)"', svg)[1])
    picture = Image.open(io.BytesIO(png))
    assert picture.size == (1200, 2 * height)
    assert picture.getpixel((0, 0))[:3] == (255, 255, 255)
    assert len(picture.convert("RGB").getcolors(2**20)) > 100
