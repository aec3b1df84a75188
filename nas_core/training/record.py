"""What a full training leaves: training.json, and test.json once it is scored.

They are handed from stage to stage, and by `dvc pull` from machine to machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import ConfigDict, Field, JsonValue, RootModel, model_validator

from nas_core.base.documents import Document, Number
from nas_core.base.errors import TrainingError, shown
from nas_core.config import NetworkSettings, TrainedSplits

# Labels and identities become names of files and folders.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
# Seconds since the epoch, as far as MLflow takes them.
Moment = Annotated[float, Field(ge=0, le=1e11)]
# From 0 to 1, but for the last digit of a sum.
Score = Annotated[float, Field(ge=0, le=1 + 1e-6)]
EPOCHS_FILE = "epochs.json"
Size = Annotated[tuple[Count, Count], Field(strict=False)]
"""Height and width of an image."""


class Recipe(Document):
    """Sections of the settings that a network was trained with."""

    encoder: dict[str, JsonValue] = Field(default_factory=dict)
    network: dict[str, JsonValue] = Field(
        default_factory=lambda: NetworkSettings().model_dump(mode="json")
    )
    """Of what was trained before this was recorded: the defaults."""
    train: dict[str, JsonValue] = Field(default_factory=dict)


class EpochsDone(Document):
    """epochs.json: how far a full training is."""

    remedy = "the next epoch writes it anew"

    done: Count
    planned: Count

    @model_validator(mode="after")
    def is_within(self) -> Self:
        if self.done > self.planned:
            raise ValueError(f"{self.done} epochs of {self.planned}")
        return self


class Training(Document):
    """training.json: a finished full training. What has a default, older ones may lack."""

    model_config = ConfigDict(extra="allow")
    remedy = "delete it to train again"
    error = TrainingError

    label: Name
    identity: Name
    started: Moment
    commit: str | None = None
    id: Name
    """Of the architecture."""
    num_parameters: Count
    macs: Count
    input_size: Size = (360, 480)
    """That of CamVid's images, where it is not said."""
    seed: Count
    splits: TrainedSplits
    data: Name | None = None
    """The name of the data set."""
    data_hash: str | None = None
    recipe: Recipe | None = None
    device: str
    finished: Moment
    val: dict[str, Score]
    """Scores by name; empty if it was trained on val."""
    history: list[dict[str, Number]]
    """See `FullResult.history`."""

    def check_network(self, path: Path, found: str, remedy: str) -> None:
        """See that a file of this training is of its network.

        Args:
            found: the id of the network that the file is of.

        Raises:
            TrainingError: it is of another one.
        """
        if found != self.id:
            raise TrainingError(
                f"{path} is of the network {shown(found)}, and its training of {self.id}: {remedy}"
            )


class Trainings(Document, RootModel[dict[Name, Training]]):
    """trainings.json: trainings by label."""


class TrainedNetwork(Document):
    """What metrics.json of the stage train says of a training."""

    num_parameters: Count
    macs: Count
    epochs: Count
    val: dict[str, Score]


class TrainMetrics(Document, RootModel[dict[Name, TrainedNetwork]]):
    """metrics.json of the stage train: trainings by label."""


class Scores(Document):
    """Scores over a whole split, from 0 to 1; see `ConfusionMatrix`."""

    mean_iou: Score
    frequency_weighted_iou: Score
    mean_accuracy: Score
    reward: Score


class EvaluateMetrics(Document, RootModel[dict[Name, Scores]]):
    """metrics.json of the stage evaluate: scores on the final split by label."""


class FinalScores(Document):
    """test.json: what a trained network scores on the final split."""

    remedy = "delete it to test again"
    error = TrainingError

    label: str
    id: str
    mean_iou: Score
    frequency_weighted_iou: Score
    mean_accuracy: Score
    reward: Score
    class_iou: dict[str, Score]
    """By class, without those that the split lacks."""

    @property
    def scores(self) -> Scores:
        return Scores(**self.model_dump(include={*Scores.model_fields}))
