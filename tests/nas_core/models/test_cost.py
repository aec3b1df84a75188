"""Costs against the counts of the authors' implementation."""

import json
from pathlib import Path

import pytest
import torch

from nas_core.models.cost import measure_cost
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.genotype import Genotype

REFERENCE = Path(__file__).parents[2] / "reference" / "architectures.json"
ENTRIES = json.loads(REFERENCE.read_text())


def test_there_are_26_architectures() -> None:
    assert len(ENTRIES) == 26


@pytest.mark.parametrize("name", ENTRIES)
def test_counts_are_those_of_the_reference(name: str) -> None:
    entry = dict(ENTRIES[name])
    genotype = Genotype.from_dict({key: entry.pop(key) for key in ("templates", "structure")})
    entry.pop("published_params_19_classes", None)
    assert set(entry) == {"search_48_1_11", "full_64_2_11", "full_64_2_19"}
    for setting, expected in entry.items():
        _, agg_size, sep_repeats, num_classes = setting.split("_")
        cost = measure_cost(
            genotype,
            num_classes=int(num_classes),
            agg_size=int(agg_size),
            sep_repeats=int(sep_repeats),
            input_size=(360, 480),
        )
        assert cost.num_parameters == expected["params"]
        if "output_hw" in expected:
            assert list(cost.output_size) == expected["output_hw"]
            assert cost.macs == expected["conv_macs_360x480"]


def test_published_counts_have_the_authors_larger_encoder() -> None:
    for name in ("arch0", "arch1"):
        entry = ENTRIES[name]
        published = entry.get("published_params_19_classes")
        assert published == entry["full_64_2_19"]["params"] + 1088


def test_measuring_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    cost = measure_cost(
        ARCHITECTURES["arch1"], num_classes=11, agg_size=48, sep_repeats=1, input_size=(33, 47)
    )
    assert cost.output_size == (9, 12)
    assert cost.pool_shapes[:3] == ((24, 9, 12), (32, 5, 6), (32, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
