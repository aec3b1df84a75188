"""Models that are handed on: NAME.safetensors, its card as NAME.json and NAME.md, its drawing.

The weights file alone is enough to predict with. The card says where it comes from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_core.architectures import ARCHITECTURES
from nas_core.config import project_dir
from nas_core.errors import RunError, SettingsError, WeightsError, first_line, shown, some_of
from nas_core.files import expanded, file_digest, read_json, write_bytes, write_json
from nas_core.markdown import table
from nas_core.models.checkpoint import NetworkCard, load_segmenter
from nas_core.models.encoder import IMAGENET_MEAN, IMAGENET_STD

FORMAT = 1
INPUT_SIZE = (360, 480)
"""Height and width of CamVid's images, for a training that does not say those of its own."""
TRAINED = "model.safetensors"
_NAME = r"[a-z0-9][a-z0-9._-]{0,60}"


def models_folder(root: Path) -> Path:
    """Where shipped models lie."""
    return root / "models"


def find_weights(model: str | Path) -> Path:
    """The weights file of a model.

    Args:
        model: the name of a shipped model, the path of a .safetensors file, of a training's
            folder, or of a folder with a single .safetensors file. A name goes first.

    Raises:
        WeightsError: there is no such model, or the folder holds several.
    """
    reference = str(model)
    shipped = _shipped()
    if reference in shipped:
        return shipped[reference]
    path = expanded(reference)
    if path.is_dir():
        if (path / TRAINED).is_file():
            return path / TRAINED
        inside = sorted(path.glob("*.safetensors"))
        if len(inside) == 1:
            return inside[0]
        found = "several .safetensors files" if inside else "no .safetensors file"
        raise WeightsError(f"{path} holds {found}: give the path of one")
    if path.exists():
        return path
    known = f"shipped are {some_of(shipped)}" if shipped else "none is shipped"
    raise WeightsError(
        f"unknown model {shown(reference)}: {known}; or give the path of a .safetensors file or "
        "folder"
    )


def _shipped() -> dict[str, Path]:
    """The weights of the shipped models by name."""
    try:
        folder = models_folder(project_dir())
    except SettingsError:  # installed without the project: paths still work
        return {}
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


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
        RunError: the folder is no finished training, or a file cannot be written.
        WeightsError: its weights cannot be read.
    """
    if not re.fullmatch(_NAME, name):
        raise SettingsError(
            f"{name!r} cannot name a model: use lower-case letters, digits, '.', '_' and '-'"
        )
    if not licence.strip() or not licence.isprintable():
        raise SettingsError(
            f"the licence {shown(licence)} is no line of text: name it in words, in UTF-8"
        )
    weights = training / TRAINED
    record = _read(training / "training.json")
    test_file = training / "test.json"
    test = _read(test_file) if test_file.exists() else {}
    _, network = load_segmenter(weights)
    try:
        card = model_card(name, network, file_digest(weights), licence, record, test)
        text = render(card)
        drawing = _drawing(network, record.get("input_size", INPUT_SIZE))
    except KeyError as error:
        raise RunError(f"{training / 'training.json'} has no {error}: train again") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{training / 'training.json'} or test.json is malformed ({first_line(error)}): "
            "train again"
        ) from None
    try:
        write_json(folder / f"{name}.json", card)
        write_bytes(folder / f"{name}.md", text.encode())
        write_bytes(folder / f"{name}.svg", drawing)
        write_bytes(folder / f"{name}.safetensors", weights.read_bytes())
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}") from None
    return folder / f"{name}.safetensors"


def _drawing(network: NetworkCard, input_size: Sequence[int]) -> bytes:
    from nas_core.analysis.drawing import draw  # brings matplotlib, which a prediction needs not

    height, width = input_size
    if not all(type(side) is int and 32 <= side <= 16384 for side in (height, width)):
        raise ValueError(f"input_size is {shown(input_size)}")
    identity = network.genotype.id
    names = [name for name, known in ARCHITECTURES.items() if known.id == identity]
    return draw(
        network.genotype,
        names[0] if names else identity,
        num_classes=len(network.classes),
        agg_size=network.agg_size,
        sep_repeats=network.sep_repeats,
        input_size=(height, width),
    )


def model_card(
    name: str,
    network: NetworkCard,
    digest: str,
    licence: str,
    training: Mapping[str, Any],
    test: Mapping[str, Any],
) -> dict[str, Any]:
    """The card as plain values for JSON.

    Args:
        digest: SHA-256 of the weights file.
        training: the content of training.json. Recipe, data, data hash and commit are None where
            it lacks them, as older ones do.
        test: the content of test.json; empty if the network was not tested.

    Raises:
        KeyError: `training` lacks any other value.
    """
    described = network.to_dict()
    return {
        "format": FORMAT,
        "name": name,
        "weights": {"file": f"{name}.safetensors", "sha256": digest},
        "architecture": {"name": training["label"], "id": network.genotype.id},
        "genotype": described["genotype"],
        "network": {
            "agg_size": network.agg_size,
            "sep_repeats": network.sep_repeats,
            "num_parameters": training["num_parameters"],
            "macs": training["macs"],
        },
        "classes": list(network.classes),
        "palette": [list(colour) for colour in network.palette],
        "normalisation": normalisation(),
        "data": {
            "name": training.get("data"),
            "sha256": training.get("data_hash"),
            "splits": training["splits"],
            "licence": licence,
        },
        "recipe": _published(training.get("recipe")),
        "seed": training["seed"],
        "epochs": len(training["history"]),
        "device": training["device"],
        "commit": training.get("commit"),
        "val": dict(training["val"]),
        "test": {key: value for key, value in test.items() if key not in ("label", "id")},
    }


def _published(recipe: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A recipe without the folder that the encoder's weights lay in: it is nobody's business."""
    if recipe is None:
        return None
    encoder = recipe.get("encoder", {})
    named = {key: Path(value).name if key == "weights" else value for key, value in encoder.items()}
    return {**recipe, "encoder": named} if encoder else dict(recipe)


