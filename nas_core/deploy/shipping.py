"""Models that are handed on: NAME.safetensors, its card as NAME.json and NAME.md, its drawing.

The weights file alone is enough to predict with. The card says where it comes from.
"""

from __future__ import annotations

import json
import re
from os.path import lexists
from pathlib import Path

from pydantic import Field

from nas_core.base.documents import Document
from nas_core.base.errors import RunError, SettingsError, shown
from nas_core.base.files import file_digest, write_bytes
from nas_core.base.markdown import table
from nas_core.config import DEFAULT_ENCODER, TileSettings
from nas_core.models.checkpoint import NetworkCard, load_segmenter
from nas_core.models.cost import num_parameters
from nas_core.models.encoder import IMAGENET_MEAN, IMAGENET_STD
from nas_core.space.architectures import ARCHITECTURES, NAMES
from nas_core.training.finding import TRAINED, trainings_like
from nas_core.training.record import FinalScores, Recipe, Training

FORMAT = 1
_NAME = r"[a-z0-9][a-z0-9._-]{0,60}"
_SUFFIXES = ("json", "md", "svg", "safetensors")
_NO_NAMES = ("imagenet", "none")
_MAX_LICENCE = 1000


class WeightsFile(Document):
    """A file of weights, beside its card."""

    file: str
    sha256: str


class NamedArchitecture(Document):
    name: str
    id: str


class Network(Document):
    """The size of a network; see `Decoder`."""

    agg_size: int
    sep_repeats: int
    encoder: str = DEFAULT_ENCODER
    num_parameters: int
    macs: int


class Normalisation(Document):
    """What becomes of a pixel before the network sees it."""

    channels: str
    formula: str
    mean: list[float]
    std: list[float]


class TrainingData(Document):
    """What a network was trained on; None where that was not recorded."""

    name: str | None
    sha256: str | None
    splits: str
    licence: str


class ShippedScores(Document):
    """Those of `FinalScores`; none if the network was not tested."""

    mean_iou: float | None = None
    frequency_weighted_iou: float | None = None
    mean_accuracy: float | None = None
    reward: float | None = None
    class_iou: dict[str, float] = Field(default_factory=dict)


class ModelCard(Document):
    """The card of a model that is handed on: NAME.json."""

    format: int
    name: str
    weights: WeightsFile
    architecture: NamedArchitecture
    genotype: dict[str, list[list[int]]]
    network: Network
    classes: list[str]
    palette: list[list[int]]
    normalisation: Normalisation
    tile: TileSettings | None = None
    """What the network was trained on; larger images are labelled by such tiles."""
    data: TrainingData
    recipe: Recipe | None
    seed: int
    epochs: int
    device: str
    commit: str | None
    val: dict[str, float]
    test: ShippedScores


