"""What candidates cost, and which of them the limits refuse."""

from __future__ import annotations

from pathlib import Path

from nas_core.base.errors import RunError
from nas_core.base.seeds import seeded
from nas_core.config import ConstraintSettings, LatencySettings, NetworkSettings, SearchSettings
from nas_core.models.cost import count_parameters, encoder_cost, form_of, measure_cost
from nas_core.models.encoder import Encoder
from nas_core.models.segmenter import Segmenter
from nas_core.search.latencies import Latencies, read_latencies
from nas_core.search.measuring import Meter
from nas_core.search.rewards import CandidateCost
from nas_core.space.genotype import Genotype

# A limit of latency that none of so many networks meets is refused, rather than to measure on.
MOST_TOO_SLOW = 60


class Costs:
    """Counts each network once, and measures it once where its latency is asked for.

    A latency is never the same twice, and a search that goes on must refuse what it refused
    before: so latencies are kept in the file `path`. Who asks for one sees to it that the machine
    does nothing else meanwhile.

    Args:
        input_size: height and width of an image.
        root: the project's folder.

    Raises:
        RunError: the file at `path` cannot be read.
    """

    def __init__(
        self,
        path: Path,
        network: NetworkSettings,
        num_classes: int,
        input_size: tuple[int, int],
        latency: LatencySettings,
        root: Path,
    ) -> None:
        self.path, self._meter = path, Meter(latency, input_size, root)
        self._input_size = input_size
        self._form = form_of(network, num_classes)
        self._parameters: dict[str, int] = {}
        self._counted: dict[str, tuple[int, int]] = {}
        self._latencies = dict(read_latencies(path, self._meter.about))

    def of(self, genotype: Genotype, *, latency: bool) -> CandidateCost:
        """The costs of a network, with its latency or without."""
        return CandidateCost(*self._count(genotype), self.latency(genotype) if latency else None)

    def check_limits(self, limits: ConstraintSettings) -> None:
        """See that the limits leave room for the encoder, which every network contains.

        Latency is measured only if it has a limit that no network is known to meet.

        Raises:
            RunError: no network can be within a limit.
        """
        parameters, macs = encoder_cost(self._form["encoder"], self._input_size)
        most_ms = limits.max_latency_ms
        for key, most, least, unit in (
            ("max_parameters", limits.max_parameters, parameters, "parameters"),
            ("max_macs", limits.max_macs, macs, "multiply-accumulates for one image"),
        ):
            if most is not None and most < least:
                raise RunError(_no_room(key, most, f"has {least:,} {unit}"))
        if most_ms is None or any(known <= most_ms for known in self._latencies.values()):
            return
        latency = self._meter.measure(seeded(0, lambda: Encoder(self._form["encoder"])))
        if most_ms < latency:
            raise RunError(_no_room("max_latency_ms", most_ms, f"takes {latency:.3g} ms"))

    def refusal(self, genotype: Genotype, limits: ConstraintSettings) -> str | None:
        """The first limit that the network exceeds, by its key, or None.

        Latency is measured only of what is within the other limits, and only if it has one.

        Raises:
            RunError: `MOST_TOO_SLOW` networks are measured, and none is within max_latency_ms.
        """
        most = limits.max_parameters
        if most is not None and self._num_parameters(genotype) > most:
            return "max_parameters"
        if limits.max_macs is not None and self._count(genotype)[1] > limits.max_macs:
            return "max_macs"
        if limits.max_latency_ms is not None and self.latency(genotype) > limits.max_latency_ms:
            fastest = min(self._latencies.values())
            if len(self._latencies) >= MOST_TOO_SLOW and fastest > limits.max_latency_ms:
                raise RunError(
                    f"search.constraints.max_latency_ms = {limits.max_latency_ms}: of "
                    f"{len(self._latencies)} networks the fastest takes {fastest:.3g} ms; "
                    "raise it or leave it empty"
                )
            return "max_latency_ms"
        return None

    def _num_parameters(self, genotype: Genotype) -> int:
        """Alone: most that is refused is refused for it, and counting the rest takes long."""
        if genotype.id in self._counted:
            return self._counted[genotype.id][0]
        if genotype.id not in self._parameters:
            self._parameters[genotype.id] = count_parameters(genotype, **self._form)
        return self._parameters[genotype.id]

    def _count(self, genotype: Genotype) -> tuple[int, int]:
        if genotype.id not in self._counted:
            cost = measure_cost(genotype, **self._form, input_size=self._input_size)
            self._counted[genotype.id] = (cost.num_parameters, cost.macs)
        return self._counted[genotype.id]

    def latency(self, genotype: Genotype) -> float:
        """Milliseconds for one image, measured if that is not known.

        Raises:
            RunError: see `Meter.measure`, or the disk does not take it.
        """
        if genotype.id not in self._latencies:
            # Weights do not matter, so they are random.
            network = seeded(0, lambda: Segmenter.build(genotype, **self._form))
            self._latencies[genotype.id] = self._meter.measure(network)
            known = Latencies(measured_by=self._meter.about, milliseconds=self._latencies)
            known.write(self.path)
        return self._latencies[genotype.id]


def _no_room(key: str, most: float, least: str) -> str:
    return (
        f"search.constraints.{key} = {most}: the encoder alone, which every network contains, "
        f"{least}; raise it or leave it empty"
    )


def needs_latency(settings: SearchSettings) -> bool:
    """Whether what a search finds depends on latency: by a limit, the reward or the strategy."""
    return (
        settings.constraints.max_latency_ms is not None
        or settings.reward.cost == "latency_ms"
        or (settings.strategy == "pareto" and "latency_ms" in settings.pareto.costs)
    )
