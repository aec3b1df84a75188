"""Every setting, with its limits and its description. `loading` reads them."""

from __future__ import annotations

import shlex
from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from nas_core.base.addresses import has_credentials
from nas_core.base.setting_types import (
    LARGEST_NORM,
    MOST_COUNTED,
    MOST_MILLISECONDS,
    Device,
    Name,
    PathText,
    Section,
    Seed,
    Text,
)

DEFAULT_ENCODER = "mobilenet_v2"
DatasetKind = Literal["camvid", "cityscapes", "folder", "synthetic"]
Cost = Literal["parameters", "macs", "latency_ms"]
TrainedSplits = Literal["train", "train+val"]
StrategyName = Literal["ppo", "reinforce", "evolution", "pareto", "random"]

# Of search.latency.command: here goes the path of the ONNX file.
MODEL = "{model}"


class CropSettings(Section):
    """What the two trainings share: the range of random scales."""

    min_scale: float
    max_scale: float

    @model_validator(mode="after")
    def scales_in_order(self) -> Self:
        if self.min_scale > self.max_scale:
            raise ValueError(
                f"min_scale ({self.min_scale}) must not exceed max_scale ({self.max_scale})"
            )
        return self


class SyntheticSettings(Section):
    """Size of the built-in synthetic dataset. No effect unless dataset.kind is synthetic."""

    num_train: int = Field(60, ge=2, le=100_000, description="Images in the training split.")
    num_val: int = Field(12, ge=1, le=100_000, description="Images in the validation split.")
    num_test: int = Field(12, ge=1, le=100_000, description="Images in the test split.")
    height: int = Field(90, ge=32, le=2048, description="Height of an image in pixels.")
    width: int = Field(120, ge=32, le=4096, description="Width of an image in pixels.")


class TileSettings(Section):
    """Square tiles that large images are cut into."""

    size: int = Field(ge=32, le=4096, description="Pixels along a side.")
    overlap: int = Field(
        32, ge=0, le=2048, description="Pixels that neighbours share at least, half a tile at most."
    )

    @model_validator(mode="after")
    def overlap_fits(self) -> Self:
        if self.overlap > self.size // 2:
            raise ValueError(f"overlap ({self.overlap}) must not exceed half of size ({self.size})")
        return self


class DatasetSettings(Section):
    """Where the images come from."""

    kind: DatasetKind = Field(
        "camvid",
        description="camvid, cityscapes: their layouts at `path`. folder: your own images and "
        "masks, described by dataset.yaml in it. synthetic: street scenes drawn into `path` when "
        "they are not there yet.",
    )
    path: PathText = Field("data", description="Folder of the dataset, relative to params.yaml.")
    held_out: tuple[Text, ...] = Field(
        (),
        strict=False,  # JSON and YAML have lists
        description="Groups of the training split, as recordings, that no network is trained on: "
        "they take the place of test.",
    )
    tile: TileSettings | None = Field(
        None,
        description="{size: 320, overlap: 32} cuts images into such tiles when they are prepared. "
        "Empty: whole images.",
    )
    synthetic: SyntheticSettings = SyntheticSettings()


class EncoderSettings(Section):
    """The weights of the encoder that every candidate stands on; see network.encoder."""

    weights: PathText = Field(
        "imagenet",
        description="imagenet: those of torchvision or timm, downloaded. none: random. Anything "
        "else: the name of a model of `nas predict`, or the path of a file with the weights (.pt "
        "state dict or .safetensors), or of a model.",
    )


class StrategySettings(Section):
    """What some strategies have for themselves: of the others it decides nothing."""

    strategies: ClassVar[frozenset[StrategyName]]