def ship(training: Path, name: str, licence: str, folder: Path) -> Path:
    """Copy a finished training's network into `folder`; write its card and drawing beside it.

    The weights come last, so that none is ever there without its card.

    Args:
        training: a folder of artifacts/trainings.
        name: of the model: lower-case letters, digits, `.`, `_` and `-`.
        licence: of the training data, in words.
        folder: where the files go; a model of that name is replaced.

    Returns:
        The path of the weights.

    Raises:
        SettingsError: the name or the licence cannot be used.
        RunError: the folder is no finished training, its files are not of one network, or a file
            cannot be written.
        WeightsError: its weights cannot be read.
    """
    if name in _NO_NAMES:
        raise SettingsError(
            f"{name!r} cannot name a model: in encoder.weights it means something else; choose "
            "another name"
        )
    if (suffix := Path(name).suffix.removeprefix(".")) in _SUFFIXES:
        raise SettingsError(f"{name!r}: the name of a model goes without its .{suffix}")
    if not re.fullmatch(_NAME, name):
        raise SettingsError(
            f"{name!r} cannot name a model: use lower-case letters, digits, '.', '_' and '-'"
        )
    if not licence.strip() or not licence.isprintable():
        raise SettingsError(
            f"the licence {shown(licence)} is no line of text: name it in words, in UTF-8"
        )
    if len(licence) > _MAX_LICENCE:
        raise SettingsError(
            f"the licence has {len(licence):,} characters, {_MAX_LICENCE} at most: give its name "
            "or address, not its text"
        )
    weights = training / TRAINED
    if not (training / "training.json").is_file():
        raise RunError(
            f"{training} is no finished training: {trainings_like(str(training))}give a folder of "
            "artifacts/trainings that has a training.json"
        )
    record = Training.read(training / "training.json")
    test_file = training / "test.json"
    test = FinalScores.read(test_file) if lexists(test_file) else None
    if not all(32 <= side <= 16384 for side in record.input_size):
        raise RunError(
            f"{training / 'training.json'}: input_size is {shown(record.input_size)}: train again"
        )
    segmenter, network = load_segmenter(weights)
    _check_record(training, record, test, network, num_parameters(segmenter))
    _check_targets(folder, name)
    card = model_card(name, network, file_digest(weights), licence, record, test)
    drawing = _drawing(network, record.input_size)
    try:
        card.write(folder / f"{name}.json")
        write_bytes(folder / f"{name}.md", render(card).encode())
        write_bytes(folder / f"{name}.svg", drawing)
        write_bytes(folder / f"{name}.safetensors", weights.read_bytes())
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}") from None
    return folder / f"{name}.safetensors"


def _check_record(
    training: Path,
    record: Training,
    test: FinalScores | None,
    network: NetworkCard,
    num_parameters: int,
) -> None:
    """Raise a RunError if what a training says of its network is not so."""
    path, found = training / "training.json", network.genotype.id
    named = ARCHITECTURES.get(record.label)
    if record.id != found:
        raise RunError(f"{path}: id is {record.id}, and {TRAINED} there is {found}: train again")
    if named is not None and named.id != found:
        raise RunError(f"{path}: label is {record.label}, and {TRAINED} is another: train again")
    if record.num_parameters != num_parameters:
        raise RunError(
            f"{path}: num_parameters is {record.num_parameters}, and {TRAINED} has "
            f"{num_parameters}: train again"
        )
    if not record.history:
        raise RunError(f"{path}: history is empty, without any epoch: train again")
    if test is not None and test.id != found:
        raise RunError(
            f"{training / 'test.json'}: id is {shown(test.id)}, and {TRAINED} is {found}: delete "
            "it to test again"
        )
    if test is not None and (unknown := test.class_iou.keys() - {*network.classes}):
        raise RunError(
            f"{training / 'test.json'}: class_iou has {shown(min(unknown))}, which is no class of "
            f"{TRAINED}: delete it to test again"
        )


def _check_targets(folder: Path, name: str) -> None:
    """Raise a RunError where a file cannot be written, before any is."""
    for suffix in _SUFFIXES:
        path = folder / f"{name}.{suffix}"
        if path.exists() and not path.is_file():
            raise RunError(f"{path} is no file: remove it, or choose another name")


def _drawing(network: NetworkCard, input_size: tuple[int, int]) -> bytes:
    from nas_core.analysis.drawing import draw  # brings matplotlib, which a prediction needs not

    identity = network.genotype.id
    return draw(
        network.genotype,
        NAMES.get(identity, identity),
        **network.form,
        input_size=input_size,
    )


