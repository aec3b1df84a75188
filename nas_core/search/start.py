"""The networks that a search begins with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas_core.base.errors import GenotypeError, RunError, SettingsError
from nas_core.base.paths import searches_folder
from nas_core.config import SearchSettings
from nas_core.search.costs import Costs
from nas_core.search.searched import searched_genotypes
from nas_core.space.architectures import ARCHITECTURES, find_architecture
from nas_core.space.genotype import Genotype


def start_networks(settings: SearchSettings, root: Path) -> list[Genotype]:
    """The networks of search.start_from, in their order.

    Raises:
        SettingsError: one is not found, or is named twice.
    """
    if not settings.start_from:
        return []
    names_only = set(settings.start_from) <= ARCHITECTURES.keys()
    searched = {} if names_only else searched_genotypes(searches_folder(root))
    found: dict[str, tuple[str, Genotype]] = {}
    for reference in settings.start_from:
        try:
            _, genotype = find_architecture(reference, searched)
        except GenotypeError as error:
            raise SettingsError(f"search.start_from: {error}") from None
        if genotype.id in found:
            raise SettingsError(
                f"search.start_from: {found[genotype.id][0]} and {reference} are one network: "
                "name it once"
            )
        found[genotype.id] = (reference, genotype)
    return [genotype for _, genotype in found.values()]


def check_start(start: Sequence[Genotype], settings: SearchSettings, costs: Costs) -> None:
    """See that the networks that a search begins with are within its limits.

    Raises:
        RunError: one is not.
    """
    for reference, genotype in zip(settings.start_from, start, strict=True):
        if limit := costs.refusal(genotype, settings.constraints):
            raise RunError(
                f"search.start_from: {reference} is over search.constraints.{limit}: raise it, or "
                "leave the network out"
            )
