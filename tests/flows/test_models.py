"""Shipping, predicting, exporting and timing from the command line."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from nas_core.base.errors import WeightsError
from nas_core.base.files import file_digest, write_json
from nas_core.base.paths import looks_file
from nas_core.base.seeds import seeded
from nas_core.config import DatasetSettings, SyntheticSettings
from nas_core.data import camvid, cityscapes
from nas_core.data.preparing import prepare
from nas_core.deploy.predict import Predictor
from nas_core.models.checkpoint import NetworkCard, save_segmenter
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training.finding import find_weights
from nas_core.training.looks import count_looks
from tests.command_line import run_nas

Nas = Callable[..., tuple[int, str, str]]
INT8 = ["export", "T", "--out", "a.onnx", "--format", "onnx-int8"]


@pytest.fixture
def nas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nas:
    def run(*arguments: object) -> tuple[int, str, str]:
        code, out, err = run_nas(monkeypatch, capsys, *arguments)
        return (code if isinstance(code, int) else 1 if code else 0), out, err

    return run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a finished, tested training, and two images."""
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    (tmp_path / "params.yaml").write_text("name: small\n")
    training = tmp_path / "artifacts" / "trainings" / "arch1-0123"
    training.mkdir(parents=True)
    card = NetworkCard(ARCHITECTURES["arch1"], camvid.CLASSES, camvid.PALETTE, 8, 1)
    network = seeded(1, card.build)
    save_segmenter(training / "model.safetensors", network, card)
    write_json(
        training / "training.json",
        {
            "label": "arch1",
            "identity": "0123",
            "started": 1.0,
            "id": ARCHITECTURES["arch1"].id,
            "num_parameters": sum(one.numel() for one in network.parameters()),
            "macs": 10**9,
            "seed": 3,
            "splits": "train",
            "data": "small",
            "data_hash": "abcd",
            "commit": "1234abcd",
            "input_size": [256, 320],
            "recipe": {"encoder": {"weights": "/home/ada/a.pt"}, "train": {"epochs": 2}},
            "device": "cpu: x86_64, 1 threads, fp32",
            "finished": 2.0,
            "val": {"mean_iou": 0.5},
            "history": [{"epoch": 1}, {"epoch": 2}],
        },
    )
    scores = {
        "mean_iou": 0.4,
        "frequency_weighted_iou": 0.5,
        "mean_accuracy": 0.6,
        "reward": 0.5,
        "class_iou": {"sky": 0.9, "road": 0.8},
    }
    write_json(
        training / "test.json", {"label": "arch1", "id": ARCHITECTURES["arch1"].id, **scores}
    )
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.effect_noise((40, 24), 60).convert("RGB").save(tmp_path / "images" / f"{name}.jpg")
    return tmp_path


@pytest.fixture
def training(project: Path) -> Path:
    return project / "artifacts" / "trainings" / "arch1-0123"


def test_a_shipped_model_is_known_by_its_name(nas: Nas, project: Path, training: Path) -> None:
    licence = "academic use | only"
    assert nas("ship", training, "arch1-small", "--data-licence", licence)[0] == 0
    models = project / "models"
    assert sorted(p.name for p in models.iterdir()) == [
        f"arch1-small.{suffix}" for suffix in ("json", "md", "safetensors", "svg")
    ]
    card = json.loads((models / "arch1-small.json").read_text())
    assert card["genotype"] == ARCHITECTURES["arch1"].to_dict()
    assert card["classes"] == list(camvid.CLASSES) and card["palette"][0] == [128, 128, 128]
    assert card["network"]["agg_size"] == 8 and card["network"]["sep_repeats"] == 1
    assert card["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert card["data"] == {
        "name": "small",
        "sha256": "abcd",
        "splits": "train",
        "licence": licence,
    }
    assert card["recipe"] == {"encoder": {"weights": "a.pt"}, "train": {"epochs": 2}}
    assert card["commit"] == "1234abcd"
    assert card["val"] == {"mean_iou": 0.5} and card["test"]["class_iou"]["sky"] == 0.9
    assert card["weights"]["sha256"] == file_digest(models / "arch1-small.safetensors")
    text = (models / "arch1-small.md").read_text()
    size = sum(one.numel() for one in Predictor.load(training).segmenter.parameters())
    for part in (f"{size:,}", r"academic use \| only", "| mean_iou | 0.5000 | 0.4000 |", "#808080"):
        assert part in text

    drawing = (models / "arch1-small.svg").read_text()
    assert "](arch1-small.svg)" in text and "arch1 · " in drawing and "320×256" in drawing

    out = project / "out"
    code, shown, _ = nas("predict", "--model", "arch1-small", project / "images", "--out", out)
    assert code == 0 and "2 of 2 images" in shown
    predictor = Predictor.load("arch1-small")
    labels = np.array(Image.open(out / "a.png"))
    np.testing.assert_array_equal(labels, predictor(project / "images" / "a.jpg"))
    with pytest.raises(WeightsError, match="there are arch0-camvid, arch1-camvid, arch1-small, "):
        find_weights("arch2-small")


