"""A segmentation network as one self-describing safetensors file.

Tensors are the `Segmenter`'s state dict. The file's metadata holds one entry, a JSON object with
all that is needed to build the network and to read its output, and the digest of the tensors, which
older files lack. Nothing in it is unpickled.

A model that is handed on has a card beside it: a JSON file of its name, with the file's digest.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue, ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from nas_core.base.errors import GenotypeError, SettingsError, WeightsError, first_line, shown
from nas_core.base.files import check_regular, distinct, file_digest, read_json, write_bytes
from nas_core.base.problems import at_its_key
from nas_core.config import DEFAULT_ENCODER, NetworkSettings, TileSettings
from nas_core.data.labels import MAX_CLASSES
from nas_core.models.cost import Form
from nas_core.models.segmenter import Segmenter
from nas_core.models.state import DAMAGED, check_tensor, state_digest
from nas_core.space.genotype import Genotype

# One entry: the order in which safetensors writes several differs from process to process.
METADATA_KEY = "nas_segmenter"
# Of the tensors, beside the entries of `NetworkCard.to_dict`.
DIGEST_KEY = "sha256"
FORMAT = 1
_MALFORMED = (ValueError, TypeError, LookupError, OverflowError, RecursionError)

Colour = tuple[int, int, int]


class _Form(NetworkSettings):
    tile: TileSettings | None


@dataclass(frozen=True)
class NetworkCard:
    """What a network is, beside its weights.

    Attributes:
        classes: the name of each channel of the logits.
        palette: the colour of each class, RGB 0 to 255.
        agg_size, sep_repeats: as in `Decoder`.
        tile: what the images that it was trained on were cut into; None where they were whole.
        encoder: see `Encoder`.
    """

    genotype: Genotype
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    agg_size: int
    sep_repeats: int
    tile: TileSettings | None = None
    encoder: str = DEFAULT_ENCODER

    @property
    def form(self) -> Form:
        return Form(
            num_classes=len(self.classes),
            agg_size=self.agg_size,
            sep_repeats=self.sep_repeats,
            encoder=self.encoder,
        )

    def build(self) -> Segmenter:
        """The network, with the initial weights of the current device and generator.

        Raises:
            SettingsError: this machine lacks the package of its encoder.
        """
        return Segmenter.build(self.genotype, **self.form)

    def check(self, segmenter: Segmenter) -> None:
        """Raises a WeightsError where this is the card of another network."""
        _check_state(segmenter.state_dict(), self, "the segmenter is not the network of its card")

    def to_dict(self) -> dict[str, JsonValue]:
        """Plain values for JSON."""
        values = {"format": FORMAT, **asdict(self), "genotype": self.genotype.to_dict()}
        # Older files lack these.
        del values["tile"], values["encoder"]
        return (
            values
            | ({"tile": self.tile.model_dump()} if self.tile else {})
            | ({"encoder": self.encoder} if self.encoder != DEFAULT_ENCODER else {})
        )

    @classmethod
    def from_dict(cls, value: Any) -> NetworkCard:
        """The inverse of `to_dict`.

        Raises:
            ValueError, TypeError, LookupError, OverflowError, GenotypeError: it is malformed.
        """
        if not isinstance(value, dict):
            raise ValueError(f"expected keys and values, found {shown(value)}")
        if type(value["format"]) is not int or value["format"] != FORMAT:
            raise ValueError(f"format {shown(value['format'])}, expected {FORMAT}")
        known = {"format", *cls.__dataclass_fields__, DIGEST_KEY}
        if unknown := value.keys() - known:
            raise ValueError(f"unknown key {shown(min(unknown))}")
        palette = tuple((red, green, blue) for red, green, blue in value["palette"])
        channels = [channel for colour in palette for channel in colour]
        if not all(type(channel) is int and 0 <= channel <= 255 for channel in channels):
            raise ValueError("a colour is not of integers from 0 to 255")
        names = value["classes"]
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise ValueError("classes are no list of texts")
        classes = tuple(names)
        if not all(name and name.isprintable() for name in classes):
            raise ValueError("the name of a class is no text")
        if len(palette) != len(classes):
            raise ValueError(f"{len(palette)} colours for {len(classes)} classes")
        if not 1 <= len(classes) <= MAX_CLASSES:
            raise ValueError(f"{len(classes)} classes, expected 1 to {MAX_CLASSES}")
        if len(set(classes)) < len(classes):
            raise ValueError("two classes have one name")
        # Without their limits a small file could describe a network of any size.
        form = _Form(
            agg_size=value["agg_size"],
            sep_repeats=value["sep_repeats"],
            encoder=value.get("encoder", DEFAULT_ENCODER),
            tile=value.get("tile"),
        )
        return cls(
            Genotype.from_dict(value["genotype"]),
            classes,
            palette,
            form.agg_size,
            form.sep_repeats,
            form.tile,
            form.encoder,
        )


def segmenter_bytes(segmenter: Segmenter, card: NetworkCard) -> bytes:
    """The content of a file with a network; equal networks give equal bytes.

    Raises:
        WeightsError: `card` describes another network.
    """
    state = {
        # safetensors wants the default layout, and training uses channels_last.
        name: tensor.detach().cpu().contiguous()
        for name, tensor in segmenter.state_dict().items()
    }
    _check_state(state, card, "the network")
    described = {**card.to_dict(), DIGEST_KEY: state_digest(state)}
    metadata = {METADATA_KEY: json.dumps(described, sort_keys=True)}
    return save(state, metadata)


def save_segmenter(path: Path, segmenter: Segmenter, card: NetworkCard) -> None:
    """Write `segmenter_bytes` to `path` atomically."""
    write_bytes(path, segmenter_bytes(segmenter, card))


def load_segmenter(path: Path) -> tuple[Segmenter, NetworkCard]:
    """The network of a file that `save_segmenter` wrote, on the CPU in eval mode, channels_last.

    Raises:
        WeightsError: the file is missing, truncated, not from `save_segmenter`, its tensors are
            not those of the network it describes, it is not the file that was written, or this
            machine lacks the package of its encoder. The message names the file.
    """
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, *DAMAGED) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file: {first_line(error)}"
        ) from None
    if METADATA_KEY not in metadata:
        raise WeightsError(f"{path} holds weights, but not of a network of this program")
    try:
        described = json.loads(metadata[METADATA_KEY], object_pairs_hook=distinct)
        card = NetworkCard.from_dict(described)
    except (*_MALFORMED, GenotypeError) as error:
        problem = first_line(error)
        if isinstance(error, ValidationError):
            problem = at_its_key(error.errors()[0])
        raise WeightsError(f"{path}: its description is malformed: {problem}") from None
    try:
        _check_state(state, card, str(path))
    except SettingsError as error:
        raise WeightsError(f"{path}: {error}") from None
    if described.get(DIGEST_KEY) not in (None, state_digest(state)):
        raise WeightsError(
            f"{path} is damaged: its weights are not those that were written (their SHA-256 is "
            "another); restore it from a copy"
        )
    _check_card(path)
    with torch.device("meta"):
        segmenter = card.build()
    segmenter.load_state_dict(state, assign=True)
    segmenter.source = str(path)
    return segmenter.to(memory_format=torch.channels_last).eval(), card


def _check_card(path: Path) -> None:
    """Compare a file of weights with the card beside it, if there is one.

    Raises:
        WeightsError: the card is of another file, lacks the digest, or cannot be read.
    """
    beside = path.with_suffix(".json")
    try:
        card = read_json(beside)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{beside}, the card of {path.name}, cannot be read: {first_line(error)}; restore it "
            "from a copy, or move it away"
        ) from None
    weights = card.get("weights") if isinstance(card, dict) else None
    expected = weights.get("sha256") if isinstance(weights, dict) else None
    if expected is None and (not isinstance(card, dict) or "format" not in card):
        return  # another file of that name, as of a genotype
    if not isinstance(expected, str):
        raise WeightsError(
            f"{beside}, the card of {path.name}, lacks the SHA-256 of the weights "
            "(weights.sha256): restore it from a copy, or move it away"
        )
    if expected != file_digest(path):
        raise WeightsError(
            f"{path} is not the file that its card {beside.name} describes (its SHA-256 is "
            "another): it is damaged or was replaced; restore it from a copy, or move the card away"
        )


def _check_state(state: dict[str, Tensor], card: NetworkCard, source: str) -> None:
    """Raise a WeightsError unless the tensors are those of the network on `card`."""
    with torch.device("meta"):
        expected = card.build().state_dict()
    for names, word in ((expected.keys() - state, "missing"), (state.keys() - expected, "unknown")):
        if names:
            raise WeightsError(f"{source}: {len(names)} tensors are {word}, as {min(names)}")
    for name, wanted in expected.items():
        try:
            check_tensor(name, state[name], wanted)
        except ValueError as error:
            raise WeightsError(f"{source}: {error}") from None
