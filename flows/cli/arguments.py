"""Arguments and options that several commands take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli import completion
from nas_core.base.paths import searches_folder
from nas_core.base.project import project_dir

if TYPE_CHECKING:
    from nas_core.space.genotype import Genotype

Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        "-p",
        help="camvid (params.yaml itself) or a file of profiles/.",
        autocompletion=completion.profile_names,
    ),
]

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-S", metavar="KEY=VALUE", help="Override a setting: search.num_candidates=8."
    ),
]

Reference = Annotated[
    str,
    typer.Argument(
        metavar="GENOTYPE",
        help="A name (arch0, arch1, camvid0), an id from a search, or a JSON file.",
        autocompletion=completion.genotype_names,
    ),
]


def find(reference: str) -> tuple[str, Genotype]:
    """The name and the architecture of a `Reference`."""
    from nas_core.search.searched import searched_genotypes
    from nas_core.space.architectures import ARCHITECTURES, find_architecture

    if reference in ARCHITECTURES or reference.endswith(".json"):
        return find_architecture(reference, {})
    return find_architecture(reference, searched_genotypes(searches_folder(project_dir())))
