"""Architectures by name, id and file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nas_core.base.errors import GenotypeError
from nas_core.space.architectures import ARCHITECTURES, find_architecture, short_name
from nas_core.space.decisions import sample
from nas_core.space.genotype import Genotype

REFERENCE = Path(__file__).parents[2] / "reference" / "architectures.json"
DRAWN = [sample(generator) for generator in map(np.random.default_rng, range(40))]
SEARCHED = {genotype.id: genotype for genotype in DRAWN}
FIRST = DRAWN[0]


def test_the_papers_architectures_are_those_of_the_reference() -> None:
    reference = json.loads(REFERENCE.read_text())
    for name in ("arch0", "arch1"):
        entry = {key: reference[name][key] for key in ("templates", "structure")}
        assert ARCHITECTURES[name].to_dict() == entry


def test_camvid0_is_candidate_132_of_the_recorded_search() -> None:
    search = pd.read_parquet(Path(__file__).parents[3] / "docs" / "data" / "search.parquet")
    (row,) = search[search["id"] == ARCHITECTURES["camvid0"].id].to_dict("records")
    assert row["candidate"] == 132
    assert ARCHITECTURES["camvid0"] == Genotype.from_dict(json.loads(row["genotype"]))


def test_lines_call_an_architecture_by_its_name_or_by_how_its_id_begins() -> None:
    assert short_name(ARCHITECTURES["arch0"].id) == "arch0"
    assert short_name(FIRST.id) == FIRST.id[:6]


def test_names_ids_beginnings_and_files_are_found(tmp_path: Path) -> None:
    assert find_architecture("arch1", {}) == ("arch1", ARCHITECTURES["arch1"])
    assert find_architecture(FIRST.id, SEARCHED) == (FIRST.id, FIRST)
    assert find_architecture(FIRST.id[:6], SEARCHED) == (FIRST.id, FIRST)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(FIRST.to_dict()))
    assert find_architecture(str(path), {}) == (FIRST.id, FIRST)


def test_an_ambiguous_beginning_lists_what_it_may_mean() -> None:
    digits = [identifier[0] for identifier in SEARCHED]
    shared = next(digit for digit in digits if digits.count(digit) > 1)
    matching = [identifier for identifier in SEARCHED if identifier.startswith(shared)]
    with pytest.raises(GenotypeError, match="give more digits") as caught:
        find_architecture(shared, SEARCHED)
    assert all(identifier in str(caught.value) for identifier in matching)


@pytest.mark.parametrize("reference", ["arch7", "", "zz", "\0"])
def test_an_unknown_reference_lists_what_is_valid(reference: str) -> None:
    with pytest.raises(GenotypeError, match=r"names are arch0, arch1, camvid0; ids are") as caught:
        find_architecture(reference, SEARCHED)
    assert FIRST.id in str(caught.value)
    with pytest.raises(GenotypeError, match="no searched architectures are known"):
        find_architecture(reference, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GenotypeError, match=r"absent\.json cannot be read"):
        find_architecture(str(tmp_path / "absent.json"), {})
