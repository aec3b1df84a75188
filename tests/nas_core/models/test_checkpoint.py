import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nas_core.base.errors import WeightsError
from nas_core.base.files import file_digest, write_json
from nas_core.base.seeds import seeded
from nas_core.models.checkpoint import METADATA_KEY, NetworkCard, load_segmenter, save_segmenter
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES

CARD = NetworkCard(
    ARCHITECTURES["arch0"], ("road", "sky", "tree"), ((128, 64, 128), (0, 0, 255), (0, 99, 0)), 8, 1
)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    network = seeded(0, CARD.build)
    network(torch.randn(2, 3, 64, 64))  # batch norm statistics other than the initial ones
    return network.eval()


@pytest.fixture
def path(segmenter: Segmenter, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_segmenter(path, segmenter, CARD)
    return path


def _rewrite(path: Path, tensors: dict[str, torch.Tensor], description: str | None = None) -> None:
    with safe_open(path, framework="pt") as file:
        old = file.metadata()[METADATA_KEY]
    save_file(tensors, path, {METADATA_KEY: description or old})


def test_a_loaded_network_computes_the_same(segmenter: Segmenter, path: Path) -> None:
    loaded, card = load_segmenter(path)
    assert card == CARD
    assert not loaded.training
    for name, tensor in segmenter.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    images = torch.randn(1, 3, 50, 70)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), segmenter(images))


