"""ONNX in 8-bit integers, by ONNX Runtime's own quantiser."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from nas_core.deploy.export import Runtime, metadata, session
from nas_core.deploy.int8 import KEPT_BLOCKS, block_of
from nas_core.models.checkpoint import NetworkCard
from nas_core.models.onnx_graph import INPUT


class QuantisedOnnx:
    """See `Quantised`.

    Attributes:
        content: of the file.
        plain: of the file that it was made from, prepared for it.
        ranges: of the activations, as the quantiser keeps them.
    """

    def __init__(self, content: bytes, plain: bytes, ranges: bytes) -> None:
        self.content = content
        self.plain = plain
        self.ranges = ranges

    @property
    def files(self) -> Mapping[str, bytes]:
        return {".onnx": self.content}

    @property
    def blocks(self) -> Sequence[str]:
        nodes = onnx.load_from_string(self.content).graph.node
        found = dict.fromkeys(block_of(node.name) for node in nodes)
        return [block for block in found if block and block not in KEPT_BLOCKS]

    def session(self, threads: int | None = None) -> Runtime:
        runtime: Runtime = session(self.content, threads)
        return runtime

    def restored(self, block: str) -> Runtime:
        with tempfile.TemporaryDirectory() as folder:
            plain, ranges = Path(folder) / "plain.onnx", Path(folder) / "ranges.json"
            plain.write_bytes(self.plain)
            ranges.write_bytes(self.ranges)
            kept = {*KEPT_BLOCKS, block}
            runtime: Runtime = session(_quantised(plain, kept, None, ranges).SerializeToString())
        return runtime


def quantise(
    model: bytes, card: NetworkCard, images: Sequence[npt.NDArray[np.float32]]
) -> QuantisedOnnx:
    """See `Quantise`. Weights take 7 bits: without VNNI a processor's sums of 8-bit ones overflow.

    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    with tempfile.TemporaryDirectory() as folder:
        given, plain, ranges = (Path(folder) / name for name in ("a.onnx", "b.onnx", "c.json"))
        given.write_bytes(model)
        quant_pre_process(given, plain, skip_symbolic_shape=True)
        quantised = _quantised(plain, {*KEPT_BLOCKS}, _Reader(images), ranges)
        onnx.helper.set_model_props(quantised, metadata(card))
        content = quantised.SerializeToString()
        return QuantisedOnnx(content, plain.read_bytes(), ranges.read_bytes())


def _quantised(
    plain: Path, kept: set[str], images: CalibrationDataReader | None, ranges: Path
) -> onnx.ModelProto:
    """A model with some blocks in fp32; `ranges` is read if it is there, else written."""
    nodes = onnx.load(plain).graph.node
    made = plain.with_name("made.onnx")
    quantize_static(
        plain,
        made,
        images,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[
            node.name
            for node in nodes
            if block_of(node.name) in kept or node.op_type == "BatchNormalization"
        ],
        calibration_cache_path=ranges,
    )
    return onnx.load(made)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Sequence[npt.NDArray[np.float32]]) -> None:
        self.images = iter(images)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        image = next(self.images, None)
        return None if image is None else {INPUT: image}
