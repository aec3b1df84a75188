"""The memory of a network, in real processes."""

import sys
from pathlib import Path

import pytest

from nas_core.base.errors import DataError
from nas_core.base.seeds import seeded
from nas_core.data import camvid
from nas_core.deploy import memory
from nas_core.deploy.export import onnx_model
from nas_core.deploy.memory import peak_megabytes
from nas_core.models.checkpoint import NetworkCard, save_segmenter
from nas_core.space.architectures import ARCHITECTURES

sys.path.append(str(Path(__file__).parents[2] / "standins"))

import standin_calls as calls


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of one network, by what runs them."""
    folder = tmp_path_factory.mktemp("files")
    card = NetworkCard(ARCHITECTURES["arch0"], camvid.CLASSES, camvid.PALETTE, 8, 1)
    segmenter = seeded(1, card.build).eval()
    weights, onnx = folder / "a.safetensors", folder / "a.onnx"
    save_segmenter(weights, segmenter, card)
    onnx.write_bytes(onnx_model(segmenter, card))
    return {"pytorch": weights, "onnxruntime": onnx}


@pytest.mark.parametrize("backend", ["pytorch", "onnxruntime"])
def test_a_larger_image_takes_more(files: dict[str, Path], backend: str) -> None:
    small, large = (peak_megabytes(files[backend], (height, 640), 1) for height in (64, 640))
    # The logits alone are (1, 11, 640, 640) of fp32, 18 MB; and the packages take hundreds.
    assert 0.5 < small < 120 and small + 18 < large < 600


def test_a_process_that_is_killed(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_peak", calls.killed)
    with pytest.raises(DataError, match=r"a\.onnx at 96x64: its process was killed"):
        peak_megabytes(files["onnxruntime"], (64, 96), 1)
