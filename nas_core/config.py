"""params.yaml to typed, checked settings.

`params.yaml` holds every setting, for CamVid. A profile (`profiles/NAME.yaml`) holds only what
differs from it; the profile `camvid` is params.yaml itself.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from nas_core.base.addresses import has_credentials, redacted
from nas_core.base.errors import SettingsError, shown, some_of
from nas_core.base.files import resolved
from nas_core.base.letters import as_seen, escaped
from nas_core.base.problems import in_words, key_of
from nas_core.base.yaml_files import parse_yaml, read_yaml

# Where this code lies; without a params.yaml if it is installed.
CHECKOUT = Path(__file__).resolve().parents[1]

_SHOWN_PROBLEMS = 8
# Linux' limits, PATH_MAX and NAME_MAX, the former with room for the project's folder.
_MAX_PATH = 3000
_MAX_PART = 255

_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,40}$")
_VARIABLE = re.compile(r"\$(\{|[A-Za-z_])")
_DEVICE = re.compile(r"^(auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?)$")

# Strict: True is no number, where a flow takes a seed without a section around it.
MAX_SEED = 2**31 - 1
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED + 1, strict=True)]

# Limits of what could be meant. Without them a slip of the keyboard overflows a float or an
# integer of 64 bits hours later.
_MOST_COUNTED = 10**15
_MOST_MILLISECONDS = 3_600_000
_LARGEST_NORM = 1e6

# Of search.latency.command: here goes the path of the ONNX file.
MODEL = "{model}"


def _is_text(value: str) -> str:
    """Settings are recorded: in journals, in MLflow, in Prefect's database."""
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in value):
        raise ValueError("has a character that is no text (control character, or not UTF-8)")
    return value


def _is_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            "expected 1 to 41 of the letters a to z, digits, '_' and '-', the first of them a "
            "letter or digit"
        )
    return value


def _is_device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError("expected auto, cpu, mps, cuda or cuda:N with a number up to 99")
    return value


