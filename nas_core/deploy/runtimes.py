"""What runs a network's file, by its suffix."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from os.path import lexists
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnxruntime import InferenceSession

from nas_core.base.files import check_regular
from nas_core.deploy.export import Runtime, session
from nas_core.deploy.litert import LiteRtSession, check_runtime
from nas_core.deploy.openvino_ir import OpenVinoSession, check_packages
from nas_core.models.checkpoint import load_segmenter
from nas_core.models.onnx_graph import INPUT
from nas_core.models.segmenter import Segmenter

EXPORTS = {".onnx": "onnxruntime", ".xml": "openvino", ".tflite": "ai_edge_litert.interpreter"}
"""The module that runs the files of each suffix that `nas export` writes."""
WEIGHTS = ".safetensors"


class PyTorchSession:
    """A network in PyTorch, as fast as it is there: see `Runtime`."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter.to(memory_format=torch.channels_last).eval()

    def run(
        self, outputs: list[str], inputs: dict[str, npt.NDArray[np.float32]]
    ) -> list[npt.NDArray[np.float32]]:
        image = torch.from_numpy(inputs[INPUT]).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return [self.segmenter(image).numpy()]

    def get_inputs(self) -> Sequence[Any]:
        return [SimpleNamespace(name=INPUT, shape=[None, 3, None, None])]


def import_runtime(suffix: str) -> None:
    """Import what runs files of this suffix."""
    if suffix in EXPORTS:
        importlib.import_module(EXPORTS[suffix])


def open_runtime(path: Path, threads: int) -> Runtime:
    """A file of `nas export`, or a network's weights, ready to run on the CPU.

    Raises:
        SettingsError: the package that runs it is missing.
        ValueError, RuntimeError, LookupError, `NOT_ONNX`: it is no such file.
        OSError: it cannot be read.
    """
    if path.suffix == ".xml":
        _check_ir(path)
        check_packages(quantised=False, what=str(path))
        return OpenVinoSession(str(path), threads)
    if path.suffix == ".tflite":
        check_runtime(str(path))
        return LiteRtSession(path.read_bytes(), threads)
    if path.suffix == ".onnx":
        runtime: Runtime = session(path.read_bytes(), threads)
        return runtime
    if path.suffix == WEIGHTS:
        return PyTorchSession(load_segmenter(path)[0])
    raise ValueError("its name ends in another way")


def known_of(runtime: Runtime) -> dict[str, str]:
    """What the file of an export says of its network, see `metadata`; empty if nothing.

    Raises:
        ValueError: it is malformed.
    """
    if isinstance(runtime, OpenVinoSession | LiteRtSession):
        return runtime.known()
    if isinstance(runtime, InferenceSession):
        return dict(runtime.get_modelmeta().custom_metadata_map)
    return {}


def _check_ir(path: Path) -> None:
    """Raises ValueError where it is no OpenVINO IR: other readers of OpenVINO would try it, aloud.

    Raises:
        OSError: it or the file of its weights cannot be read.
    """
    with path.open("rb") as file:
        beginning = file.read(2**10)
    if not re.match(rb"\s*(<\?xml[^>]*\?>)?\s*<net\s[^>]*version=", beginning):
        raise ValueError("no graph of OpenVINO begins there")
    if lexists(weights := path.with_suffix(".bin")):  # of a graph without weights there is none
        check_regular(weights)
