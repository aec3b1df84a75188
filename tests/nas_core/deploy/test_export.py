import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from nas_core.base.errors import RunError, WeightsError
from nas_core.base.seeds import seeded
from nas_core.data import camvid
from nas_core.deploy import export, openvino_ir
from nas_core.deploy.bench import bench
from nas_core.models.checkpoint import NetworkCard
from nas_core.models.onnx_graph import OPSET
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.genotype import Genotype

# Each layer with a stride halves eight times: most features of an ordinary image are one pixel.
DEEP = Genotype.from_dict(
    {
        "templates": [[0, 4, 0], [3, 2, 1], [5, 1, 1]],
        "structure": [
            [0, 1, 0, 1, 1],
            [2, 1, 0, 1, 1],
            [3, 1, 2, 0, 1],
            [0, 4, 1, 0, 0],
            [3, 2, 2, 0, 0],
            [5, 3, 0, 0, 0],
            [0, 6, 1, 0, 0],
        ],
    }
)


def _network(genotype: Genotype, seed: int = 1) -> tuple[Segmenter, NetworkCard]:
    card = NetworkCard(genotype, camvid.CLASSES, camvid.PALETTE, 8, 2)
    segmenter = seeded(seed, card.build).eval()
    with torch.no_grad():
        segmenter.decoder.classify.weight *= 100  # logits as large as those of a trained network
    return segmenter, card


def _noise(number: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> tuple[Segmenter, NetworkCard]:
    return _network(ARCHITECTURES["arch0"])


@pytest.fixture(scope="module")
def model(network: tuple[Segmenter, NetworkCard]) -> bytes:
    return export.onnx_model(*network)


def test_any_batch_and_size(network: tuple[Segmenter, NetworkCard], model: bytes) -> None:
    sizes = [(1, 1, 1), (3, 33, 65), (2, 96, 64), (1, 360, 480), (1, 7, 300)]
    found = export.compare(network[0], export.session(model, 1), [_noise(*size) for size in sizes])
    assert found.num_images == 8 and found.logits <= 1e-3 and found.labels <= 1e-3


@pytest.mark.parametrize("genotype", [ARCHITECTURES["arch1"], DEEP], ids=["arch1", "deep"])
def test_other_architectures(genotype: Genotype) -> None:
    segmenter, card = _network(genotype)
    sizes = [(1, 32, 48), (2, 97, 131), (1, 32, 6000), (1, 6000, 32)]
    runtime = export.session(export.onnx_model(segmenter, card), 1)
    found = export.compare(segmenter, runtime, [_noise(*size) for size in sizes])
    assert found.logits <= 1e-3 and found.labels <= 1e-3


def test_the_metadata_says_how_to_use_it(
    network: tuple[Segmenter, NetworkCard], model: bytes
) -> None:
    loaded = onnx.load_from_string(model)
    values = {entry.key: entry.value for entry in loaded.metadata_props}
    assert json.loads(values["classes"]) == list(camvid.CLASSES)
    assert json.loads(values["palette"]) == [list(colour) for colour in camvid.PALETTE]
    steps = json.loads(values["preprocessing"])
    assert (steps["channels"], steps["layout"]) == ("RGB", "NCHW")
    image = _noise(1, 40, 56)
    # As a user would do it, with numpy alone.
    inputs = (image.astype(np.float32) / 255 - steps["mean"]) / steps["std"]
    inputs = inputs.transpose(0, 3, 1, 2).astype(np.float32)
    (logits,) = export.session(model, 1).run(None, {"image": inputs})
    found = export.compare(network[0], export.session(model, 1), [image])
    assert logits.shape == (1, 11, 40, 56) and found.labels == 0
    dimensions = loaded.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param for d in dimensions] == ["batch", "", "height", "width"]


def test_the_model_is_left_as_it_was(network: tuple[Segmenter, NetworkCard], model: bytes) -> None:
    names = {type(module).__name__ for module in network[0].modules()}
    assert "DepthwiseConv2d" in names


def test_other_weights_are_seen(model: bytes) -> None:
    other, _ = _network(ARCHITECTURES["arch0"], seed=2)
    found = export.compare(other, export.session(model, 1))
    assert found.logits > 1e-3 and found.labels > 1e-3


