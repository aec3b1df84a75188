"""The search space as 44 decisions."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_core.base.errors import GenotypeError
from nas_core.space.decisions import DECISIONS, decode, encode, sample
from nas_core.space.genotype import Genotype

REFERENCE = Path(__file__).parents[2] / "reference" / "architectures.json"


def test_decisions_stand_in_the_controllers_order() -> None:
    assert len(DECISIONS) == 44
    assert [decision.num_choices for decision in DECISIONS[:9]] == [6, 6, 2] * 3
    for index in range(7):
        layer = DECISIONS[9 + 5 * index : 14 + 5 * index]
        assert [decision.kind for decision in layer] == [
            "input",
            "input",
            "template",
            "repeats",
            "stride",
        ]
        strides = 2 if index < 3 else 1
        choices = [decision.num_choices for decision in layer]
        assert choices == [index + 2, index + 2, 3, 4, strides]
        assert {decision.index for decision in layer} == {index}


@given(st.tuples(*(st.integers(0, decision.num_choices - 1) for decision in DECISIONS)))
def test_every_combination_of_choices_is_a_genotype(choices: tuple[int, ...]) -> None:
    genotype = decode(choices)
    assert encode(genotype) == choices
    assert Genotype.from_dict(json.loads(json.dumps(genotype.to_dict()))) == genotype


def test_reference_architectures_survive_the_round_trip() -> None:
    for name, entry in json.loads(REFERENCE.read_text()).items():
        encoding = {key: entry[key] for key in ("templates", "structure")}
        genotype = Genotype.from_dict(encoding, source=name)
        assert genotype.to_dict() == encoding
        assert decode(encode(genotype)) == genotype


def test_choices_out_of_range_are_refused() -> None:
    with pytest.raises(GenotypeError, match="43 given, expected 44"):
        decode((0,) * 43)
    for place, decision in enumerate(DECISIONS):
        choices = [0] * len(DECISIONS)
        choices[place] = decision.num_choices
        with pytest.raises(GenotypeError, match=rf"^choices: (template|layer) {decision.index}: "):
            decode(choices)


def test_samples_are_uniform_and_follow_from_the_generator() -> None:
    generator = np.random.default_rng(3)
    drawn = [encode(sample(generator)) for _ in range(2000)]
    again = np.random.default_rng(3)
    assert drawn[:5] == [encode(sample(again)) for _ in range(5)]
    for decision, choices in zip(DECISIONS, zip(*drawn, strict=True), strict=True):
        counts = Counter(choices)
        expected = len(drawn) / decision.num_choices
        assert sorted(counts) == list(range(decision.num_choices))
        # Five standard deviations of a binomial count.
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())
