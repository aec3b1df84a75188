"""OpenVINO's format: FILE.xml with the graph, and FILE.bin with the weights beside it.

The packages openvino and, for int8, nncf are imported where they are used: not all have them.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_core.base.errors import SettingsError
from nas_core.deploy.export import (
    Deviation,
    Runtime,
    agreed,
    batches,
    metadata,
    onnx_model,
)
from nas_core.deploy.int8 import KEPT_BLOCKS, block_of, write_files
from nas_core.models.checkpoint import NetworkCard
from nas_core.models.segmenter import Segmenter


def check_packages(*, quantised: bool, what: str = "") -> None:
    """Raise a SettingsError for `what` if a package that a format needs is missing."""
    # Both tell their makers of each use, unless this package of theirs is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino  # noqa: F401

        if quantised:
            import nncf  # noqa: F401
    except ModuleNotFoundError as error:
        what = what or f"the format {'openvino-int8' if quantised else 'openvino'}"
        raise SettingsError(
            f"{what}: the package {error.name} is missing; install nas-seg[openvino]"
        ) from None


def export_openvino(
    segmenter: Segmenter,
    card: NetworkCard,
    path: Path,
    images: Sequence[npt.NDArray[np.uint8]] = (),
    size: tuple[int, int] | None = None,
) -> Deviation:
    """Write `path`, and its weights as .bin, in fp32; as `export_onnx`, which see.

    Raises:
        SettingsError: the package openvino is missing.
    """
    check_packages(quantised=False)
    card.check(segmenter)
    pictures = batches(images, size)
    model = converted(onnx_model(segmenter, card, size))
    agreement = agreed(path, "OpenVINO", segmenter, OpenVinoSession(model), pictures)
    write_files(path, serialised(model, card))
    return agreement


class OpenVinoSession:
    """A model, or the path of one, on the CPU in fp32 or its own integers: see `Runtime`."""

    def __init__(self, model: Any, threads: int | None = None) -> None:
        import openvino
        import torch

        # Without the hint it would compute in bf16 where the processor can.
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        core = openvino.Core()
        self.model = core.read_model(model) if isinstance(model, str) else model
        compiled = core.compile_model(self.model, "CPU", options)
        self.request = compiled.create_infer_request()

    def run(
        self, outputs: list[str], inputs: dict[str, npt.NDArray[np.float32]]
    ) -> list[npt.NDArray[np.float32]]:
        found = self.request.infer(inputs)
        return [found[name].copy() for name in outputs]

    def known(self) -> dict[str, str]:
        """See `metadata`; empty where the file has none."""
        if not self.model.has_rt_info(["nas"]):
            return {}
        known = self.model.get_rt_info(["nas"]).astype(dict)
        return {key: str(value.value) for key, value in known.items()}

    def get_inputs(self) -> Sequence[Any]:
        return [
            SimpleNamespace(
                name=entry.get_any_name(),
                shape=[
                    side.get_length() if side.is_static else None for side in entry.partial_shape
                ],
            )
            for entry in self.request.model_inputs
        ]


class QuantisedOpenVino:
    """See `Quantised`; of `model`, an openvino.Model."""

    def __init__(self, model: Any, card: NetworkCard) -> None:
        self.model = model
        self.files: Mapping[str, bytes] = serialised(model, card)

    @property
    def blocks(self) -> Sequence[str]:
        found = dict.fromkeys(
            block_of(node.get_friendly_name()) for node in _quantisers(self.model)
        )
        return [block for block in found if block]

    def session(self, threads: int | None = None) -> Runtime:
        return OpenVinoSession(self.model, threads)

    def restored(self, block: str) -> Runtime:
        model = self.model.clone()
        for node in _quantisers(model):
            if block_of(node.get_friendly_name()) == block:
                for user in node.output(0).get_target_inputs():
                    user.replace_source_output(node.input_value(0))
        return OpenVinoSession(model)


def quantise(
    model: bytes, card: NetworkCard, images: Sequence[npt.NDArray[np.float32]]
) -> QuantisedOpenVino:
    """See `nas_core.deploy.int8.Quantise`: by NNCF, which also corrects the biases.

    Raises:
        SettingsError: a package is missing.
    """
    return QuantisedOpenVino(quantised(model, images), card)


def quantised(model: bytes, images: Sequence[npt.NDArray[np.float32]]) -> Any:
    """An openvino.Model of an ONNX one, with integers where that pays.

    Raises:
        SettingsError: a package is missing.
    """
    check_packages(quantised=True)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        import nncf

        # Not by nncf.set_log_level, which raises the level of all handlers, of other people too.
        logging.getLogger("nncf").setLevel(logging.ERROR)
        kept = [f"/?{re.escape(block)}/.*" for block in KEPT_BLOCKS]
        return nncf.quantize(
            converted(model),
            nncf.Dataset(list(images)),
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(patterns=kept, validate=False),
        )


def converted(model: bytes) -> Any:
    """An openvino.Model of an ONNX one."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        return openvino.convert_model(path)


def serialised(model: Any, card: NetworkCard) -> dict[str, bytes]:
    """The two files, by suffix; what the graph knows of its input and output is its rt_info."""
    import openvino

    for key, value in metadata(card).items():
        model.set_rt_info(value, ["nas", key])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return {file.suffix: file.read_bytes() for file in (path, path.with_suffix(".bin"))}


def _quantisers(model: Any) -> list[Any]:
    """Of activations: those of weights are done with."""
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