def test_a_file_that_differs_is_not_written(
    network: tuple[Segmenter, NetworkCard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.onnx"
    found = export.export_onnx(*network, path, [_noise(1, 40, 56)[0]])
    assert found.num_images == 1 and path.stat().st_size > 1e5
    path.unlink()
    other, _ = _network(ARCHITECTURES["arch0"], seed=2)
    content = export.onnx_model(other, network[1])
    monkeypatch.setattr(export, "onnx_model", lambda *_: content)
    with pytest.raises(RunError, match="is not written: ONNX Runtime differs"):
        export.export_onnx(*network, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((40, 56, 3))])
def test_what_is_no_image_is_refused_before_any_work(
    network: tuple[Segmenter, NetworkCard], tmp_path: Path, image: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        export.export_onnx(*network, tmp_path / "a.onnx", [image])


def test_the_card_of_another_network_is_refused(
    network: tuple[Segmenter, NetworkCard], tmp_path: Path
) -> None:
    other = replace(network[1], genotype=ARCHITECTURES["arch1"])
    for write in (export.export_onnx, openvino_ir.export_openvino):
        with pytest.raises(WeightsError, match="the segmenter is not the network of its card: "):
            write(network[0], other, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_latencies(network: tuple[Segmenter, NetworkCard], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas_core.deploy.bench.NUM_RUNS", 3)
    before = torch.get_num_threads()
    rows = list(bench(*network, [(48, 64), (32, 96)], threads=1))
    assert [(r.backend, r.width, r.height) for size in rows for r in size] == [
        ("pytorch", 64, 48),
        ("onnxruntime", 64, 48),
        ("pytorch", 96, 32),
        ("onnxruntime", 96, 32),
    ]
    for eager, runtime in rows:
        assert eager.speedup == 1 and eager.threads == runtime.threads == 1
        assert runtime.speedup == pytest.approx(eager.median_ms / runtime.median_ms)
        assert 0 < runtime.p10_ms <= runtime.median_ms <= runtime.p90_ms
        assert eager.peak_mb > 0 and runtime.peak_mb > 0
    assert torch.get_num_threads() == before


def _other(
    input_shape: list[int | str], output: str = "logits", kind: int = onnx.TensorProto.FLOAT
) -> bytes:
    """An ONNX model of another make, which hands on what it is given."""
    ends = [
        onnx.helper.make_tensor_value_info(name, kind, input_shape) for name in ("image", output)
    ]
    node = onnx.helper.make_node("Identity", ["image"], [output])
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", OPSET)]
    made: bytes = onnx.helper.make_model(
        graph, opset_imports=opset, ir_version=9
    ).SerializeToString()
    return made


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.onnx", _other([1, 3, "h", "w"]), r"its output is \[1, 3, 32, 64\], of 11 classes"),
        ("a.onnx", _other([1, 3, "h", "w"], "y"), "is no file of nas export"),
        ("a.onnx", _other([1, "h", "w", 3]), "is no file of nas export"),
        ("a.onnx", _other([4, 3, "h", "w"]), "is no file of nas export"),
        ("a.onnx", _other([1, 1, 32, 64]), "is no file of nas export"),
        (
            "a.onnx",
            _other([1, 3, "h", "w"], kind=onnx.TensorProto.FLOAT16),
            "is no file of nas export",
        ),
        ("pytorch", _other([1, 3, "h", "w"]), "its name ends in another way"),
        ("a.xml", b"<net/>", "no graph of OpenVINO begins there"),
        ("a.xml", b'<?xml version="1.0"?><!DOCTYPE l []><net/>', "no graph of OpenVINO begins"),
        ("a.xml", b'<net name="x" version="11"><layers/><edges/></net>', "is no file of nas exp"),
    ],
)
def test_files_that_are_not_of_the_network_are_not_measured(
    network: tuple[Segmenter, NetworkCard],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    content: bytes,
    message: str,
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message) as raised:
        list(bench(*network, [(32, 64)], 1, [tmp_path / name]))
    assert str(tmp_path / name) in str(raised.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize(
    "other", [{"genotype": ARCHITECTURES["arch1"]}, {"encoder": "mobilenet_v3_small"}]
)
def test_an_export_of_another_network_is_not_measured(
    network: tuple[Segmenter, NetworkCard], tmp_path: Path, suffix: str, other: dict[str, Any]
) -> None:
    segmenter, card = network
    path = tmp_path / f"a{suffix}"
    write = export.export_onnx if suffix == ".onnx" else openvino_ir.export_openvino
    write(segmenter, card, path, size=(32, 64))
    list(bench(segmenter, card, [(32, 64)], 1, [path]))
    another = replace(card, **other)
    write(seeded(1, another.build).eval(), another, path, size=(32, 64))
    with pytest.raises(WeightsError, match=f"{path} is an export of another network"):
        list(bench(segmenter, card, [(32, 64)], 1, [path]))