class ControllerSettings(StrategySettings):
    """The LSTM controller. No effect on the strategies evolution, pareto and random."""

    strategies: ClassVar[frozenset[StrategyName]] = frozenset({"ppo", "reinforce"})

    autoregressive: bool = Field(
        True,
        description="Feed each decision into the next step. False: the authors' form, in which "
        "decisions are independent of each other.",
    )
    learning_rate: float = Field(1.5e-3, gt=0, le=1, description="Adam's learning rate.")
    clip: float = Field(0.2, gt=0, lt=1, description="PPO's clip range. No effect on reinforce.")
    epochs: int = Field(8, ge=1, le=100, description="PPO passes over the buffer an update.")
    buffer_size: int = Field(
        20,
        ge=1,
        le=1_000_000,
        description="The last candidates that PPO learns from, a round's at least. No effect on "
        "reinforce.",
    )
    max_gradient_norm: float = Field(
        2.0, gt=0, le=LARGEST_NORM, description="Gradients are clipped to this norm."
    )


class EvolutionSettings(StrategySettings):
    """Regularised evolution. No effect on the other strategies."""

    strategies: ClassVar[frozenset[StrategyName]] = frozenset({"evolution"})

    population_size: int = Field(
        24, ge=2, le=10_000, description="The latest candidates that parents are chosen from."
    )
    sample_size: int = Field(
        6, ge=1, le=10_000, description="A parent is the best of this many drawn from them."
    )

    @model_validator(mode="after")
    def sample_fits(self) -> Self:
        if self.sample_size > self.population_size:
            raise ValueError(
                f"sample_size ({self.sample_size}) must not exceed population_size "
                f"({self.population_size})"
            )
        return self


class ParetoSettings(StrategySettings):
    """The strategy pareto. No effect on the other strategies."""

    strategies: ClassVar[frozenset[StrategyName]] = frozenset({"pareto"})

    population_size: int = Field(
        12, ge=2, le=10_000, description="The best candidates, which parents are chosen from."
    )
    costs: tuple[Cost, ...] = Field(
        ("parameters",),
        min_length=1,
        strict=False,  # JSON and YAML have lists
        description="What is to be small beside a large reward: parameters, macs, latency_ms.",
    )

    @field_validator("costs")
    @classmethod
    def costs_once(cls, costs: tuple[Cost, ...]) -> tuple[Cost, ...]:
        if len(set(costs)) < len(costs):
            raise ValueError("a cost is given twice: name each once")
        return costs


class ConstraintSettings(Section):
    """Limits on the network as it is shipped: a candidate over one is refused untrained."""

    max_parameters: int | None = Field(
        300_000,
        ge=1,
        le=MOST_COUNTED,
        description="Most parameters, encoder included. Empty: no limit.",
    )
    max_macs: int | None = Field(
        None,
        ge=1,
        le=MOST_COUNTED,
        description="Most multiply-accumulates for one image. Empty: no limit.",
    )
    max_latency_ms: float | None = Field(
        None,
        gt=0,
        le=MOST_MILLISECONDS,
        description="Most milliseconds for one image, measured by search.latency. Empty: no limit.",
    )


class RewardSettings(Section):
    """The reward: quality * (cost / target) ** exponent (MnasNet, arXiv 1807.11626)."""

    cost: Literal[Cost, "none"] = Field(
        "none", description="The cost that the reward includes. none: the reward is the quality."
    )
    target: float = Field(
        300_000,
        ge=1e-3,
        le=MOST_COUNTED,
        description="Cost at which the reward is the quality, in the cost's unit.",
    )
    exponent: float = Field(
        -0.07, ge=-2, le=0, description="How much cost counts: -0.07 gives 5 % for half the cost."
    )


class LatencySettings(Section):
    """What measures the latency of a network, for one image of the dataset's size."""

    command: Text = Field(
        "",
        description="A command, run without a shell in the folder of params.yaml, that is given "
        "the path of an ONNX file in place of {model} and prints milliseconds: ./board.sh {model}. "
        "It is recorded and shown, so it is no place for a password. Empty: ONNX Runtime on this "
        "machine.",
    )
    threads: int = Field(
        1, ge=1, le=1024, description="CPU threads of ONNX Runtime. No effect with a command."
    )
    time_limit: float = Field(
        120.0, gt=0, le=86_400, description="Seconds for one network, a day at most."
    )

    @field_validator("command")
    @classmethod
    def takes_a_model(cls, command: str) -> str:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"cannot be split into words ({error})") from None
        if command and not any(MODEL in word for word in words[1:]):
            raise ValueError(f"needs {MODEL} behind the program, where the ONNX file goes")
        return command


