import copy
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import torch
from PIL import Image

from nas_core.base.errors import DataError, WeightsError
from nas_core.base.seeds import seeded
from nas_core.config import TileSettings
from nas_core.data.labels import MAX_CLASSES
from nas_core.data.picture_files import find_pictures
from nas_core.data.tiling import windows
from nas_core.data.transforms import normalise
from nas_core.deploy.export import onnx_model
from nas_core.deploy.predict import PredictionScores, Predictor, predict_files
from nas_core.models.checkpoint import NetworkCard, save_segmenter
from nas_core.models.labelling import BYTES_PER_PIXEL, check_memory, predict_labels
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    card = NetworkCard(ARCHITECTURES["arch1"], ("a", "b", "c", "d"), ((0, 0, 0),) * 4, 8, 1)
    return seeded(1, card.build).eval()


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (33, 65), (64, 96)])
def test_labels_have_the_size_of_the_image(segmenter: Segmenter, size: tuple[int, int]) -> None:
    labels = predict_labels(segmenter, _image(*size))
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert labels.max() < 4


def test_labels_are_the_largest_logits(segmenter: Segmenter) -> None:
    image = _image(48, 64)
    with torch.inference_mode():
        logits = segmenter(normalise(image[None]))
    np.testing.assert_array_equal(predict_labels(segmenter, image), logits[0].argmax(0).numpy())


@pytest.mark.parametrize("size", [(64, 64), (40, 64), (64, 7), (1, 1)])
def test_an_image_within_a_tile_is_labelled_as_a_whole(
    segmenter: Segmenter, size: tuple[int, int]
) -> None:
    tile = TileSettings(size=64, overlap=16)
    image = _image(*size)
    np.testing.assert_array_equal(
        predict_labels(segmenter, image, tile), predict_labels(segmenter, image)
    )


@pytest.fixture(scope="module")
def varied(segmenter: Segmenter) -> Segmenter:
    """A network that gives each class to a part of an image."""
    network = copy.deepcopy(segmenter)
    with torch.inference_mode():
        logits = network(normalise(_image(90, 150)[None]))
        bias = network.decoder.classify.bias
        assert bias is not None
        bias.data = bias.data - logits.mean((0, 2, 3))
    return network


@pytest.mark.parametrize("size", [(90, 150), (40, 150)])
def test_a_larger_image_is_blended_from_tiles(varied: Segmenter, size: tuple[int, int]) -> None:
    tile = TileSettings(size=64, overlap=16)
    image = _image(*size)
    summed = torch.zeros(4, *size)
    with torch.inference_mode():
        for rows, columns in windows(size, tile):
            likely = varied(normalise(image[None, rows, columns])).softmax(1)[0]
            for y in range(likely.shape[1]):
                for x in range(likely.shape[2]):
                    down = min(y + 1, likely.shape[1] - y)
                    across = min(x + 1, likely.shape[2] - x)
                    summed[:, rows.start + y, columns.start + x] += likely[:, y, x] * down * across
    labels = predict_labels(varied, image, tile)
    assert labels.shape == size and len(np.unique(labels)) == 4
    # Sums in another order round differently.
    assert (labels == summed.argmax(0).numpy()).mean() > 0.999
    assert (labels != predict_labels(varied, image)).any()


def test_a_network_of_tiles_knows_it_and_gives_whole_images(
    varied: Segmenter, tmp_path: Path
) -> None:
    tile = TileSettings(size=64, overlap=16)
    card = NetworkCard(ARCHITECTURES["arch1"], ("a", "b", "c", "d"), ((0, 0, 0),) * 4, 8, 1, tile)
    save_segmenter(tmp_path / "tiled.safetensors", varied, card)
    predictor = Predictor.load(tmp_path / "tiled.safetensors")
    assert predictor.card == card
    picture = tmp_path / "large.png"
    Image.fromarray(_image(90, 150)).save(picture)
    report = predict_files(predictor, [picture], tmp_path / "out")
    assert report.num_written == 1
    labels = np.array(Image.open(tmp_path / "out/large.png"))
    np.testing.assert_array_equal(labels, predict_labels(varied, _image(90, 150), tile))
    found = onnx_model(varied, card)
    values = {one.key: one.value for one in onnx.load_from_string(found).metadata_props}
    assert json.loads(values["tile"]) == {"size": 64, "overlap": 16}