@pytest.mark.parametrize("name", ["arch1", "artifacts/trainings/arch1-4567"])
def test_a_network_s_name_leads_to_its_trainings(nas: Nas, training: Path, name: str) -> None:
    other = training.with_name("arch1-89ab")
    shutil.copytree(training, other)
    record = json.loads((other / "training.json").read_text())
    write_json(other / "training.json", {**record, "seed": 4})
    (training.with_name("arch1-cdef")).mkdir()  # not finished
    trainings = f"its trainings in {training.parent} are arch1-0123 (seed 3), arch1-89ab (seed 4); "
    exported = nas("export", name, "--out", "a.onnx")
    assert f"unknown model '{name}': {trainings}there are arch0-" in exported[2]
    shipped = nas("ship", name, "mine", "--data-licence", "none")
    assert f"{name} is no finished training: {trainings}give a folder" in shipped[2]


def test_an_older_training_has_gaps_in_its_card(nas: Nas, project: Path, training: Path) -> None:
    record = json.loads((training / "training.json").read_text())
    for key in ("recipe", "commit", "data", "data_hash", "input_size"):
        del record[key]
    write_json(training / "training.json", record)
    (training / "test.json").unlink()
    assert nas("ship", training, "old", "--data-licence", "none")[0] == 0
    card = json.loads((project / "models" / "old.json").read_text())
    assert card["recipe"] is None and card["test"] == {}
    assert "not recorded" in (project / "models" / "old.md").read_text()
    assert "480×360" in (project / "models" / "old.svg").read_text()


@pytest.mark.parametrize("size", [7, [360], [360, "480"], [16, 480], [360, 10**9], None])
def test_a_training_of_no_size_is_not_shipped(
    nas: Nas, project: Path, training: Path, size: object
) -> None:
    record = json.loads((training / "training.json").read_text())
    write_json(training / "training.json", {**record, "input_size": size})
    code, _, err = nas("ship", training, "odd", "--data-licence", "none")
    assert code == 1 and "training.json: input_size" in err
    assert not (project / "models").exists()


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("training.json", {"id": "ffffffffffff"}, "id is ffffffffffff, and model.safetensors"),
        ("training.json", {"label": "arch0"}, "label is arch0, and model.safetensors is another"),
        ("training.json", {"num_parameters": 5}, "num_parameters is 5, and model.safetensors has"),
        ("training.json", {"history": []}, "history is empty"),
        ("test.json", {"id": "ffffffffffff"}, "id is 'ffffffffffff', and model.safetensors"),
    ],
)
def test_files_of_two_trainings_are_not_shipped(
    nas: Nas, project: Path, training: Path, file: str, changes: dict[str, object], message: str
) -> None:
    record = json.loads((training / file).read_text())
    write_json(training / file, {**record, **changes})
    code, _, err = nas("ship", training, "odd", "--data-licence", "none")
    assert code == 1 and f"{file}: {message}" in err
    assert not (project / "models").exists()


def test_a_link_to_no_scores_is_no_network_without_scores(nas: Nas, training: Path) -> None:
    (training / "test.json").unlink()
    (training / "test.json").symlink_to("nowhere")
    code, _, err = nas("ship", training, "odd", "--data-licence", "none")
    assert code == 1 and "test.json cannot be read" in err


def test_a_folder_in_the_place_of_a_file_leaves_no_half_of_a_model(
    nas: Nas, project: Path, training: Path
) -> None:
    (project / "models" / "a.safetensors").mkdir(parents=True)
    code, _, err = nas("ship", training, "a", "--data-licence", "none")
    assert code == 1 and "a.safetensors is no file: remove it" in err
    assert [path.name for path in (project / "models").iterdir()] == ["a.safetensors"]


