"""What the paper claims for its architectures, as plain data.

Source: Nekrasov, Shen, Reid: Template-Based Automatic Search of Compact Semantic Segmentation
Architectures, WACV 2020 (arXiv 1904.02365).
"""

from __future__ import annotations

from dataclasses import dataclass

from nas_core.config import NetworkSettings
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.genotype import Genotype

SOURCE = "Nekrasov, Shen, Reid, WACV 2020, arXiv 1904.02365"

# The claims are of networks with these settings, whose counts tests/reference has.
NETWORK = NetworkSettings(agg_size=64, sep_repeats=2)


@dataclass(frozen=True)
class Claim:
    """A published score.

    Attributes:
        architecture: a name of `ARCHITECTURES`.
        dataset: as dataset.kind.
        split: the split that was scored.
        height, width: size of the images that were scored.
        mean_iou: from 0 to 1, over the classes of the dataset.
    """

    architecture: str
    dataset: str
    split: str
    height: int
    width: int
    mean_iou: float


CLAIMS = (
    Claim("arch0", "camvid", "test", 360, 480, 0.639),
    Claim("arch1", "camvid", "test", 360, 480, 0.632),
    Claim("arch0", "cityscapes", "val", 1024, 2048, 0.681),
    Claim("arch1", "cityscapes", "val", 1024, 2048, 0.695),
)


def find_claim(
    genotype: Genotype, network: NetworkSettings, dataset: str, split: str, height: int, width: int
) -> Claim | None:
    """The claim for this network, scored on this split at this size; None if there is none."""
    if network != NETWORK:
        return None
    for claim in CLAIMS:
        known = ARCHITECTURES[claim.architecture].id
        what = (known, claim.dataset, claim.split, claim.height, claim.width)
        if what == (genotype.id, dataset, split, height, width):
            return claim
    return None
