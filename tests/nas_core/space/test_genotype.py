"""Genotypes: the encoding, what is refused and how, the canonical id."""

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_core.base.errors import GenotypeError
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.decisions import sample
from nas_core.space.genotype import NUM_TEMPLATES, Genotype, Template

ARCH0 = ARCHITECTURES["arch0"]


def changed(key: str, value: Any, row: int | None = None, column: int | None = None) -> Any:
    """arch0's encoding with one thing replaced."""
    encoding: Any = copy.deepcopy(ARCH0.to_dict())
    if row is None:
        encoding[key] = value
    elif column is None:
        encoding[key][row] = value
    else:
        encoding[key][row][column] = value
    return encoding


def without(key: str) -> Any:
    encoding = ARCH0.to_dict()
    del encoding[key]
    return encoding


MALFORMED = [
    (None, "expected an object with templates and structure, found None"),
    ([], "expected an object with templates and structure"),
    ("arch0", "expected an object with templates and structure, found 'arch0'"),
    ({}, "templates is missing"),
    (without("structure"), "structure is missing"),
    (ARCH0.to_dict() | {"layers": []}, "unknown key 'layers'"),
    (changed("templates", 3), "templates is 3, expected a list of lists of integers"),
    (changed("structure", "0"), "structure is '0', expected a list"),
    (changed("templates", []), "templates has 0 entries, expected 3"),
    (changed("structure", ARCH0.to_dict()["structure"][:6]), "structure has 6 entries, expected 7"),
    (changed("structure", ARCH0.to_dict()["structure"] * 2), "structure has 14 entries"),
    (changed("templates", [0, 1], row=1), r"template 1 is \[0, 1\], expected \[op1, op2, agg\]"),
    (changed("structure", {"in1": 0}, row=2), "layer 2 is {'in1': 0}, expected"),
    (changed("structure", [0, 1, 0, 0, 0, 0], row=4), "layer 4 is"),
    (changed("templates", 6, row=0, column=0), "template 0: op1 is 6, expected 0 to 5"),
    (changed("templates", -1, row=2, column=1), "template 2: op2 is -1, expected 0 to 5"),
    (changed("templates", 2, row=1, column=2), "template 1: agg is 2, expected 0 to 1"),
    (changed("templates", True, row=0, column=0), "template 0: op1 is True, expected an integer"),
    (changed("templates", 1.0, row=0, column=1), "template 0: op2 is 1.0, expected an integer"),
    (changed("templates", None, row=0, column=2), "template 0: agg is None"),
    (changed("structure", "1", row=3, column=0), "layer 3: in1 is '1', expected an integer"),
    (changed("structure", [1], row=3, column=1), r"layer 3: in2 is \[1\], expected an integer"),
    (changed("structure", 2, row=0, column=0), "layer 0: in1 is 2, which does not exist yet"),
    (changed("structure", 7, row=3, column=1), r"layer 3: in2 is 7, .* 0 to 4 there"),
    (changed("structure", -1, row=6, column=1), "layer 6: in2 is -1, expected 0 to 7"),
    (changed("structure", 3, row=5, column=2), "layer 5: template is 3, expected 0 to 2"),
    (changed("structure", 4, row=1, column=3), "layer 1: repeats-1 is 4, expected 0 to 3"),
    (changed("structure", -1, row=1, column=3), "layer 1: repeats-1 is -1"),
    (changed("structure", 2, row=0, column=4), r"layer 0: log2\(stride\) is 2, expected 0 to 1"),
    (changed("structure", 10**300, row=0, column=4), r"layer 0: log2\(stride\) is 1000"),
    (changed("structure", 1, row=3, column=4), "layer 3: stride is 2, but only layers 0 to 2"),
]


@pytest.mark.parametrize(("value", "message"), MALFORMED, ids=[text for _, text in MALFORMED])
def test_malformed_encodings_are_refused_by_name(value: Any, message: str) -> None:
    with pytest.raises(GenotypeError, match=f"^here: .*{message}"):
        Genotype.from_dict(value, source="here")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=8), max_leaves=12)


@given(VALUES | st.dictionaries(st.sampled_from(["templates", "structure", "x"]), VALUES))
def test_arbitrary_values_give_genotype_errors_only(value: Any) -> None:
    with pytest.raises(GenotypeError):
        Genotype.from_dict(value)


@given(
    st.sampled_from([("templates", 3, 3), ("structure", 7, 5)]).flatmap(
        lambda kind: st.tuples(
            st.just(kind[0]), st.integers(0, kind[1] - 1), st.integers(0, kind[2] - 1)
        )
    ),
    SCALARS | st.integers(-2, 9),
)
def test_one_changed_number_is_legal_or_named(place: tuple[str, int, int], value: Any) -> None:
    key, row, column = place
    encoding = changed(key, value, row, column)
    try:
        genotype = Genotype.from_dict(encoding)
    except GenotypeError as error:
        noun = "template" if key == "templates" else "layer"
        assert f"genotype: {noun} {row}: " in str(error)
    else:
        assert genotype.to_dict() == encoding


