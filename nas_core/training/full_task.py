"""What full trainings are of, but for the architecture and the seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nas_core.base.code import TRAINING, code_digest
from nas_core.base.files import digest_of
from nas_core.base.paths import prepared_folder
from nas_core.config import NetworkSettings, Settings, TrainSettings
from nas_core.data.prepared import PreparedData
from nas_core.models.compute import Compute
from nas_core.models.encoder import encoder_weights
from nas_core.models.segmenter import Segmenter
from nas_core.models.state import state_digest
from nas_core.space.genotype import Genotype
from nas_core.training.distillation import load_teacher


@dataclass(frozen=True)
class FullTask:
    """Data, what a network begins from, and how it is trained.

    Attributes:
        encoder_state: weights that the encoder starts from; random ones if None.
        teacher: see `distillation_loss`.
    """

    data: PreparedData
    encoder_state: dict[str, Tensor] | None
    network: NetworkSettings
    settings: TrainSettings
    compute: Compute
    teacher: Segmenter | None = None

    @classmethod
    def open(cls, settings: Settings, root: Path) -> FullTask:
        """That of the settings.

        Raises:
            NasError: what they name is not there.
        """
        data = PreparedData.open(prepared_folder(root, settings))
        return cls(
            data,
            encoder_weights(settings, root),
            settings.network,
            settings.train,
            Compute.from_settings(settings.compute),
            load_teacher(settings.train, root, data.classes),
        )

    def identity(self, genotype: Genotype, seed: int) -> str:
        """A digest of all that decides a training's outcome but for rounding, the code included.

        Neither the device nor torch's version is part of it, as it is of a search: a training of
        hours may go on elsewhere, and its record names both.
        """
        return digest_of(
            code_digest(TRAINING),
            genotype.to_dict(),
            self.network.model_dump(),
            self.settings.model_dump(exclude={"top", "also", "teacher"}),
            state_digest(self.encoder_state),
            state_digest(self.teacher.state_dict() if self.teacher else None),
            self.data.content_hash,
            self.compute.bf16,
            seed,
        )