class ProxySettings(CropSettings):
    """The short training that scores a candidate."""

    height: int = Field(72, ge=32, le=2048, description="Images are scaled to this height.")
    width: int = Field(96, ge=32, le=4096, description="Images are scaled to this width.")
    max_images: int | None = Field(
        None,
        ge=3,
        le=MOST_COUNTED,
        description="Training images that a search uses at most, drawn by meta_val.seed. Empty: "
        "all.",
    )
    batch_size: int = Field(16, ge=2, le=1024, description="Images a step, in both stages.")
    epochs_a: int = Field(5, ge=1, le=1000, description="Stage A, frozen encoder: epochs.")
    epochs_b: int = Field(2, ge=0, le=1000, description="Stage B, end to end: epochs.")
    crops_per_image: int = Field(
        1, ge=1, le=32, description="Augmented crops an image whose encoder outputs are cached."
    )
    learning_rate_a: float = Field(7e-3, gt=0, le=1, description="Adam, decoder, stage A.")
    learning_rate_b: float = Field(
        2e-3, gt=0, le=1, description="Adam, decoder, stage B; falls to 0 in it, as the encoder's."
    )
    learning_rate_encoder: float = Field(5e-4, ge=0, le=1, description="Adam, encoder, stage B.")
    weight_decay_b: float = Field(1e-5, ge=0, le=1, description="Weight decay in stage B.")
    max_gradient_norm: float = Field(
        3.0, gt=0, le=LARGEST_NORM, description="Gradient norm clip in stage B."
    )
    averaging_a: float = Field(0.9, ge=0, lt=1, description="Polyak decay, stage A.")
    averaging_b: float = Field(0.99, ge=0, lt=1, description="Polyak decay, stage B.")
    min_scale: float = Field(0.7, gt=0, le=8, description="Random scale of a crop: least.")
    max_scale: float = Field(1.4, gt=0, le=8, description="Random scale of a crop: most.")
    agg_size: int = Field(48, ge=1, le=1024, description="Channels of the decoder's head.")
    sep_repeats: int = Field(1, ge=1, le=4, description="Repeats inside a separable convolution.")


class MetaValSettings(Section):
    """The part of the training split that scores the candidates."""

    fraction: float = Field(0.1, gt=0, lt=1, description="Its share of the training images.")
    by: Literal["frames", "groups"] = Field(
        "frames",
        description="frames: images are drawn one by one. groups: whole recordings where there "
        "are enough, else blocks of their frames with gaps; nas data check says which.",
    )
    seed: Seed = Field(0, description="Draws it, whatever the seed of the search.")


class EarlyStoppingSettings(Section):
    """A candidate clearly below the running average of earlier ones stops at a validation."""

    enabled: bool = Field(True, description="False: every candidate trains to its end.")
    delta: float = Field(
        0.9,
        ge=0,
        le=1,
        description="A candidate stops below mean * (1 - u), u uniform in [0, delta].",
    )
    decay: float = Field(
        0.95, gt=0, le=1, description="delta shrinks by this factor a finished candidate."
    )


class ConfirmSettings(Section):
    """The best candidates race, seed by seed, before any is trained fully."""

    candidates: int = Field(
        12,
        ge=0,
        le=1000,
        description="The best that race, by their reward; a quarter of all at most. 0: none.",
    )
    max_seeds: int = Field(
        3,
        ge=1,
        le=100,
        description="Most further proxy trainings of each, with other seeds. The race ends sooner "
        "where train.top are told apart from the rest.",
    )