def test_a_genotype_built_in_code_is_checked() -> None:
    with pytest.raises(GenotypeError, match="template 1: op1 is 9"):
        dataclasses.replace(
            ARCH0, templates=(ARCH0.templates[0], Template(9, 0, 0), ARCH0.templates[2])
        )


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(json.dumps(ARCH0.to_dict()))
    assert Genotype.load(path) == ARCH0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a JSON file"),
        (b"{'templates': []}", "not a JSON file"),
        (b"\xff\xfe\x00", "not a JSON file"),
        (b"[" * 100_000, "nested too deeply|not a JSON file"),
        (b'{"templates": ' + b"[" * 900 + b"]" * 900 + b', "structure": []}', "template 0 is"),
        (b"9" * 5000, "not a JSON file|expected an object"),
        (b'{"templates": [[NaN, 0, 0]], "structure": []}', "template 0: op1 is nan"),
    ],
    ids=["empty", "quotes", "utf-8", "deep", "deep list", "long number", "nan"],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(GenotypeError, match=message) as caught:
        Genotype.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(GenotypeError, match=r"absent\.json cannot be read: No such file"):
        Genotype.load(tmp_path / "absent.json")
    with pytest.raises(GenotypeError, match="cannot be read"):
        Genotype.load(tmp_path)


def reordered(genotype: Genotype, order: list[int]) -> Genotype:
    """The same network, its template i at place order[i]."""
    templates: list[Template] = [Template(0, 0, 0)] * NUM_TEMPLATES
    for index, place in enumerate(order):
        templates[place] = genotype.templates[index]
    structure = tuple(
        layer._replace(template=order[layer.template]) for layer in genotype.structure
    )
    return Genotype(tuple(templates), structure)


def test_the_id_ignores_how_templates_are_arranged() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        genotype = sample(generator)
        order = [int(place) for place in generator.permutation(NUM_TEMPLATES)]
        assert reordered(genotype, order).id == genotype.id
    unused = dataclasses.replace(
        ARCH0, structure=tuple(layer._replace(template=0) for layer in ARCH0.structure)
    )
    other = dataclasses.replace(unused, templates=(ARCH0.templates[0],) * 3)
    assert other.id == unused.id
    mixed = [layer._replace(template=index % 3) for index, layer in enumerate(unused.structure)]
    assert dataclasses.replace(other, structure=tuple(mixed)).id == unused.id


def test_the_id_tells_networks_apart() -> None:
    ids = {sample(generator).id for generator in map(np.random.default_rng, range(200))}
    assert len(ids) == 200
    for index, layer in enumerate(ARCH0.structure):
        repeats = 1 if layer.repeats > 1 else 2
        structure = list(ARCH0.structure)
        structure[index] = layer._replace(repeats=repeats)
        assert dataclasses.replace(ARCH0, structure=tuple(structure)).id != ARCH0.id


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_the_id_is_the_same_in_every_process(hash_seed: str) -> None:
    assert ARCH0.id == "c0d7639bffbf"  # on disk and in records: a new value would orphan them
    code = (
        "from nas_core.space.architectures import ARCHITECTURES as a;"
        "print(a['arch0'].id, a['arch1'].id)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert output.stdout.split() == [ARCH0.id, ARCHITECTURES["arch1"].id]


def test_layers_are_readable() -> None:
    layers = ARCH0.layers()
    assert layers[0] == "cat(max_pool_3x3(tap 0), sep_conv_3x3(tap 1)), repeats 1, stride 2"
    assert layers[5] == "cat(max_pool_3x3(layer 3), sep_conv_5x5(layer 1)), repeats 2, stride 1"
    assert len(layers) == 7


def test_equal_layers_read_alike_whatever_the_order_of_the_templates() -> None:
    other = dataclasses.replace(
        ARCH0,
        templates=ARCH0.templates[::-1],
        structure=tuple(layer._replace(template=2 - layer.template) for layer in ARCH0.structure),
    )
    assert other.layers() == ARCH0.layers()


def test_the_description_names_everything() -> None:
    text = ARCH0.describe()
    assert ARCH0.id in text
    assert "template 1: cat(sep_conv_5x5_dil6(a), sep_conv_5x5(b))" in text
    assert "layer 1: template 2, a = layer 0, b = tap 1, repeats 2, stride 1" in text
    assert "head: layer 2, layer 4, layer 5, layer 6" in text
    assert "(unused)" not in text
    single = dataclasses.replace(
        ARCH0, structure=tuple(layer._replace(template=0) for layer in ARCH0.structure)
    )
    assert single.describe().count("(unused)") == 2