def test_memory_for_tiles_is_that_of_the_blended_classes() -> None:
    free = psutil.virtual_memory().available
    side = int((free / BYTES_PER_PIXEL) ** 0.5) + 1000
    with pytest.raises(DataError, match="GB of memory"):
        check_memory("large.png", (side, side))
    tile = TileSettings(size=64, overlap=16)
    check_memory("large.png", (side, side), tile, 4)
    with pytest.raises(DataError, match="GB of memory"):
        check_memory("large.png", (side, side), tile, 255)


def test_any_layout_in_memory(segmenter: Segmenter, recwarn: pytest.WarningsRecorder) -> None:
    image = _image(40, 56)
    wanted = predict_labels(segmenter, image)
    mirrored = image[:, ::-1].copy()[:, ::-1]
    read_only = image.copy()
    read_only.flags.writeable = False
    for same in (mirrored, read_only, np.asfortranarray(image)):
        np.testing.assert_array_equal(predict_labels(segmenter, same), wanted)
    assert not recwarn.list


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_image(segmenter: Segmenter, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        predict_labels(segmenter, image)


@pytest.mark.parametrize("image", [None, 3, b"abc", [[[0, 0, 0]]], torch.zeros(8, 8, 3)])
def test_what_is_neither_a_path_nor_an_array(image: Any) -> None:
    predictor = Predictor(seeded(0, CARD.build), CARD)
    with pytest.raises(ValueError, match="expected the path of a picture or a numpy array, found"):
        predictor(image)


def test_an_array_that_memory_has_no_room_for() -> None:
    huge = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (10**6, 10**6, 3))
    with pytest.raises(DataError, match="the picture: 1000000x1000000 pixels need about"):
        Predictor(seeded(0, CARD.build), CARD)(huge)


def test_a_model_whose_name_is_too_long() -> None:
    with pytest.raises(WeightsError, match="x' cannot be read: File name too long"):
        Predictor.load("x" * 5000)


CARD = NetworkCard(
    ARCHITECTURES["arch1"], ("a", "b", "c", "d"), ((9, 0, 0), (0, 9, 0), (0, 0, 9), (9, 9, 9)), 8, 1
)


@pytest.fixture
def predictor(segmenter: Segmenter) -> Predictor:
    return Predictor(segmenter, CARD)


def _save(path: Path, height: int, width: int, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_files_of_any_size(predictor: Predictor, tmp_path: Path) -> None:
    sizes = [(24, 40), (24, 40), (40, 24), (24, 40), (1, 3)]
    pictures = [_save(tmp_path / "in" / f"{i}.png", *size, i) for i, size in enumerate(sizes)]
    done: list[int] = []
    out = tmp_path / "new" / "out"
    report = predict_files(predictor, pictures, out, on_done=done.append)
    assert (report.num_written, report.problems, report.metrics) == (5, [], None)
    assert sum(done) == 5
    for path, size in zip(pictures, sizes, strict=True):
        with Image.open(out / path.name) as labels:
            assert labels.mode == "L"
            np.testing.assert_array_equal(labels, predictor(path))
        with Image.open(out / f"{path.stem}_overlay.png") as picture:
            assert (picture.height, picture.width) == size
    assert len(list(out.iterdir())) == 10


def test_label_ids_take_the_place_of_class_numbers(predictor: Predictor, tmp_path: Path) -> None:
    pictures = [_save(tmp_path / "in" / f"{i}.png", 24, 40, i) for i in range(2)]
    # An overlay of the one would have the name of the other.
    pictures.append(_save(tmp_path / "in" / "0_overlay.png", 24, 40))
    out, ids = tmp_path / "out", (7, 33, 255, 0)
    predict_files(predictor, pictures, out, label_ids=ids)
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "0_overlay.png", "1.png"]
    for path in pictures:
        with Image.open(out / path.name) as labels:
            np.testing.assert_array_equal(labels, np.array(ids)[predictor(path)])


def test_one_bad_file_costs_only_itself(predictor: Predictor, tmp_path: Path) -> None:
    pictures = [_save(tmp_path / "in" / f"{i}.png", 24, 32, i) for i in range(4)]
    pictures[1].write_text("no picture")
    pictures[2].write_bytes(pictures[2].read_bytes()[:-700])  # known by its beginning only
    done: list[int] = []
    report = predict_files(predictor, pictures, tmp_path / "out", on_done=done.append)
    assert report.num_written == 2 and sum(done) == 4
    assert ["1.png" in line or "2.png" in line for line in report.problems] == [True, True]
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["0.png", "0_overlay.png", "3.png", "3_overlay.png"]