def test_a_loaded_network_can_be_trained_on(path: Path) -> None:
    loaded, _ = load_segmenter(path)
    loaded.train()(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_loading_draws_no_random_numbers(path: Path) -> None:
    before = torch.random.get_rng_state()
    load_segmenter(path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_channels_last_weights_are_saved(segmenter: Segmenter, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_segmenter(other, seeded(0, CARD.build).to(memory_format=torch.channels_last), CARD)
    assert load_segmenter(other)[1] == CARD


def test_equal_networks_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    save_segmenter(again, *load_segmenter(path))
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_truncated_file_is_named(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"weights\.safetensors is not a readable"):
        load_segmenter(path)


def test_files_that_are_no_safetensors(tmp_path: Path) -> None:
    pickled = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(3)}, pickled)
    for path in (tmp_path / "absent.safetensors", tmp_path, pickled):
        with pytest.raises(WeightsError, match=path.name):
            load_segmenter(path)


def test_foreign_weights(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="not of a network of this program"):
        load_segmenter(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"genotype": {"templates": [], "structure": []}}, "templates has 0 entries"),
        ({"classes": ["a"] * 256, "palette": [[0, 0, 0]] * 256}, "256 classes, expected 1 to 255"),
        ({"classes": ["road", "", "tree"]}, "the name of a class is no text"),
        ({"classes": "abc"}, "classes are no list of texts"),
        ({"classes": ["road", None, "tree"]}, "classes are no list of texts"),
        ({"classes": ["road", "tree", "tree"]}, "two classes have one name"),
        ({"format": True}, "format True"),
        ({"classes": ["road", "\ud800", "tree"]}, "the name of a class is no text"),
        ({"palette": [[0, 0, 0]]}, "1 colours for 3 classes"),
        ({"palette": [[0, 0], [0, 0], [0, 0]]}, "malformed"),
        ({"tile": 5}, "malformed: tile: expected keys and values"),
        ({"tile": {"size": 0, "overlap": 0}}, "malformed: tile.size: expected 32 or more"),
        ({"agg_size": None}, "agg_size: expected a whole number, as 8"),
        ({"agg_size": 0}, "agg_size: expected 1 or more"),
        ({"encoder": 3}, "encoder: expected text"),
        ({"encoder": "nope"}, "network.encoder = 'nope': there are mobilenet_v2"),
        ({"encoder": "timm/hf-hub:a/b"}, "timm has no such model"),
        ({"encoder": "mobilenet_v3_small"}, "missing"),
        ({"normalisation": {"mean": [0, 0, 0]}}, "unknown key 'normalisation'"),
        ({"classes": ["road", "sky"], "palette": [[0, 0, 0]] * 2}, "decoder.classify"),
        ({"agg_size": 9}, r"decoder\.gather.* expected torch.float32 \[9"),
        ({"sep_repeats": 2}, "missing"),
        ({"genotype": ARCHITECTURES["arch1"].to_dict()}, "missing"),
    ],
)
def test_a_description_that_does_not_fit(
    path: Path, change: dict[str, object], message: str
) -> None:
    description = json.dumps({**CARD.to_dict(), **change})
    _rewrite(path, load_file(path), description)
    with pytest.raises(WeightsError, match=message) as error:
        load_segmenter(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("description", ["", "null", "[]", "{", "{}"])
def test_a_description_that_is_none(path: Path, description: str) -> None:
    tensors = load_file(path)
    save_file(tensors, path, {METADATA_KEY: description})
    with pytest.raises(WeightsError, match="description is malformed"):
        load_segmenter(path)


def test_a_description_with_a_key_twice(path: Path) -> None:
    description = json.dumps(CARD.to_dict())[:-1] + ', "agg_size": 8}'
    _rewrite(path, load_file(path), description)
    with pytest.raises(WeightsError, match="key 'agg_size' is given twice"):
        load_segmenter(path)


def test_tensors_that_do_not_fit(path: Path) -> None:
    tensors = load_file(path)
    name = "decoder.classify.bias"
    for changed, message in [
        ({k: v for k, v in tensors.items() if k != name}, f"missing, as {name}"),
        ({**tensors, "extra": torch.zeros(1)}, "1 tensors are unknown, as extra"),
        ({**tensors, name: torch.zeros(4)}, rf"{name} is torch.float32 \[4\]"),
        ({**tensors, name: tensors[name].half()}, f"{name} is torch.float16"),
        ({**tensors, name: torch.full((3,), float("nan"))}, f"{name} has values that are not"),
    ]:
        _rewrite(path, changed)
        with pytest.raises(WeightsError, match=message):
            load_segmenter(path)


def flip_a_weight(path: Path) -> None:
    """The lowest bit of one weight: a change that no check of shapes or ranges sees."""
    content = bytearray(path.read_bytes())
    content[-400] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_is_noticed(path: Path) -> None:
    flip_a_weight(path)
    with pytest.raises(WeightsError, match=r"weights\.safetensors is damaged: .* restore it"):
        load_segmenter(path)


def without_digest(path: Path) -> None:
    _rewrite(path, load_file(path), json.dumps(CARD.to_dict()))


def test_a_model_without_a_digest_is_read(path: Path) -> None:
    without_digest(path)
    assert load_segmenter(path)[1] == CARD


def test_a_card_beside_a_model_is_checked(path: Path) -> None:
    without_digest(path)  # as the models that are shipped
    card = path.with_suffix(".json")
    write_json(card, {"weights": {"file": path.name, "sha256": file_digest(path)}})
    load_segmenter(path)
    flip_a_weight(path)
    with pytest.raises(WeightsError, match=r"not the file that its card weights\.json describes"):
        load_segmenter(path)


@pytest.mark.parametrize("content", ["{}", "[1]", '{"weights": {}}', '{"templates": []}'])
def test_what_is_no_card_is_not_taken_for_one(path: Path, content: str) -> None:
    path.with_suffix(".json").write_text(content)
    load_segmenter(path)


@pytest.mark.parametrize(
    "content", ["", "{", '{"weights": {"sha256": 3}}', '{"format": 1, "weights": {}}']
)
def test_a_damaged_card_is_named(path: Path, content: str) -> None:
    path.with_suffix(".json").write_text(content)
    with pytest.raises(WeightsError, match=r"weights\.json"):
        load_segmenter(path)


def test_saving_with_the_wrong_description_is_refused(segmenter: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(WeightsError):
        save_segmenter(path, segmenter, replace(CARD, sep_repeats=2))
    assert not path.exists()
