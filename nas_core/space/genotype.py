"""An architecture as plain data: the paper's JSON encoding, a canonical id, a description.

Source of the encoding: Nekrasov et al., "Template-Based Automatic Search of Compact Semantic
Segmentation Architectures", arXiv 1904.02365.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from nas_core.base.errors import GenotypeError, shown
from nas_core.base.files import digest_of, read_json

OPERATIONS = (
    "sep_conv_3x3",
    "sep_conv_5x5",
    "global_average_pool",
    "max_pool_3x3",
    "sep_conv_5x5_dil6",
    "skip_connect",
)
AGGREGATIONS = ("psum", "cat")
NUM_TAPS = 2
NUM_TEMPLATES = 3
NUM_LAYERS = 7
MAX_REPEATS = 4
NUM_STRIDED_LAYERS = NUM_LAYERS // 2


class Template(NamedTuple):
    """agg(op1(a), op2(b)): indices into `OPERATIONS` and `AGGREGATIONS`."""

    op1: int
    op2: int
    agg: int


class Layer(NamedTuple):
    """A template applied `repeats` times, first to two entries of the pool.

    The pool holds the encoder's taps (0 and 1), then the outputs of the layers before (2 + j).
    """

    in1: int
    in2: int
    template: int
    repeats: int
    stride: int


@dataclass(frozen=True)
class Genotype:
    """A decoder of the search space. One that exists is legal.

    Raises:
        GenotypeError: a value is out of its range. The message names the layer or template.
    """

    templates: tuple[Template, ...]
    structure: tuple[Layer, ...]

    def __post_init__(self) -> None:
        _check_length("templates", self.templates, NUM_TEMPLATES)
        _check_length("structure", self.structure, NUM_LAYERS)
        for index, template in enumerate(self.templates):
            _check_template(index, template)
        for index, layer in enumerate(self.structure):
            _check_layer(index, layer)

    @classmethod
    def from_dict(cls, value: Any, source: str = "genotype") -> Genotype:
        """Read `{"templates": [[op1, op2, agg], ...], "structure": [[in1, in2, template,
        repeats - 1, log2(stride)], ...]}`.

        Raises:
            GenotypeError: the value is malformed or not in the search space. The message begins
                with `source` and names what is wrong.
        """
        try:
            if not isinstance(value, dict):
                raise GenotypeError(
                    f"expected an object with templates and structure, found {shown(value)}"
                )
            unknown = [key for key in value if key not in ("templates", "structure")]
            if unknown:
                raise GenotypeError(
                    f"unknown key {shown(unknown[0])}; the keys are templates and structure"
                )
            templates = _integer_rows(value, "templates", "template", ("op1", "op2", "agg"))
            layers = _integer_rows(
                value, "structure", "layer", ("in1", "in2", "template", "repeats-1", "log2(stride)")
            )
            return cls(
                tuple(Template(*row) for row in templates),
                tuple(_decode_layer(index, *row) for index, row in enumerate(layers)),
            )
        except GenotypeError as error:
            raise GenotypeError(f"{source}: {error}") from None

    @classmethod
    def load(cls, path: Path) -> Genotype:
        """Read a JSON file.

        Raises:
            GenotypeError: the file cannot be read or holds no legal genotype.
        """
        try:
            value = read_json(path)
        except OSError as error:
            raise GenotypeError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
            raise GenotypeError(f"{path}: not a JSON file: {error}") from None
        return cls.from_dict(value, source=str(path))

    def to_dict(self) -> dict[str, list[list[int]]]:
        """The encoding that `from_dict` reads."""
        return {
            "templates": [list(template) for template in self.templates],
            "structure": [
                [layer.in1, layer.in2, layer.template, layer.repeats - 1, layer.stride // 2]
                for layer in self.structure
            ],
        }

    @cached_property
    def id(self) -> str:
        """12 hexadecimal digits, equal for genotypes that are the same network.

        Each layer stands with its template's operations, so that the order of the templates,
        equal ones and unused ones make no difference.
        """
        canonical = [
            [layer.in1, layer.in2, *self.templates[layer.template], layer.repeats, layer.stride]
            for layer in self.structure
        ]
        return digest_of(canonical, length=12)

    @property
    def head_inputs(self) -> tuple[int, ...]:
        """The layers that no other layer takes as an input: the head collects them."""
        taken = {entry for layer in self.structure for entry in (layer.in1, layer.in2)}
        return tuple(index for index in range(len(self.structure)) if index + NUM_TAPS not in taken)

    def layers(self) -> list[str]:
        """Each layer with all its decisions, in readable form.

        As `cat(max_pool_3x3(tap 0), sep_conv_3x3(tap 1)), repeats 1, stride 2`: those of two
        genotypes are equal where the layers are, whatever the order of the templates.
        """
        return [self._layer_in_words(layer) for layer in self.structure]

    def _layer_in_words(self, layer: Layer) -> str:
        template = self.templates[layer.template]
        first = f"{OPERATIONS[template.op1]}({_pool_entry(layer.in1)})"
        second = f"{OPERATIONS[template.op2]}({_pool_entry(layer.in2)})"
        whole = f"{AGGREGATIONS[template.agg]}({first}, {second})"
        return f"{whole}, repeats {layer.repeats}, stride {layer.stride}"

    def describe(self) -> str:
        """Several lines for a reader: the templates, the layers and what the head collects."""
        used = {layer.template for layer in self.structure}
        lines = [f"genotype {self.id}"]
        for index, template in enumerate(self.templates):
            operations = f"{OPERATIONS[template.op1]}(a), {OPERATIONS[template.op2]}(b)"
            note = "" if index in used else "   (unused)"
            lines.append(f"template {index}: {AGGREGATIONS[template.agg]}({operations}){note}")
        for index, layer in enumerate(self.structure):
            inputs = f"a = {_pool_entry(layer.in1)}, b = {_pool_entry(layer.in2)}"
            lines.append(
                f"layer {index}: template {layer.template}, {inputs}, "
                f"repeats {layer.repeats}, stride {layer.stride}"
            )
        lines.append("head: " + ", ".join(f"layer {index}" for index in self.head_inputs))
        return "\n".join(lines)


def _pool_entry(entry: int) -> str:
    return f"tap {entry}" if entry < NUM_TAPS else f"layer {entry - NUM_TAPS}"


def _decode_layer(
    index: int, in1: int, in2: int, template: int, extra_repeats: int, halvings: int
) -> Layer:
    _check_range(f"layer {index}: repeats-1", extra_repeats, 0, MAX_REPEATS - 1)
    _check_range(f"layer {index}: log2(stride)", halvings, 0, 1)
    return Layer(in1, in2, template, repeats=extra_repeats + 1, stride=2**halvings)


def _check_length(key: str, rows: Sequence[Any], expected: int) -> None:
    if len(rows) != expected:
        raise GenotypeError(f"{key} has {len(rows)} entries, expected {expected}")


def _check_template(index: int, template: Template) -> None:
    _check_range(f"template {index}: op1", template.op1, 0, len(OPERATIONS) - 1)
    _check_range(f"template {index}: op2", template.op2, 0, len(OPERATIONS) - 1)
    _check_range(f"template {index}: agg", template.agg, 0, len(AGGREGATIONS) - 1)


def _check_layer(index: int, layer: Layer) -> None:
    for name, entry in (("in1", layer.in1), ("in2", layer.in2)):
        if entry >= index + NUM_TAPS:
            raise GenotypeError(
                f"layer {index}: {name} is {shown(entry)}, which does not exist yet; the pool "
                f"has 0 to {index + NUM_TAPS - 1} there (0 and 1 are the taps, 2 + j is layer j)"
            )
        _check_range(f"layer {index}: {name}", entry, 0, index + NUM_TAPS - 1)
    _check_range(f"layer {index}: template", layer.template, 0, NUM_TEMPLATES - 1)
    _check_range(f"layer {index}: repeats", layer.repeats, 1, MAX_REPEATS)
    _check_range(f"layer {index}: stride", layer.stride, 1, 2)
    if layer.stride != 1 and index >= NUM_STRIDED_LAYERS:
        raise GenotypeError(
            f"layer {index}: stride is {layer.stride}, but only layers 0 to "
            f"{NUM_STRIDED_LAYERS - 1} may stride"
        )


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise GenotypeError(f"{name} is {shown(value)}, expected {least} to {most}")


def _integer_rows(
    value: Mapping[str, object], key: str, noun: str, names: tuple[str, ...]
) -> list[list[int]]:
    """The rows under `key`, each with one integer a name; ranges are not checked here."""
    if key not in value:
        raise GenotypeError(f"{key} is missing")
    rows = value[key]
    if not isinstance(rows, list | tuple):
        raise GenotypeError(f"{key} is {shown(rows)}, expected a list of lists of integers")
    for index, row in enumerate(rows):
        if not isinstance(row, list | tuple) or len(row) != len(names):
            raise GenotypeError(f"{noun} {index} is {shown(row)}, expected [{', '.join(names)}]")
        for name, number in zip(names, row, strict=True):
            # bool is a subclass of int, and true is no index.
            if type(number) is not int:
                raise GenotypeError(
                    f"{noun} {index}: {name} is {shown(number)}, expected an integer"
                )
    return [list(row) for row in rows]