def test_masks_give_metrics(nas: Nas, project: Path, training: Path) -> None:
    masks = project / "masks"
    masks.mkdir()
    for name in ("a", "b"):
        labels = Predictor.load(training)(project / "images" / f"{name}.jpg")
        Image.fromarray(labels).save(masks / f"{name}.png")
    options = ["--out", project / "out", "--masks", masks]
    code, shown, _ = nas("predict", "--model", training, project / "images", *options)
    assert code == 0 and "mean_iou" in shown and "1.0000" in shown
    assert json.loads((project / "out" / "metrics.json").read_text())["num_images"] == 2
    assert not looks_file(project).exists()


def test_scores_of_test_images_are_a_look_at_test(nas: Nas, project: Path, training: Path) -> None:
    images = SyntheticSettings(num_train=3, num_val=1, num_test=2, height=32, width=40)
    dataset = DatasetSettings(kind="synthetic", path="raw", synthetic=images)
    data = prepare(dataset, project, project / "artifacts" / "prepared" / "small")
    for number, split in enumerate(("val", "test", "test")):
        options = ["--out", project / "out", "--masks", project / "raw" / f"{split}annot"]
        code, shown, _ = nas("predict", "--model", training, project / "raw" / split, *options)
        assert code == 0
        assert (f"of the test split of small: look {number} at it" in shown) == (split == "test")
        found = count_looks(project, ARCHITECTURES["arch1"].id, data.data_hash)
        assert found == number
    # Of the same name, with other pixels.
    Image.new("RGB", (40, 32)).save(project / "images" / "test_0000.png")
    masks = ["--masks", project / "raw" / "testannot"]
    other = project / "images" / "test_0000.png"
    code, shown, _ = nas("predict", "--model", training, other, "--out", project / "out", *masks)
    assert code == 0 and "look" not in shown


def test_a_bad_image_is_reported_at_the_end(nas: Nas, project: Path, training: Path) -> None:
    (project / "images" / "c.jpg").write_text("no picture")
    out = project / "out"
    code, shown, err = nas("predict", "--model", training, project / "images", "--out", out)
    assert code == 1 and "2 of 3 images" in shown and "c.jpg: no image that can" in err
    assert "Traceback" not in err and (out / "b_overlay.png").exists()


def test_export_and_bench(nas: Nas, project: Path, training: Path) -> None:
    path = project / "a.onnx"
    code, shown, _ = nas("export", training, project / "images", "--out", path)
    assert code == 0 and "2 images: logits within" in shown
    onnx.checker.check_model(onnx.load(path))
    options = ["--size", "64x32", "--threads", "1"]
    code, shown, _ = nas("bench", training, *options, "--json")
    eager, runtime = json.loads(shown)
    assert (eager["backend"], runtime["backend"]) == ("pytorch", "onnxruntime")
    assert (eager["width"], eager["height"], eager["threads"]) == (64, 32, 1)
    code, shown, _ = nas("bench", training, *options)
    assert code == 0 and "64x32" in shown and "CPU threads: 1" in shown
    # Of an export that takes one size, where that is measured.
    exported = project / "a.xml"
    assert nas("export", training, "--out", exported, "--format", "openvino", *options[:2])[0] == 0
    files = ["--file", path, "--file", exported]
    code, shown, _ = nas("bench", training, *options, "--size", "64x64", *files, "--json")
    rows = json.loads(shown)
    assert code == 0
    assert [row["backend"] for row in rows if row["height"] == 32][2:] == [str(path), str(exported)]
    assert [row["backend"] for row in rows if row["height"] == 64][2:] == [str(path)]
    (project / "bad.onnx").write_text("no model")
    cut, lonely, piped = (
        Path(shutil.copy(exported, project / f"{name}.xml")) for name in ("cut", "lonely", "piped")
    )
    cut.with_suffix(".bin").write_bytes(bytes(100))
    os.mkfifo(piped.with_suffix(".bin"))
    other = Path(shutil.copy(path, project / "other.xml"))
    for file, message in (
        (exported, "takes images of 64x32 alone: give that size, too"),
        (project / "bad.onnx", "is no file of nas export"),
        (project / "images", "cannot be read"),
        (cut, "Incorrect weights in bin file"),
        (lonely, "bin file cannot be found"),
        (piped, "cannot be read: not a regular file"),
        (other, "no graph of OpenVINO begins there"),
    ):
        code, _, err = nas("bench", training, "--size", "64x64", "--file", file)
        assert code == 1 and message in err.replace("\n", " ") and "Traceback" not in err