class SearchSettings(Section):
    """The search for architectures."""

    strategy: StrategyName = Field(
        "ppo",
        description="Who proposes: the controller, trained by ppo or reinforce; evolution; pareto, "
        "which weighs quality and costs itself; random.",
    )
    start_from: tuple[PathText, ...] = Field(
        (),
        strict=False,
        description="Networks that are trained first, by name, id or JSON file; the strategy "
        "learns from them as from its own.",
    )
    num_candidates: int = Field(
        32, ge=1, le=1_000_000, description="Candidates to train. Raising it continues a search."
    )
    batch_size: int = Field(
        4, ge=1, le=1024, description="Candidates proposed at a time, before the strategy learns."
    )
    rounds_ahead: int = Field(
        0,
        ge=0,
        le=1024,
        description="Batches proposed before the one before them is learned from: they keep more "
        "workers busy, and what is learned is of older proposals. 0: a batch at a time.",
    )
    max_failures: int = Field(
        3,
        ge=1,
        le=1_000_000,
        description="The search stops after this many failed candidates in a row.",
    )
    controller: ControllerSettings = ControllerSettings()
    evolution: EvolutionSettings = EvolutionSettings()
    pareto: ParetoSettings = ParetoSettings()
    constraints: ConstraintSettings = ConstraintSettings()
    reward: RewardSettings = RewardSettings()
    latency: LatencySettings = LatencySettings()
    meta_val: MetaValSettings = MetaValSettings()
    proxy: ProxySettings = ProxySettings()
    early_stopping: EarlyStoppingSettings = EarlyStoppingSettings()
    confirm: ConfirmSettings = ConfirmSettings()

    @model_validator(mode="after")
    def start_fits(self) -> Self:
        if len(self.start_from) > self.num_candidates:
            raise ValueError(
                f"start_from names {len(self.start_from)} networks, more than num_candidates "
                f"({self.num_candidates})"
            )
        return self

    @property
    def most_at_a_time(self) -> int:
        """Candidates that are proposed and not trained yet."""
        return self.batch_size * (1 + self.rounds_ahead)

    @model_validator(mode="after")
    def costs_count_once(self) -> Self:
        if self.strategy == "pareto" and self.reward.cost != "none":
            raise ValueError(
                f"strategy pareto weighs costs itself: name {self.reward.cost} in pareto.costs and "
                "leave reward.cost at none"
            )
        return self


class NetworkSettings(Section):
    """The network that is trained fully and shipped; a proxy network may be narrower."""

    encoder: Text = Field(
        DEFAULT_ENCODER,
        max_length=100,
        description="The classifier whose first blocks every network begins with: mobilenet_v2, "
        "mobilenet_v3_small, mobilenet_v3_large (each in other widths too: mobilenet_v2_x0.5), "
        "efficientnet_b0, or timm/NAME.",
    )
    agg_size: int = Field(64, ge=1, le=1024, description="Channels of the decoder's head.")
    sep_repeats: int = Field(2, ge=1, le=4, description="Repeats inside a separable convolution.")


class TrainSettings(CropSettings):
    """Full training of the best architectures."""

    top: int = Field(2, ge=0, le=100, description="How many of the search's best are trained.")
    also: tuple[PathText, ...] = Field(
        ("arch0",),
        strict=False,  # JSON and YAML have lists
        description="Architectures trained beside them, by name, id or JSON file.",
    )
    teacher: PathText = Field(
        "none",
        description="A network that teaches beside the labels, of the same classes: the folder of "
        "its training, a .safetensors file, the name of a shipped model, or none.",
    )
    splits: TrainedSplits = Field(
        "train", description="Splits to train on. With train+val, val figures mean nothing."
    )
    epochs: int = Field(30, ge=1, le=100_000, description="Passes over the training images.")
    batch_size: int = Field(8, ge=2, le=1024, description="Images a step.")
    crop_height: int = Field(288, ge=32, le=4096, description="Height of a training crop.")
    crop_width: int = Field(384, ge=32, le=8192, description="Width of a training crop.")
    min_scale: float = Field(0.6, gt=0, le=8, description="Random scale of a crop: least.")
    max_scale: float = Field(1.6, gt=0, le=8, description="Random scale of a crop: most.")
    jitter: float = Field(
        0.4, ge=0, lt=1, description="Brightness, contrast, saturation vary by 1 +/- this."
    )
    class_weighting: bool = Field(True, description="Rare classes count more in the loss.")
    learning_rate: float = Field(6e-3, gt=0, le=1, description="AdamW, decoder, at its peak.")
    learning_rate_encoder: float = Field(3e-3, ge=0, le=1, description="AdamW, encoder.")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="AdamW's weight decay.")
    warmup_steps: int = Field(
        100, ge=0, le=1_000_000_000, description="Steps of linear warm-up, at most half."
    )
    max_gradient_norm: float = Field(
        3.0, gt=0, le=LARGEST_NORM, description="Gradients are clipped to this norm."
    )
    averaging: float = Field(0.998, ge=0, lt=1, description="Polyak decay of the weights.")
    validate_every: int = Field(5, ge=1, le=100_000, description="Epochs between validations.")


