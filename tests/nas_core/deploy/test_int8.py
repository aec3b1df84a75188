"""Formats for devices, run by their own runtimes: fp32 in OpenVINO, int8 in both."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from nas_core.base.errors import DataError, RunError, SettingsError
from nas_core.data.transforms import normalise
from nas_core.deploy import int8, onnx_int8, openvino_ir
from nas_core.deploy.calibration import checked_pictures
from nas_core.deploy.export import onnx_model, session, synthetic
from nas_core.deploy.int8 import Pictures, Quantise, Quantised, block_of, check, evenly, export_int8
from nas_core.models.checkpoint import NetworkCard, load_segmenter
from nas_core.models.labelling import predict_batch
from nas_core.models.onnx_graph import OUTPUT
from nas_core.models.segmenter import Segmenter
from nas_core.training.finding import find_weights

SIZE = (96, 128)
QUANTISERS: dict[str, Quantise] = {".onnx": onnx_int8.quantise, ".xml": openvino_ir.quantise}


@pytest.fixture(scope="module")
def trained() -> tuple[Segmenter, NetworkCard]:
    return load_segmenter(find_weights("camvid0-camvid"))


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    return synthetic([(6, *SIZE)])[0]


@pytest.fixture(scope="module", params=list(QUANTISERS))
def suffix(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def quantised(suffix: str, trained: tuple[Segmenter, NetworkCard], scenes: np.ndarray) -> Quantised:
    inputs = [normalise(image[None].copy()).contiguous().numpy() for image in scenes[:4]]
    openvino_ir.check_packages(quantised=True)  # imports nncf, whose logger is of its own class
    log, handler = logging.getLogger("nncf"), logging.NullHandler()
    log.addHandler(handler)
    found = QUANTISERS[suffix](onnx_model(*trained, SIZE), trained[1], inputs)
    log.removeHandler(handler)
    assert handler.level == logging.NOTSET, "other people's handlers are left as they are"
    return found


def _own_runtime(path: Path, image: np.ndarray) -> np.ndarray:
    """The logits of a file, as its users run it."""
    inputs = normalise(image[None].copy()).contiguous().numpy()
    if path.suffix == ".onnx":
        return session(path.read_bytes(), 1).run([OUTPUT], {"image": inputs})[0]
    import openvino

    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(path, "CPU", hint)({"image": inputs})[OUTPUT]


def test_int8_agrees_and_is_small(
    trained: tuple[Segmenter, NetworkCard],
    scenes: np.ndarray,
    suffix: str,
    quantised: Quantised,
    tmp_path: Path,
) -> None:
    segmenter, card = trained
    path = tmp_path / f"model{suffix}"
    truth = predict_batch(segmenter, scenes)
    truth[:, :10] = 255  # not labelled
    found = export_int8(
        segmenter,
        card,
        path,
        lambda *_: quantised,
        [*scenes[:4]],
        Pictures([*scenes], [*truth]),
        90.0,
        SIZE,
    )
    assert found.num_images == 6 and 0 < found.labels < 0.15
    assert found.mean_iou is not None and found.mean_iou[0] == 1 and 0.3 < found.mean_iou[1] < 1
    assert found.loss == pytest.approx(100 * (1 - found.mean_iou[1]))
    assert min(found.milliseconds) > 0
    names = {".onnx": ["model.onnx"], ".xml": ["model.bin", "model.xml"]}[suffix]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    assert found.num_bytes[1] == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert (tmp_path / names[0]).stat().st_size < 0.75 * found.num_bytes[0]

    labels = np.stack([_own_runtime(path, image)[0].argmax(0) for image in scenes])
    assert (labels != predict_batch(segmenter, scenes)).mean() == pytest.approx(found.labels)


def test_what_costs_too_much_is_not_written(
    trained: tuple[Segmenter, NetworkCard],
    scenes: np.ndarray,
    suffix: str,
    quantised: Quantised,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = ["encoder/features.2", "encoder/features.3", "decoder/gather"]
    assert {*some} <= {*quantised.blocks}
    monkeypatch.setattr(type(quantised), "blocks", some)
    path = tmp_path / f"model{suffix}"
    path.write_text("as before")
    with pytest.raises(RunError) as raised:
        export_int8(
            *trained, path, lambda *_: quantised, [*scenes[:4]], Pictures([*scenes]), 1e-6, SIZE
        )
    message = str(raised.value)
    assert "of the labels differ on 6 images (1e-06 at most). Most by " in message
    assert "decoder/" in message or "encoder/" in message
    assert [file.read_text() for file in tmp_path.iterdir()] == ["as before"]


def test_a_block_in_fp32_is_closer(
    trained: tuple[Segmenter, NetworkCard],
    scenes: np.ndarray,
    quantised: Quantised,
) -> None:
    inputs = normalise(scenes[:1].copy()).contiguous().numpy()
    expected = trained[0](normalise(scenes[:1].copy())).detach().numpy()

    def distance(runtime: object) -> float:
        return float(np.abs(runtime.run([OUTPUT], {"image": inputs})[0] - expected).mean())

    whole = distance(quantised.session(1))
    assert len(quantised.blocks) > 12
    assert min(distance(quantised.restored(block)) for block in quantised.blocks[1:4]) < whole


def test_openvino_in_fp32(
    trained: tuple[Segmenter, NetworkCard], scenes: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "model.xml"
    found = openvino_ir.export_openvino(*trained, path)
    assert found.num_images == 3 and found.logits <= 1e-3 and found.labels <= 1e-3
    for image in (scenes[0], scenes[1][:70, :33]):  # of any size
        expected = trained[0](normalise(image[None].copy())).detach().numpy()
        assert np.abs(_own_runtime(path, image) - expected).max() <= 1e-3
    import openvino

    known = openvino.Core().read_model(path).get_rt_info()["nas"]
    assert json.loads(known["classes"].value) == list(trained[1].classes)
    assert json.loads(known["preprocessing"].value)["layout"] == "NCHW"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    openvino_ir.check_packages(quantised=False)
    with pytest.raises(SettingsError, match="package nncf is missing; install nas-seg"):
        openvino_ir.check_packages(quantised=True)


def test_nobody_is_told() -> None:
    openvino_ir.check_packages(quantised=True)
    assert sys.modules["openvino_telemetry"] is None


def test_the_file_says_how_to_use_it(quantised: Quantised, suffix: str) -> None:
    if suffix == ".onnx":
        model = onnx.load_from_string(quantised.files[".onnx"])
        assert {"classes", "palette", "preprocessing"} <= {e.key for e in model.metadata_props}
        dimensions = model.graph.input[0].type.tensor_type.shape.dim
        assert [d.dim_value for d in dimensions] == [1, 3, *SIZE]


def test_the_loss_is_in_points() -> None:
    expected, found = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    masks = [np.array([[0, 0, 1, 7]], np.uint8)]
    without = check([expected], [found], [], 2)
    assert (without.labels, without.mean_iou, without.loss) == (0.25, None, 25.0)
    with_masks = check([expected], [found], masks, 2)
    assert with_masks.mean_iou == (1.0, 0.5) and with_masks.loss == 50.0


def test_images_are_taken_evenly() -> None:
    assert [*evenly(3, 24)] == [0, 1, 2]
    assert [*evenly(100, 4)] == [0, 25, 50, 75]


@pytest.mark.parametrize(
    ("node", "block"),
    [
        ("/encoder/features.12/conv/conv.0/Conv", "encoder/features.12"),
        ("/decoder/layers.4/applications.1/op1/op1.0/Conv", "decoder/layers.4/applications.1"),
        ("/decoder/gather/conv/Conv/WithoutBiases/fq_output_0", "decoder/gather"),
        ("/Resize", None),
    ],
)
def test_blocks(node: str, block: str | None) -> None:
    assert block_of(node) == block


def test_no_images_are_refused(trained: tuple[Segmenter, NetworkCard], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        int8.export_int8(*trained, tmp_path / "a.onnx", onnx_int8.quantise, [], Pictures([]), 1.0)


def test_masks_without_a_class_are_named_before_any_work(
    trained: tuple[Segmenter, NetworkCard], tmp_path: Path
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (40, 32)).save(tmp_path / "images" / "a.png")
    Image.new("L", (40, 32), len(trained[1].classes)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match="masks: no pixel of any mask has a class"):
        checked_pictures([tmp_path / "images"], tmp_path / "masks", None, trained[1])
