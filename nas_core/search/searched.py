"""What all searches of a project have trained."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from nas_core.base.errors import RunError
from nas_core.search.journal import Journal
from nas_core.space.genotype import Genotype

log = logging.getLogger(__name__)


def searched_genotypes(searches: Path) -> dict[str, Genotype]:
    """Every architecture that a search trained, by id.

    A search whose journal cannot be read is left out, with a warning.
    """
    return {
        record.id: Genotype.from_dict(record.genotype)
        for _, journal in readable(journals(searches))
        for record in journal.candidates
    }


def journals(searches: Path) -> list[Path]:
    return sorted(searches.glob("*/journal.jsonl"))


def readable(paths: Iterable[Path]) -> Iterator[tuple[Path, Journal]]:
    """The journals that can be read."""
    for path in paths:
        try:
            journal = Journal.read(path)
        except RunError as error:
            _warn_of_left_out(f"{error}; this search is left out")
        else:
            yield path, journal


@cache
def _warn_of_left_out(message: str) -> None:
    """Once in a process: one command may look at the searches several times."""
    log.warning("%s", message)