class ComputeSettings(Section):
    """The hardware."""

    device: Device = Field(
        "auto",
        description="auto: a CUDA GPU if there is one. cpu, cuda, cuda:N or mps (Apple's GPUs, "
        "untried) otherwise.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the device computes it, else fp32."
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads of a training. 0: its share of the cores among those that there "
        "are to be trained at a time, whatever the number of workers.",
    )


class RaySettings(Section):
    """The Ray cluster that trains. No effect unless runner.kind is ray."""

    address: Text = Field(
        "",
        description="HOST:PORT of a cluster that this machine is part of, or auto to find it. "
        "Empty: a cluster of this machine alone, which ends with the run.",
    )
    cpus: float = Field(1.0, gt=0, le=1024, description="CPU cores for one training.")
    gpus: float = Field(
        0.0, ge=0, le=64, description="GPUs for one training; 0.25 puts four on one GPU."
    )

    @field_validator("address")
    @classmethod
    def has_no_scheme(cls, address: str) -> str:
        if "/" in address or "@" in address:
            raise ValueError("expected HOST:PORT, auto, or nothing")
        return address


class RunnerSettings(Section):
    """Where candidates are trained, and networks fully. That decides no result."""

    kind: Literal["process", "ray"] = Field(
        "process", description="process: processes of this machine. ray: a Ray cluster."
    )
    workers: int = Field(
        0,
        ge=0,
        le=1024,
        description="Trainings at a time. 0: as many as cores, memory and GPUs (or Ray) have room "
        "for.",
    )
    time_limit: float = Field(
        3600.0,
        gt=0,
        le=2_592_000,
        description="Seconds for one candidate, 30 days at most: over it, it is failed. Full "
        "trainings have no limit.",
    )
    ray: RaySettings = RaySettings()


class TrackingSettings(Section):
    """The record in MLflow."""

    model_config = ConfigDict(hide_input_in_errors=True)

    uri: Text = Field(
        "",
        description="MLflow tracking URI. Empty: MLFLOW_TRACKING_URI, or else SQLite in artifacts.",
    )

    @field_validator("uri")
    @classmethod
    def has_no_password(cls, uri: str) -> str:
        if has_credentials(uri):
            raise ValueError(
                "a password must not stand here, for settings are recorded; set "
                "MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return uri


class Settings(Section):
    """All settings of a search and of what follows it."""

    name: Name = Field(
        "camvid",
        description="Names the MLflow experiment, the registered model and the run folders.",
    )
    seed: Seed = Field(0, description="Seed of everything that is random.")
    dataset: DatasetSettings = DatasetSettings()
    encoder: EncoderSettings = EncoderSettings()
    network: NetworkSettings = NetworkSettings()
    search: SearchSettings = SearchSettings()
    train: TrainSettings = TrainSettings()
    compute: ComputeSettings = ComputeSettings()
    runner: RunnerSettings = RunnerSettings()
    tracking: TrackingSettings = TrackingSettings()


SECTIONS = tuple(
    name
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
)
