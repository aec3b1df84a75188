"""Decoders: the reference's logits, shapes, gradients, and one network for one id."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_core.models.decoder import Decoder
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.decisions import sample
from nas_core.space.genotype import NUM_STRIDED_LAYERS, NUM_TEMPLATES, Genotype

REFERENCE = Path(__file__).parents[2] / "reference"
FINGERPRINTS = json.loads((REFERENCE / "fingerprints.json").read_text())
ENCODINGS = json.loads((REFERENCE / "architectures.json").read_text())
SAMPLED = [sample(generator) for generator in map(np.random.default_rng, range(50))]
NUM_CLASSES = 5
AGG_SIZE = 8
TAP_SIZES = ((16, 22), (8, 11))

pytestmark = pytest.mark.usefixtures("one_thread")


def reference_taps() -> list[Tensor]:
    """The taps that the fingerprints were made with."""

    def wave(function: Any, shape: tuple[int, int, int], rates: tuple[float, ...]) -> Tensor:
        axes = [torch.arange(num, dtype=torch.double) for num in shape]
        channel, row, column = torch.meshgrid(*axes, indexing="ij")
        values = rates[0] * row + rates[1] * column + rates[2] * channel
        return function(values)[None]

    return [
        wave(torch.sin, (24, 60, 80), (0.1, 0.07, 0.3)),
        wave(torch.cos, (32, 30, 40), (0.2, -0.05, 0.2)),
    ]


def set_plain_weights(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_logits_are_those_of_the_reference(name: str) -> None:
    encoding = {key: ENCODINGS[name][key] for key in ("templates", "structure")}
    genotype = Genotype.from_dict(encoding)
    assert FINGERPRINTS[name]
    for setting, expected in FINGERPRINTS[name].items():
        _, agg_size, sep_repeats, num_classes = setting.split("_")
        decoder = Decoder(genotype, int(num_classes), int(agg_size), int(sep_repeats))
        decoder = decoder.double().eval()
        set_plain_weights(decoder)
        with torch.no_grad():
            logits = decoder(reference_taps())
        assert list(logits.shape) == expected["shape"]
        rows, columns = expected["step"]
        wanted = torch.tensor(expected["class0"], dtype=torch.double)
        torch.testing.assert_close(logits[0, 0, ::rows, ::columns], wanted, rtol=1e-7, atol=0)


def small_taps(generator: torch.Generator, batch: int = 2) -> list[Tensor]:
    return [
        torch.randn(batch, channels, *size, generator=generator)
        for channels, size in zip((24, 32), TAP_SIZES, strict=True)
    ]


def expected_size(genotype: Genotype, sep_repeats: int) -> tuple[int, int]:
    """Height and width of the logits, from the sizes alone."""

    def after(op: int, stride: int, size: tuple[int, int]) -> tuple[int, int]:
        # Indices of global_average_pool and skip_connect, then of max_pool_3x3.
        halvings = {2: 0, 5: 0, 3: 1}.get(op, sep_repeats)
        height, width = size
        for _ in range(halvings):
            height, width = math.ceil(height / stride), math.ceil(width / stride)
        return height, width

    pool = list(TAP_SIZES)
    for index, layer in enumerate(genotype.structure):
        template = genotype.templates[layer.template]
        a, b = pool[layer.in1], pool[layer.in2]
        for _ in range(layer.repeats):
            sizes = (after(template.op1, layer.stride, a), after(template.op2, layer.stride, b))
            a, b = b, min(sizes) if index < NUM_STRIDED_LAYERS else max(sizes)
        pool.append(b)
    return max(pool[2 + index] for index in genotype.head_inputs)


@pytest.mark.parametrize("index", range(len(SAMPLED)))
def test_sampled_architectures_train(index: int) -> None:
    """Half of them in bf16, half with sep_repeats 2."""
    genotype, sep_repeats = SAMPLED[index], 1 + index % 2
    generator = torch.Generator().manual_seed(index)
    torch.manual_seed(index)
    decoder = Decoder(genotype, NUM_CLASSES, AGG_SIZE, sep_repeats)
    decoder = decoder.to(memory_format=torch.channels_last)
    taps = [
        tap.contiguous(memory_format=torch.channels_last).requires_grad_()
        for tap in small_taps(generator)
    ]
    with torch.autocast("cpu", torch.bfloat16, enabled=index % 4 < 2):
        logits = decoder(taps)
    assert logits.shape == (2, NUM_CLASSES, *expected_size(genotype, sep_repeats))
    assert logits.isfinite().all()
    targets = torch.randint(0, NUM_CLASSES, logits[:, 0].shape, generator=generator)
    nn.functional.cross_entropy(logits.float(), targets).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def seeded_logits(genotype: Genotype) -> Tensor:
    torch.manual_seed(11)
    decoder = Decoder(genotype, NUM_CLASSES, AGG_SIZE, 1)
    return decoder(small_taps(torch.Generator().manual_seed(5))).detach()


@pytest.mark.parametrize("index", range(0, 50, 5))
def test_genotypes_with_one_id_are_one_network(index: int) -> None:
    """The templates in another order, and another operation in a template that is not used."""
    genotype = SAMPLED[index]
    # Two templates are enough here, so that the third is free.
    genotype = replace(
        genotype,
        structure=tuple(
            layer._replace(template=layer.template % 2) for layer in genotype.structure
        ),
    )
    order = [int(place) for place in np.random.default_rng(index).permutation(NUM_TEMPLATES)]
    templates = [genotype.templates[2]._replace(op1=1, op2=4, agg=1)] * NUM_TEMPLATES
    for old in range(2):
        templates[order[old]] = genotype.templates[old]
    other = Genotype(
        tuple(templates),
        tuple(layer._replace(template=order[layer.template]) for layer in genotype.structure),
    )
    assert other.id == genotype.id
    assert torch.equal(seeded_logits(other), seeded_logits(genotype))


def test_another_id_is_another_network() -> None:
    first, second = ARCHITECTURES["arch0"], SAMPLED[0]
    assert first.id != second.id
    assert not torch.equal(seeded_logits(first)[:, :, :2, :2], seeded_logits(second)[:, :, :2, :2])