def test_export_in_int8_takes_the_images_of_the_project(
    nas: Nas, project: Path, training: Path
) -> None:
    images = SyntheticSettings(num_train=3, num_val=2, num_test=1, height=32, width=64)
    dataset = DatasetSettings(kind="synthetic", path="raw", synthetic=images)
    prepare(dataset, project, project / "artifacts" / "prepared" / "small")
    path = project / "a.onnx"
    options = ["--out", path, "--format", "onnx-int8", "--size", "64x32", "--max-loss", "100"]
    code, shown, err = nas("export", training, *options)
    assert code == 0, err
    for part in (
        f"written: {path}, calibrated with 3 images",
        "2 images: ",
        "points lost",
        "MB, before",
        "times as fast",
    ):
        assert part in shown
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[3].dim_value == 64
    # Of one's own, without true classes.
    folder = project / "images"
    code, shown, _ = nas("export", training, folder, "--calibration", folder, *options)
    assert code == 0 and "calibrated with 2 images" in shown and "mIoU: not known" in shown


def test_export_with_a_fixed_size_for_openvino(nas: Nas, project: Path, training: Path) -> None:
    options = ["--format", "openvino", "--size", "64x32"]
    code, shown, _ = nas("export", training, "--out", project / "a.xml", *options)
    assert code == 0 and "1 synthetic images: logits within" in shown
    assert (project / "a.bin").stat().st_size > 1e5