def test_metrics_are_those_of_the_labels(predictor: Predictor, tmp_path: Path) -> None:
    pictures = [_save(tmp_path / "in" / f"{i}.png", 24, 32, i) for i in range(3)]
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in pictures[:2]:
        truth = predictor(path)
        truth[:4] = 4  # not labelled
        Image.fromarray(truth).save(masks / path.name)
    report = predict_files(predictor, pictures, tmp_path / "out", masks)
    assert report.metrics is not None and report.metrics.mean_iou == 1
    assert report.metrics.num_images == 2 and set(report.metrics.class_iou.values()) == {1}
    assert PredictionScores.read(tmp_path / "out" / "metrics.json") == report.metrics
    (problem,) = report.problems
    assert "2.png is missing" in problem and report.num_written == 3


def test_masks_are_found_whatever_the_composition_of_their_names(
    predictor: Predictor, tmp_path: Path
) -> None:
    names = {form: unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD")}
    for of_picture, of_mask in (("NFC", "NFD"), ("NFD", "NFC")):
        picture = _save(tmp_path / of_picture / names[of_picture], 24, 32)
        masks = tmp_path / f"masks of {of_picture}"
        masks.mkdir()
        Image.fromarray(predictor(picture)).save(masks / names[of_mask])
        report = predict_files(predictor, [picture], tmp_path / "out", masks)
        assert report.problems == [] and report.metrics is not None
        assert report.metrics.num_images == 1


def test_the_highest_class_number_is_written_and_scored(tmp_path: Path) -> None:
    names = tuple(f"c{number}" for number in range(MAX_CLASSES))
    card = NetworkCard(ARCHITECTURES["arch1"], names, ((0, 0, 0),) * MAX_CLASSES, 8, 1)
    segmenter = seeded(1, card.build).eval()
    segmenter.decoder.classify.bias.data[254] = 1e6
    save_segmenter(tmp_path / "model.safetensors", segmenter, card)
    predictor = Predictor.load(tmp_path / "model.safetensors")
    picture = _save(tmp_path / "in" / "a.png", 24, 32)
    (tmp_path / "masks").mkdir()
    truth = np.full((24, 32), 254, np.uint8)
    truth[:4] = 255  # not labelled
    Image.fromarray(truth).save(tmp_path / "masks" / "a.png")
    report = predict_files(predictor, [picture], tmp_path / "out", tmp_path / "masks")
    assert (np.asarray(Image.open(tmp_path / "out" / "a.png")) == 254).all()
    assert report.metrics is not None and report.metrics.class_iou == {"c254": 1.0}


CODED = """
classes:
- {name: c, label: 0, colour: [9, 9, 0]}
- {name: a, label: 200, colour: [0, 9, 9]}
- {name: b, label: 7, colour: [1, 2, 3]}
- {name: d, label: 8, colour: [3, 2, 1]}
ignore_labels: [255]
ignore_colours: [[255, 0, 255]]
"""
# Of the model's classes a to d and of what is ignored.
CODES = np.array([200, 7, 0, 8, 255], np.uint8)
COLOURS = np.array([[0, 9, 9], [1, 2, 3], [9, 9, 0], [3, 2, 1], [255, 0, 255]], np.uint8)


@pytest.mark.parametrize("kind", ["grey", "palette", "RGB"])
@pytest.mark.parametrize("place", [".", "val", "val/masks"])
def test_masks_are_coded_as_their_dataset_says(
    predictor: Predictor, tmp_path: Path, kind: str, place: str
) -> None:
    picture = _save(tmp_path / "in" / "a.png", 24, 32)
    truth = predictor(picture)
    truth[:4] = 4  # ignored
    mask = Image.fromarray(COLOURS[truth] if kind == "RGB" else CODES[truth])
    if kind == "palette":
        mask = Image.frombytes("P", (32, 24), (4 - truth).tobytes())
        mask.putpalette(COLOURS[::-1].tobytes())
    masks = tmp_path / "data" / "val" / "masks"
    masks.mkdir(parents=True)
    mask.save(masks / "a.png")
    (tmp_path / "data" / place / "dataset.yaml").write_text(CODED)
    report = predict_files(predictor, [picture], tmp_path / "out", masks)
    assert report.problems == [] and report.metrics is not None
    assert report.metrics.mean_iou == 1


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("classes: [a, b, bird]", "class 'bird' is none of the model's"),
        ("classes: [a", "dataset.yaml"),
    ],
)
def test_masks_of_other_data_are_refused_before_any_work(
    predictor: Predictor, tmp_path: Path, description: str, message: str
) -> None:
    picture = _save(tmp_path / "in" / "a.png", 24, 32)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "dataset.yaml").write_text(description)
    with pytest.raises(DataError, match=message):
        predict_files(predictor, [picture], tmp_path / "out", tmp_path / "masks")
    assert not (tmp_path / "out").exists()


