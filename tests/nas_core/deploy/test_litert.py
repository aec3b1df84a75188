"""LiteRT's files, by its own runtime. The converter is there after `make litert`."""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nas_core.base.errors import RunError, SettingsError, WeightsError
from nas_core.base.seeds import seeded
from nas_core.data import camvid
from nas_core.data.transforms import normalise
from nas_core.deploy import litert
from nas_core.deploy.bench import bench
from nas_core.deploy.litert import METADATA_NAME, VARIABLE, export_litert, find_converter
from nas_core.models.checkpoint import NetworkCard
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES

ROOT = Path(__file__).parents[3]
SIZE = (48, 64)
Network = tuple[Segmenter, NetworkCard]


@pytest.fixture(scope="module")
def network() -> Network:
    card = NetworkCard(ARCHITECTURES["arch0"], camvid.CLASSES, camvid.PALETTE, 8, 2)
    segmenter = seeded(1, card.build).eval()
    with torch.no_grad():
        segmenter.decoder.classify.weight *= 100  # logits as large as those of a trained network
    return segmenter, card


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(network: Network, image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get(VARIABLE) or ROOT / litert.ENVIRONMENT)
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: `make litert` installs LiteRT's converter")
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        found = export_litert(*network, path, [image], SIZE)
    assert found.num_images == 1 and found.logits <= 1e-3 and found.labels <= 1e-3
    return path


def test_as_a_user_would_run_it(network: Network, image: np.ndarray, file: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    graph = schema.ModelT.InitFromPackedBuf(file.read_bytes(), 0)
    (known,) = (
        json.loads(graph.buffers[entry.buffer].data.tobytes())
        for entry in graph.metadata
        if entry.name.decode() == METADATA_NAME
    )
    steps = json.loads(known["preprocessing"])
    assert steps["layout"] == "NHWC" and json.loads(known["classes"]) == list(camvid.CLASSES)
    assert known["postprocessing"].endswith("over axis 3")
    inputs = ((image / 255 - steps["mean"]) / steps["std"]).astype(np.float32)[None]
    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], inputs)
    interpreter.invoke()
    logits = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert logits.shape == (1, *SIZE, 11)
    with torch.no_grad():
        expected = network[0](normalise(image[None].copy())).permute(0, 2, 3, 1).numpy()
    assert np.abs(logits - expected).max() <= 1e-3


def test_latencies(network: Network, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas_core.deploy.bench.NUM_RUNS", 2)
    (rows,) = bench(*network, [SIZE], threads=1, files=[file])
    assert [row.backend for row in rows] == ["pytorch", "onnxruntime", str(file)]
    assert all(row.median_ms > 0 for row in rows)
    other = replace(network[1], genotype=ARCHITECTURES["arch1"])
    with pytest.raises(WeightsError, match="is an export of another network"):
        list(bench(network[0], other, [SIZE], threads=1, files=[file]))
    with pytest.raises(WeightsError, match="takes images of 64x48 alone: give that size, too"):
        list(bench(*network, [(96, 96)], threads=1, files=[file]))


def test_damage_is_named(network: Network, file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    for number, bad in enumerate(
        (b"", b"no model", content[:1000], content[: len(content) // 2], b"\0" * 4 + b"TFL3")
    ):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(bad)
        with pytest.raises(WeightsError, match=f"^{re.escape(str(path))} is no file of nas"):
            list(bench(*network, [SIZE], threads=1, files=[path]))


def test_other_weights_are_seen(network: Network, file: Path, tmp_path: Path) -> None:
    other = seeded(2, network[1].build).eval()
    content = file.read_bytes()
    path = tmp_path / "a.tflite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litert, "converted", lambda *_: content)
        patch.setattr(litert, "find_converter", lambda: Path(sys.executable))
        with pytest.raises(RunError, match="is not written: LiteRT differs from PyTorch"):
            export_litert(other, network[1], path, size=SIZE)
    assert not list(tmp_path.iterdir())


def test_a_converter_that_fails_is_shown(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This Python has no litert_torch.
    with pytest.raises(RunError, match=r"ended with 1:\n(.*\n)*.*No module named 'litert_torch'"):
        litert.converted(network[0], SIZE, Path(sys.executable))
    with pytest.raises(RunError, match="cannot be started: No such file"):
        litert.converted(network[0], SIZE, tmp_path / "python")


def test_what_is_missing_is_named(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(SettingsError) as raised:
        export_litert(*network, tmp_path / "a.tflite", size=SIZE)
    message = str(raised.value)
    torch_pin = f"torch=={torch.__version__.partition('+')[0]}"
    assert f"python3 -m venv {tmp_path}/none" in message and torch_pin in message
    # An environment for something else is no place to install into.
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(SettingsError, match=f"{VARIABLE} is {tmp_path}, which holds no litert-"):
        find_converter()
    packages = tmp_path / "lib" / "python3.11" / "site-packages" / "litert_torch"
    packages.mkdir(parents=True)
    assert find_converter() == tmp_path / "bin" / "python"
    with pytest.raises(SettingsError, match="takes images of one size: name it"):
        export_litert(*network, tmp_path / "a.tflite")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(SettingsError, match=r"is missing; install nas-seg\[litert\]"):
        find_converter()
    (tmp_path / "a.tflite").touch()
    with pytest.raises(SettingsError, match=r"a.tflite: .* install nas-seg\[litert\]"):
        list(bench(*network, [SIZE], threads=1, files=[tmp_path / "a.tflite"]))


def test_the_converter_has_the_same_torch() -> None:
    def pin(name: str) -> str:
        (found,) = re.findall(r"^torch==.*$", (ROOT / name).read_text(), re.M)
        return str(found)

    assert pin("deploy/litert-constraints.txt") == pin("constraints.txt")
    message = litert._INSTALL.partition(" ")[0]
    assert message in (ROOT / "deploy" / "litert-constraints.txt").read_text().splitlines()
