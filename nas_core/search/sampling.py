"""Random architectures within the limits of a search."""

from __future__ import annotations

from pathlib import Path

from nas_core.base.files import digest_of
from nas_core.base.paths import fidelity_folder
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.search.costs import Costs
from nas_core.search.random_search import RandomSearch
from nas_core.space.genotype import Genotype


def sample_architectures(
    settings: Settings, root: Path, data: PreparedData, num: int
) -> dict[str, Genotype]:
    """The first `num` architectures that random search would propose, by id.

    More of them begin with the same ones. Latencies, where search.constraints has a limit, are
    measured once and kept with what `nas fidelity` trains.

    Raises:
        RunError: too few are within search.constraints.
    """
    size = (data.height, data.width)
    form = digest_of(settings.network.model_dump(), data.num_classes)
    latencies = fidelity_folder(root) / f"latency-{form}.json"
    how = settings.search.latency
    costs = Costs(latencies, settings.network, data.num_classes, size, how, root)
    limits = settings.search.constraints
    costs.check_limits(limits)
    proposals = RandomSearch(settings.seed).ask(num, lambda one: costs.refusal(one, limits))
    return {proposal.genotype.id: proposal.genotype for proposal in proposals}
