"""What cost does to the reward. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

from nas_core.config import Cost, RewardSettings


@dataclass(frozen=True)
class CandidateCost:
    """The cost of the network as it is shipped, encoder included.

    Attributes:
        num_parameters: trainable parameters.
        macs: multiply-accumulates of the convolutions for one image.
        latency_ms: milliseconds for one image, by `search.latency`; None if it was not measured.
    """

    num_parameters: int
    macs: int
    latency_ms: float | None

    def of(self, name: Cost) -> float:
        """One of them, by its name in the settings."""
        match name:
            case "parameters":
                return self.num_parameters
            case "macs":
                return self.macs
            case "latency_ms":
                assert self.latency_ms is not None, "see `needs_latency`"
                return self.latency_ms


def shaped_reward(quality: float, cost: CandidateCost, settings: RewardSettings) -> float:
    """quality * (cost / target) ** exponent: Tan et al., "MnasNet", arXiv 1807.11626, equation 2,
    with one exponent on both sides of the target. The quality itself with `cost: none`."""
    if settings.cost == "none":
        return quality
    return float(quality * (cost.of(settings.cost) / settings.target) ** settings.exponent)