def test_a_package_that_a_format_needs_is_named(
    nas: Nas, project: Path, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    options = ["--out", project / "a.xml", "--format", "openvino-int8"]
    code, _, err = nas("export", training, *options)
    assert code == 1 and "the package openvino is missing; install nas-seg[openvino]" in err


def test_label_ids_for_the_server_of_cityscapes(nas: Nas, project: Path) -> None:
    card = NetworkCard(ARCHITECTURES["arch0"], cityscapes.CLASSES, cityscapes.PALETTE, 8, 1)
    save_segmenter(project / "city.safetensors", seeded(1, card.build), card)
    name = "berlin_000000_000019_leftImg8bit"
    (project / "images" / "a.jpg").rename(project / "images" / f"{name}.jpg")
    out = project / "out"
    model = project / "city.safetensors"
    assert nas("predict", "--model", model, project / "images", "--out", out, "--label-ids")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["b.png", f"{name}.png"]
    labels = np.array(Image.open(out / f"{name}.png"))
    expected = np.array(cityscapes.LABEL_IDS)[Predictor.load(model)(project / f"images/{name}.jpg")]
    assert labels.shape == (24, 40)
    np.testing.assert_array_equal(labels, expected)


def test_scores_of_a_class_that_the_network_lacks(nas: Nas, training: Path) -> None:
    path = training / "test.json"
    scores = json.loads(path.read_text())
    path.write_text(json.dumps(scores | {"class_iou": {**scores["class_iou"], "lamp": 0.5}}))
    code, _, err = nas("ship", training, "odd", "--data-licence", "none")
    assert code == 1 and "class_iou has 'lamp', which is no class of model.safetensors" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--model", "nothing", "images", "--out", "out"], "unknown model 'nothing'"),
        (["predict", "--model", "images", "images", "--out", "out"], "no .safetensors file"),
        (["predict", "--model", "T", "nowhere", "--out", "out"], "nowhere does not exist"),
        (["predict", "--model", "params.yaml", "images", "--out", "out"], "params.yaml is not a"),
        (["predict", "--model", "weights.pt", "images", "--out", "out"], "weights.pt is not a"),
        (["predict", "--model", "T", "images", "--out", "params.yaml"], "cannot be written"),
        (["predict", "--model", "T", "images", "--out", "o", "--masks", "m"], "m is not a folder"),
        (["predict", "--model", "T", "images", "--out", "o", "--label-ids"], "classes of Citysc"),
        (["export", "T", "--out", "a.pt"], "ends in .onnx"),
        (["export", "T", "--out", "nowhere/a.onnx"], "the folder nowhere does not exist"),
        (["export", "T", "--out", "/proc/a.onnx"], "/proc cannot be written"),
        (["export", "nothing", "--out", "a.onnx"], "unknown model 'nothing'"),
        (["export", "T", "--out", "a.onnx", "--size", "480"], "expected WIDTHxHEIGHT"),
        (["export", "T", "--out", "a.onnx", "--format", "openvino"], "ends in .xml"),
        (["export", "T", "--out", "a.onnx", "--max-loss", "2"], "--max-loss is for int8 alone"),
        (["export", "T", "--out", "a.onnx", "--calibration", "images"], "is for int8 alone"),
        ([*INT8, "--max-loss", "nan"], "expected points from 0 to 100"),
        ([*INT8, "--masks", "images"], "give IMAGES, whose true classes they are"),
        (INT8, "no data set of the network's classes is prepared here; to calibrate"),
        ([*INT8, "--calibration", "nowhere"], "nowhere does not exist"),
        ([*INT8, "--calibration", "artifacts"], "artifacts: no picture in this folder"),
        ([*INT8, "images", "--calibration", "images", "--masks", "m"], "m is not a folder"),
        ([*INT8, "images", "--calibration", "images", "--masks", "images"], "a.png is missing"),
        (["export", "T", "--out", "a.tflite", "--format", "litert"], "give --size"),
        (["export", "T", "--out", "a.onnx", "--format", "litert"], "ends in .tflite"),
        (
            ["export", "T", "--out", "a.tflite", "--format", "litert", "--size", "64x32"],
            "its converter has an environment of its own",
        ),
        (["bench", "T", "--size", "480"], "expected WIDTHxHEIGHT"),
        (["bench", "T", "--size", "16x480"], "expected WIDTHxHEIGHT"),
        (["bench", "nothing"], "unknown model 'nothing'"),
        (["ship", "T", "Bad Name", "--data-licence", "x"], "cannot name a model"),
        (["ship", "T", "mine.safetensors", "--data-licence", "x"], "goes without its .safetensors"),
        (["ship", "T", "imagenet", "--data-licence", "x"], "in encoder.weights it means something"),
        (
            ["ship", "T", "a", "--data-licence", "caf\udce9"],
            r"the licence 'caf\udce9' is no line of text",
        ),
        (["ship", "T", "a", "--data-licence", "x" * 1001], "the licence has 1,001 characters"),
        (["ship", "images", "a", "--data-licence", "x"], "is no finished training"),
    ],
)
def test_bad_input_is_a_message(
    nas: Nas,
    project: Path,
    training: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(project)
    torch.save({}, project / "weights.pt")
    before = sorted(project.rglob("*"))
    code, out, err = nas(*(str(training) if a == "T" else a for a in arguments))
    assert code == 1 and message in err
    assert "Traceback" not in err + out and len(err.strip().splitlines()) <= 2
    assert sorted(project.rglob("*")) == before


def test_a_network_whose_logits_are_not_finite_labels_nothing(nas: Nas, project: Path) -> None:
    model = project / "huge.safetensors"
    card = NetworkCard(ARCHITECTURES["arch1"], camvid.CLASSES, camvid.PALETTE, 8, 1)
    segmenter = seeded(1, card.build)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            parameter.fill_(3e38)  # finite, but no sum of two such is
    save_segmenter(model, segmenter, card)
    out = project / "out"
    for arguments in (
        ["predict", "--model", model, project / "images", "--out", out],
        ["export", model, "--out", project / "huge.onnx"],
    ):
        code, _, err = nas(*arguments)
        assert code == 1 and len(err.strip().splitlines()) <= 2
        assert "huge.safetensors gives logits that are not finite" in err.replace("\n", " ")
    assert not list(out.iterdir()) and not (project / "huge.onnx").exists()


@pytest.mark.parametrize("command", ["ship", "predict", "export", "bench"])
def test_every_command_has_help(nas: Nas, command: str) -> None:
    code, text, _ = nas(command, "--help")
    assert code == 0 and "Usage" in text and command in nas("--help")[1]


def test_real_images(nas: Nas, training: Path, project: Path, camvid_dir: Path) -> None:
    name = min((camvid_dir / "test").glob("*.png"))
    options = ["--out", project / "real", "--masks", camvid_dir / "testannot"]
    code, shown, err = nas("predict", "--model", training, name, *options)
    assert code == 0, err
    assert "road" in shown
    assert nas("export", training, name, "--out", project / "real.onnx")[0] == 0
