"""The search space as a sequence of decisions: encode, decode, sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nas_core.base.errors import GenotypeError
from nas_core.space.genotype import (
    AGGREGATIONS,
    MAX_REPEATS,
    NUM_LAYERS,
    NUM_STRIDED_LAYERS,
    NUM_TAPS,
    NUM_TEMPLATES,
    OPERATIONS,
    Genotype,
)

TEMPLATE_KINDS = ("op", "op", "agg")
LAYER_KINDS = ("input", "input", "template", "repeats", "stride")


@dataclass(frozen=True)
class Decision:
    """One choice, a number from 0 to `num_choices` - 1.

    `kind` is op or agg (of template number `index`), or input, template, repeats or stride (of
    layer number `index`).
    """

    kind: str
    num_choices: int
    index: int


def _template_decisions(index: int) -> list[Decision]:
    num_choices = (len(OPERATIONS), len(OPERATIONS), len(AGGREGATIONS))
    return [
        Decision(kind, num, index) for kind, num in zip(TEMPLATE_KINDS, num_choices, strict=True)
    ]


def _layer_decisions(index: int) -> list[Decision]:
    pool = NUM_TAPS + index
    strides = 2 if index < NUM_STRIDED_LAYERS else 1
    num_choices = (pool, pool, NUM_TEMPLATES, MAX_REPEATS, strides)
    return [Decision(kind, num, index) for kind, num in zip(LAYER_KINDS, num_choices, strict=True)]


DECISIONS: tuple[Decision, ...] = (
    *(decision for index in range(NUM_TEMPLATES) for decision in _template_decisions(index)),
    *(decision for index in range(NUM_LAYERS) for decision in _layer_decisions(index)),
)
"""The 44 decisions in the controller's order: op1, op2, agg of each template, then in1, in2,
template, repeats, stride of each layer. In layers that may not stride, stride has one choice."""


def encode(genotype: Genotype) -> tuple[int, ...]:
    """The genotype's choices, one for each of `DECISIONS`."""
    encoding = genotype.to_dict()
    rows = encoding["templates"] + encoding["structure"]
    return tuple(choice for row in rows for choice in row)


def decode(choices: Sequence[int]) -> Genotype:
    """The genotype with these choices, the inverse of `encode`.

    Raises:
        GenotypeError: not one choice for each decision, or a choice out of its range.
    """
    if len(choices) != len(DECISIONS):
        raise GenotypeError(f"choices: {len(choices)} given, expected {len(DECISIONS)}")
    width = len(TEMPLATE_KINDS)
    split = NUM_TEMPLATES * width
    templates = [list(choices[start : start + width]) for start in range(0, split, width)]
    width = len(LAYER_KINDS)
    layers = [list(choices[start : start + width]) for start in range(split, len(choices), width)]
    return Genotype.from_dict({"templates": templates, "structure": layers}, source="choices")


@dataclass(frozen=True)
class Space:
    """All that a strategy knows of a search space."""

    decisions: tuple[Decision, ...]
    decode: Callable[[Sequence[int]], Genotype]
    """The network that choices make, one for each of `decisions`."""

    def sample(self, generator: np.random.Generator) -> tuple[int, ...]:
        """Choices that are uniform and independent of each other."""
        return tuple(int(generator.integers(decision.num_choices)) for decision in self.decisions)


SPACE = Space(DECISIONS, decode)


def sample(generator: np.random.Generator) -> Genotype:
    """A genotype whose decisions are uniform and independent of each other."""
    return decode(SPACE.sample(generator))