def model_card(
    name: str,
    network: NetworkCard,
    digest: str,
    licence: str,
    training: Training,
    test: FinalScores | None,
) -> ModelCard:
    """The card of a model.

    Args:
        digest: SHA-256 of the weights file.
        test: None if the network was not tested.
    """
    scores = test.model_dump(exclude={"label", "id"}) if test else {}
    return ModelCard(
        format=FORMAT,
        name=name,
        weights=WeightsFile(file=f"{name}.safetensors", sha256=digest),
        architecture=NamedArchitecture(name=training.label, id=network.genotype.id),
        genotype=network.genotype.to_dict(),
        network=Network(
            agg_size=network.agg_size,
            sep_repeats=network.sep_repeats,
            encoder=network.encoder,
            num_parameters=training.num_parameters,
            macs=training.macs,
        ),
        classes=list(network.classes),
        palette=[list(colour) for colour in network.palette],
        normalisation=normalisation(),
        **({"tile": network.tile} if network.tile else {}),
        data=TrainingData(
            name=training.data,
            sha256=training.data_hash,
            splits=training.splits,
            licence=licence,
        ),
        recipe=_published(training.recipe),
        seed=training.seed,
        epochs=len(training.history),
        device=training.device,
        commit=training.commit,
        val=training.val,
        test=ShippedScores(**scores),
    )


def _published(recipe: Recipe | None) -> Recipe | None:
    """A recipe without the folder that the encoder's weights lay in: it is nobody's business."""
    if recipe is None or "weights" not in recipe.encoder:
        return recipe
    weights = Path(str(recipe.encoder["weights"])).name
    return recipe.model_copy(update={"encoder": {**recipe.encoder, "weights": weights}})


def normalisation() -> Normalisation:
    """What becomes of a pixel before the network sees it."""
    return Normalisation(
        channels="RGB",
        formula="(pixel / 255 - mean) / std",
        mean=list(IMAGENET_MEAN),
        std=list(IMAGENET_STD),
    )


def render(card: ModelCard) -> str:
    """The card in Markdown."""
    network, data, normal = card.network, card.data, card.normalisation
    facts = {
        "architecture": f"{card.architecture.name} (id {card.architecture.id})",
        "parameters": f"{network.num_parameters:,}",
        "multiply-accumulates": f"{network.macs / 1e9:.2f} G at the size of the data",
        "decoder": f"agg_size {network.agg_size}, sep_repeats {network.sep_repeats}",
        "input": f"{normal.channels}, {normal.formula}, mean {normal.mean}, std {normal.std}",
        **(
            {"tiles": f"{card.tile.size}x{card.tile.size}, overlap {card.tile.overlap}"}
            if card.tile
            else {}
        ),
        "trained on": f"{data.name or 'not recorded'}, {data.splits}",
        "hash of the data": data.sha256 or "not recorded",
        "licence of the data": data.licence,
        "epochs, seed": f"{card.epochs}, {card.seed}",
        "device": card.device,
        "commit": card.commit or "not recorded",
        "weights": f"{card.weights.file}, SHA-256 {card.weights.sha256}",
    }
    lines = [f"# {card.name}", "", *table(("", ""), [[k, v] for k, v in facts.items()])]
    test = card.test.model_dump(exclude={"class_iou"}, exclude_unset=True)
    rows = [[key, _figure(card.val.get(key)), _figure(test.get(key))] for key in card.val | test]
    lines += ["", "## Scores", "", *table(("score", "val", "test"), rows)]
    class_iou = card.test.class_iou
    rows = [
        [str(index), label, "#{:02x}{:02x}{:02x}".format(*colour), _figure(class_iou.get(label))]
        for index, (label, colour) in enumerate(zip(card.classes, card.palette, strict=True))
    ]
    lines += ["", "## Classes", "", *table(("label", "class", "colour", "test IoU"), rows)]
    lines += ["", "## Architecture", "", f"![the taps, the layers and the head]({card.name}.svg)"]
    recipe = card.recipe.model_dump(exclude_unset=True) if card.recipe else None
    for title, content in (
        ("Recipe", json.dumps(recipe, indent=1) if recipe else "not recorded"),
        ("Genotype", json.dumps(card.genotype)),
    ):
        lines += ["", f"## {title}", "", "```json", content, "```"]
    return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