def normalisation() -> dict[str, Any]:
    """What becomes of a pixel before the network sees it."""
    return {
        "channels": "RGB",
        "formula": "(pixel / 255 - mean) / std",
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
    }


def render(card: Mapping[str, Any]) -> str:
    """The card in Markdown."""
    network, data = card["network"], card["data"]
    normal = card["normalisation"]
    facts = {
        "architecture": f"{card['architecture']['name']} (id {card['architecture']['id']})",
        "parameters": f"{network['num_parameters']:,}",
        "multiply-accumulates": f"{network['macs'] / 1e9:.2f} G at the size of the data",
        "decoder": f"agg_size {network['agg_size']}, sep_repeats {network['sep_repeats']}",
        "input": f"{normal['channels']}, {normal['formula']}, mean {normal['mean']}, "
        f"std {normal['std']}",
        "trained on": f"{data['name'] or 'not recorded'}, {data['splits']}",
        "hash of the data": data["sha256"] or "not recorded",
        "licence of the data": data["licence"],
        "epochs, seed": f"{card['epochs']}, {card['seed']}",
        "device": card["device"],
        "commit": card["commit"] or "not recorded",
        "weights": f"{card['weights']['file']}, SHA-256 {card['weights']['sha256']}",
    }
    lines = [f"# {card['name']}", "", *table(("", ""), [[k, v] for k, v in facts.items()])]
    scores = [key for key in {**card["val"], **card["test"]} if key != "class_iou"]
    rows = [[key, *(_figure(card[split].get(key)) for split in ("val", "test"))] for key in scores]
    lines += ["", "## Scores", "", *table(("score", "val", "test"), rows)]
    class_iou = card["test"].get("class_iou", {})
    rows = [
        [str(index), label, "#{:02x}{:02x}{:02x}".format(*colour), _figure(class_iou.get(label))]
        for index, (label, colour) in enumerate(zip(card["classes"], card["palette"], strict=True))
    ]
    lines += ["", "## Classes", "", *table(("label", "class", "colour", "test IoU"), rows)]
    picture = f"![the taps, the layers and the head]({card['name']}.svg)"
    lines += ["", "## Architecture", "", picture]
    recipe = json.dumps(card["recipe"], indent=1) if card["recipe"] else "not recorded"
    for title, content in (
        ("Recipe", recipe),
        ("Genotype", json.dumps(card["genotype"])),
    ):
        lines += ["", f"## {title}", "", "```json", content, "```"]
    return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror}): give the folder of a finished training"
        ) from None
    except ValueError as error:
        raise RunError(f"{path}: not a JSON file: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected an object")
    return content