def test_what_is_no_file_is_not_left_out(predictor: Predictor, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images" / "gone.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "images" / "pipe.png")
    pictures = find_pictures([tmp_path / "images"])
    report = predict_files(predictor, pictures, tmp_path / "out")
    assert [Path(line.split(":")[0]).name for line in report.problems] == ["gone.png", "pipe.png"]
    os.mkfifo(tmp_path / "masks" / "dataset.yaml")
    with pytest.raises(DataError, match=r"dataset\.yaml cannot be read: not a regular file"):
        predict_files(predictor, pictures, tmp_path / "out", tmp_path / "masks")


def test_masks_without_labels_are_a_problem(predictor: Predictor, tmp_path: Path) -> None:
    picture = _save(tmp_path / "in" / "a.png", 24, 32)
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.new("L", (32, 24), 4).save(masks / "a.png")
    report = predict_files(predictor, [picture], tmp_path / "out", masks)
    assert report.num_written == 1 and "no labelled pixel" in report.problems[0]
    Image.new("L", (24, 32), 0).save(masks / "a.png")
    report = predict_files(predictor, [picture], tmp_path / "out", masks)
    assert "24x32; its image is 32x24" in report.problems[0]
    assert report.problems[1] == f"{masks}: no score: no image has a mask that can be read"


def test_a_name_may_be_as_long_as_names_can_be(predictor: Predictor, tmp_path: Path) -> None:
    stem = "x" * (255 - len("_overlay.png"))
    picture = _save(tmp_path / "in" / f"{stem}.png", 24, 32)
    assert predict_files(predictor, [picture], tmp_path / "out").num_written == 1
    assert (tmp_path / "out" / f"{stem}_overlay.png").exists()


@pytest.mark.parametrize(
    ("names", "out", "message"),
    [
        (["x/a.png", "y/a.jpg"], "out", "would both be written to a.png"),
        (["x/a.png", "x/a_overlay.png"], "out", "would both be written to a_overlay.png"),
        (["x/a.png", "x/a.png"], "out", "would both be written"),
        (["x/a.png"], "x", "would be overwritten"),
        (["x/a.jpg", "x/a_overlay.png"], "x", "overwritten|both"),
        (["x/a.png"], "x/a.png/out", "cannot be written"),
        (["x/a.png"], "x/a.png", "cannot be written"),
        (["x/a.png"], "/proc/out", "cannot be written"),
    ],
)
def test_what_would_lose_a_file_is_refused_before_work(
    predictor: Predictor, tmp_path: Path, names: list[str], out: str, message: str
) -> None:
    pictures = [_save(tmp_path / name, 8, 8) for name in names]
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*") if path.is_file()}
    with pytest.raises(DataError, match=message):
        predict_files(predictor, pictures, tmp_path / out)
    after = {path: path.read_bytes() for path in tmp_path.glob("*/*") if path.is_file()}
    assert after == before


def test_masks_are_never_overwritten(predictor: Predictor, tmp_path: Path) -> None:
    picture = _save(tmp_path / "in" / "a.jpg", 8, 8)
    mask = _save(tmp_path / "masks" / "a.png", 8, 8)
    with pytest.raises(DataError, match="would be overwritten"):
        predict_files(predictor, [picture], mask.parent, mask.parent)
    with pytest.raises(DataError, match="is not a folder"):
        predict_files(predictor, [picture], tmp_path / "out", mask)
    before = mask.read_bytes()
    with pytest.raises(DataError, match=r"masks/a\.png is there and no earlier prediction"):
        predict_files(predictor, [picture], mask.parent)
    assert mask.read_bytes() == before and [*mask.parent.iterdir()] == [mask]
    for _ in range(2):  # what was predicted is
        assert predict_files(predictor, [picture], tmp_path / "out").num_written == 1


def test_a_model_is_loaded_by_path(segmenter: Segmenter, tmp_path: Path) -> None:
    save_segmenter(tmp_path / "model.safetensors", segmenter, CARD)
    image = _save(tmp_path / "a.png", 24, 32)
    predictor = Predictor.load(tmp_path)
    np.testing.assert_array_equal(predictor(image), predictor(np.array(Image.open(image))))


def test_what_does_not_fit_into_memory_is_a_problem(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = _save(tmp_path / "in" / "a.png", 64, 64)
    monkeypatch.setattr("nas_core.models.labelling.BYTES_PER_PIXEL", 10**12)
    report = predict_files(predictor, [picture], tmp_path / "out")
    assert report.num_written == 0 and "64x64 pixels need about 4096000.0 GB" in report.problems[0]
