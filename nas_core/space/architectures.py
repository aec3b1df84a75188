"""Architectures by name, by id or from a file."""

from __future__ import annotations

from collections.abc import Mapping

from nas_core.base.errors import GenotypeError, shown, some_of
from nas_core.base.files import expanded
from nas_core.space.genotype import Genotype

# arch0 and arch1 are those of arXiv 1904.02365. camvid0 is the best by val of this project's search
# of 150 candidates on CamVid, where it was candidate 132: docs/search.md.
ARCHITECTURES: dict[str, Genotype] = {
    "arch0": Genotype.from_dict(
        {
            "templates": [[3, 0, 1], [4, 1, 1], [3, 1, 1]],
            "structure": [
                [0, 1, 0, 0, 1],
                [2, 1, 2, 1, 0],
                [3, 1, 1, 1, 0],
                [1, 1, 2, 0, 0],
                [3, 0, 2, 0, 0],
                [5, 3, 2, 1, 0],
                [0, 5, 0, 1, 0],
            ],
        }
    ),
    "arch1": Genotype.from_dict(
        {
            "templates": [[1, 1, 0], [1, 3, 0], [3, 4, 0]],
            "structure": [
                [1, 1, 0, 0, 0],
                [0, 1, 1, 1, 1],
                [3, 1, 2, 3, 0],
                [3, 0, 2, 2, 0],
                [0, 1, 2, 0, 0],
                [2, 1, 1, 3, 0],
                [4, 0, 2, 2, 0],
            ],
        }
    ),
    "camvid0": Genotype.from_dict(
        {
            "templates": [[1, 0, 1], [3, 3, 1], [0, 3, 1]],
            "structure": [
                [1, 0, 2, 0, 0],
                [1, 1, 1, 0, 1],
                [1, 1, 1, 1, 0],
                [3, 1, 0, 1, 0],
                [0, 1, 0, 1, 0],
                [0, 2, 0, 2, 0],
                [2, 0, 0, 1, 0],
            ],
        }
    ),
}

# What the networks of a search are called that have a name.
NAMES = {genotype.id: name for name, genotype in ARCHITECTURES.items()}


def short_name(identity: str) -> str:
    """The name of the architecture of this id or, if it has none, how the id begins."""
    return NAMES.get(identity, identity[:6])


def find_architecture(reference: str, searched: Mapping[str, Genotype]) -> tuple[str, Genotype]:
    """Look an architecture up.

    Args:
        reference: a name, the id of a searched architecture or the beginning of one, or the path
            of a JSON file (recognised by its ending .json or by a slash).
        searched: the architectures of a search by id.

    Returns:
        The name or id, and the genotype. One from a file goes by its id.

    Raises:
        GenotypeError: nothing or more than one thing is meant, or the file holds no genotype.
    """
    if reference in ARCHITECTURES:
        return reference, ARCHITECTURES[reference]
    if reference.endswith(".json") or "/" in reference:
        genotype = Genotype.load(expanded(reference))
        return genotype.id, genotype
    matches = [identifier for identifier in searched if identifier.startswith(reference)]
    if reference and len(matches) == 1:
        return matches[0], searched[matches[0]]
    if reference and matches:
        raise GenotypeError(
            f"{reference!r} begins the ids {some_of(sorted(matches))}: give more digits"
        )
    known = f"names are {', '.join(ARCHITECTURES)}"
    ids = ", ".join(list(searched)[:8]) + (", ..." if len(searched) > 8 else "")
    found = f"ids are {ids}" if searched else "no searched architectures are known"
    raise GenotypeError(
        f"unknown architecture {shown(reference)}: {known}; {found}; or give the path of a .json "
        "file"
    )
