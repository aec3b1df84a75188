"""What all searches of a project have trained."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from nas_core.base.errors import GenotypeError, RunError
from nas_core.search.journal import Journal, Record
from nas_core.space.genotype import Genotype

log = logging.getLogger(__name__)


def searched_genotypes(searches: Path) -> dict[str, Genotype]:
    """Every architecture that a search trained, by id.

    A search whose journal cannot be read is left out, with a warning.
    """
    return {
        record.id: Genotype.from_dict(record.genotype)
        for _, candidates in readable(journals(searches))
        for record in candidates
    }


def journals(searches: Path) -> list[Path]:
    return sorted(searches.glob("*/journal.jsonl"))


def readable(paths: Iterable[Path]) -> Iterator[tuple[Path, list[Record]]]:
    """The journals that can be read, with their trained candidates."""
    for path in paths:
        try:
            candidates = Journal.read(path).candidates
            for record in candidates:
                Genotype.from_dict(record.genotype, f"{path}, record {record.index}")
        except (RunError, GenotypeError) as error:
            _warn_of_left_out(f"{error}; this search is left out")
        else:
            yield path, candidates


@cache
def _warn_of_left_out(message: str) -> None:
    """Once in a process: one command may look at the searches several times."""
    log.warning("%s", message)