def _is_path(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty: give a path")
    if value.startswith("~") or _VARIABLE.search(value):
        raise ValueError("only a shell replaces ~ and $NAME: give the path that they stand for")
    if "://" in value:
        raise ValueError("is an address; give the path of a file or folder of this machine")
    if len(value.encode()) > _MAX_PATH or any(
        len(part.encode()) > _MAX_PART for part in value.split("/")
    ):
        raise ValueError(
            f"too long: a path has {_MAX_PATH} bytes at most, and {_MAX_PART} between two slashes"
        )
    return value


Text = Annotated[str, AfterValidator(_is_text)]
DEFAULT_ENCODER = "mobilenet_v2"
DatasetKind = Literal["camvid", "cityscapes", "folder", "synthetic"]
Cost = Literal["parameters", "macs", "latency_ms"]
TrainedSplits = Literal["train", "train+val"]
StrategyName = Literal["ppo", "reinforce", "evolution", "pareto", "random"]
PathText = Annotated[Text, AfterValidator(_is_path)]


class Section(BaseModel):
    """Values have the type that they are declared with: neither True nor "8" is a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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


class ControllerSettings(Section):
    """The LSTM controller. No effect on the strategies evolution, pareto and random."""

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
        2.0, gt=0, le=_LARGEST_NORM, description="Gradients are clipped to this norm."
    )


class EvolutionSettings(Section):
    """Regularised evolution. No effect on the other strategies."""

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


class ParetoSettings(Section):
    """The strategy pareto. No effect on the other strategies."""

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
        le=_MOST_COUNTED,
        description="Most parameters, encoder included. Empty: no limit.",
    )
    max_macs: int | None = Field(
        None,
        ge=1,
        le=_MOST_COUNTED,
        description="Most multiply-accumulates for one image. Empty: no limit.",
    )
    max_latency_ms: float | None = Field(
        None,
        gt=0,
        le=_MOST_MILLISECONDS,
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
        le=_MOST_COUNTED,
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
        le=_MOST_COUNTED,
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
        3.0, gt=0, le=_LARGEST_NORM, description="Gradient norm clip in stage B."
    )
    averaging_a: float = Field(0.9, ge=0, lt=1, description="Polyak decay, stage A.")
    averaging_b: float = Field(0.99, ge=0, lt=1, description="Polyak decay, stage B.")
    min_scale: float = Field(0.7, gt=0, le=8, description="Random scale of a crop: least.")
    max_scale: float = Field(1.4, gt=0, le=8, description="Random scale of a crop: most.")
    agg_size: int = Field(48, ge=1, le=1024, description="Channels of the decoder's head.")
    sep_repeats: int = Field(1, ge=1, le=4, description="Repeats inside a separable convolution.")

    @property
    def num_validations(self) -> int:
        """One after stage A, one after each epoch of stage B."""
        return 1 + self.epochs_b


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
        3.0, gt=0, le=_LARGEST_NORM, description="Gradients are clipped to this norm."
    )
    averaging: float = Field(0.998, ge=0, lt=1, description="Polyak decay of the weights.")
    validate_every: int = Field(5, ge=1, le=100_000, description="Epochs between validations.")


class ComputeSettings(Section):
    """The hardware."""

    device: Annotated[str, AfterValidator(_is_device)] = Field(
        "auto",
        json_schema_extra={"pattern": _DEVICE.pattern},
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

    name: Annotated[str, AfterValidator(_is_name)] = Field(
        "camvid",
        json_schema_extra={"pattern": _NAME.pattern},
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


def project_dir() -> Path:
    """The folder with params.yaml, to which all relative paths of the settings refer.

    `NAS_PROJECT_DIR`, or else the nearest folder with a params.yaml from the current one upwards,
    or else the checkout that this code lies in.

    Raises:
        SettingsError: there is no params.yaml in any of them, or the path is no text.
    """
    root = find_project()
    if root is None:
        raise SettingsError("no params.yaml here or above: nas init FOLDER makes a project")
    return root


def find_project() -> Path | None:
    """As `project_dir`; None where there is no params.yaml, for what can do without a project.

    Raises:
        SettingsError: `NAS_PROJECT_DIR` names a folder without one, or the path is no text.
    """
    if named := os.environ.get("NAS_PROJECT_DIR"):
        if not (Path(named) / "params.yaml").is_file():
            raise SettingsError(f"NAS_PROJECT_DIR is {named}, which has no params.yaml")
        return with_text(resolved(Path(named)))
    here = Path.cwd()
    for folder in (here, *here.parents, CHECKOUT):
        if (folder / "params.yaml").is_file():
            return with_text(folder)
    return None


def with_text(root: Path) -> Path:
    """A project's folder, whose path is recorded.

    Raises:
        SettingsError: it is no text.
    """
    try:
        _is_text(str(root))
    except ValueError as error:
        raise SettingsError(f"the project's folder {root} {error}: rename or move it") from None
    return root


def load_settings(
    profile: str = "camvid",
    overrides: Iterable[str] = (),
    sections: Mapping[str, Any] | None = None,
    *,
    root: Path | None = None,
) -> Settings:
    """The settings of a profile, with overrides.

    Args:
        profile: `camvid` (params.yaml itself) or the name of a file in profiles/.
        overrides: `key=value` strings with dotted keys and YAML values; they win.
        sections: nested values laid over the profile, as the Prefect flow gets them.
        root: the project's folder, found by `project_dir` if not given.

    Raises:
        SettingsError: an unknown key, a value out of range, or a file that cannot be read. The
            message names the file, the key and the nearest valid one.
    """
    root = root or project_dir()
    if (root / "profiles" / "camvid.yaml").exists():
        raise SettingsError(
            "profiles/camvid.yaml: the profile camvid is params.yaml itself; give the file another "
            "name"
        )
    values = _read_yaml(root / "params.yaml")
    sources = ["params.yaml"]
    if profile != "camvid":
        path = root / "profiles" / f"{profile}.yaml"
        if profile not in profiles(root):
            raise SettingsError(
                f"unknown profile {shown(profile)}; there are: {some_of(profiles(root))}"
            )
        _lay_over(values, _read_yaml(path))
        sources.append(f"profiles/{profile}.yaml")
    _lay_over(values, dict(sections or {}))
    for override in overrides:
        _lay_over(values, _parse_override(override))
    return validate_settings(values, source=" with ".join(sources))


def profiles(root: Path) -> list[str]:
    """The names that `load_settings` takes as a profile."""
    return sorted({"camvid", *(path.stem for path in (root / "profiles").glob("*.yaml"))})


def validate_settings(values: Any, source: str) -> Settings:
    """Check nested plain values; `source` begins the error's message."""
    if not isinstance(values, dict):
        raise SettingsError(f"{source}: expected keys and values, found {type(values).__name__}")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        found = error.errors()
        problems = [_explain(problem) for problem in found[:_SHOWN_PROBLEMS]]
        if len(found) > len(problems):
            problems.append(f"and {len(found) - len(problems)} more")
        raise SettingsError(f"{source}: {'; '.join(problems)}") from None


def check_once(option: str, values: Sequence[Any]) -> None:
    """See that the values of an option are given, each once.

    Raises:
        SettingsError: there is none, or one is given twice.
    """
    if not values:
        raise SettingsError(f"{option}: give one or more")
    check_distinct(option, values)


def check_distinct(option: str, values: Sequence[Any]) -> None:
    """See that no value of an option is given twice.

    Raises:
        SettingsError: one is.
    """
    if twice := [value for value in values if list(values).count(value) > 1]:
        raise SettingsError(f"{option} {twice[0]} is given twice: name each once")


def setting_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """All valid keys in dotted form: `seed`, `search.proxy.epochs_a` ..."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += setting_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _explain(problem: Any) -> str:
    key = key_of(problem)
    if problem["type"] == "extra_forbidden":
        # No key has other letters, whatever they look like.
        unknown = f"unknown key '{escaped(key)}'"
        if any("." in str(part) for part in problem["loc"]):
            return f"{unknown}: write one key beneath another, without dots"
        return f"{unknown}{_nearest(as_seen('.'.join(map(str, problem['loc']))))}"
    message, value = in_words(problem), shown(problem["input"])
    if problem["input"] is None:
        return f"{key} is empty: {message}"
    if problem["type"] == "literal_error":
        value = escaped(value)
    if isinstance(problem["input"], dict) or "tracking" in problem["loc"] or _may_tell(value):
        return f"{key}: {message}"
    return f"{key} = {value}: {message}"


def _may_tell(value: str) -> bool:
    """Whether a value in quotes could be an address, which may hold a password."""
    return "://" in value or has_credentials(value.strip("'"))


def _nearest(key: str) -> str:
    """A hint at the valid key that is most like an unknown one: on its level, or by its name."""
    keys = setting_keys()
    paths = {".".join(known.split(".")[: key.count(".") + 1]) for known in keys}
    # A key that has become one of a section of its own is there with a dot for a `_`.
    close = [known for known in keys if known.replace(".", "_") == key.replace(".", "_")]
    close = close or difflib.get_close_matches(key, sorted(paths), n=1, cutoff=0.7)
    if not close:
        last = key.rsplit(".", 1)[-1]
        close = [known for known in keys if known.rsplit(".", 1)[-1] == last]
    return f"; did you mean {close[0]!r}?" if close else f"; sections are {', '.join(SECTIONS)}"


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise SettingsError(
            f"-S {redacted(shown(text)[1:-1])}: expected key=value, for example "
            "search.num_candidates=8"
        )
    try:
        nested = parse_yaml(value, source=key)
    except ValueError:
        what = "the value" if _may_tell(shown(value)) else shown(value)
        raise SettingsError(f"-S {shown(key)[1:-1]}: {what} is not a YAML value") from None
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return cast(dict[str, Any], nested)


def _lay_over(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _lay_over(values[key], value)
        else:
            values[key] = dict(value) if isinstance(value, Mapping) else value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected keys and values")
    return values
