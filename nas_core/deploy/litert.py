"""LiteRT's format: FILE.tflite, for one image of a fixed size, channels last.

The package ai-edge-litert, which runs such files, is imported where it is used: not all have it.
The converter, litert-torch, does not install beside this program's packages. It has an environment
of its own, with the same torch, whose Python is given a program of torch.export.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nas_core.base.errors import RunError, SettingsError, last_lines
from nas_core.base.files import write_bytes
from nas_core.base.project import find_project
from nas_core.deploy.export import Deviation, agreed, batches, metadata
from nas_core.models.checkpoint import NetworkCard
from nas_core.models.depthwise import plain_convolutions
from nas_core.models.onnx_graph import INPUT
from nas_core.models.segmenter import Segmenter

METADATA_NAME = "nas"
ENVIRONMENT = ".litert"
VARIABLE = "NAS_LITERT"
_FILE_IDENTIFIER = b"TFL3"
_INSTALL = "litert-torch==0.10.0 torch=={torch}"
# By its path: it needs no package of this program.
_SCRIPT = Path(__file__).with_name("convert_to_litert.py")


def find_converter() -> Path:
    """The Python of the converter's environment: `NAS_LITERT`, or `ENVIRONMENT` in the project.

    Raises:
        SettingsError: the package ai-edge-litert or the environment is missing, or is another.
    """
    check_runtime("the format litert")
    folder = Path(os.environ.get(VARIABLE) or (find_project() or Path.cwd()) / ENVIRONMENT)
    python = folder / "bin" / "python"
    if not any((folder / "lib").glob("python3.*/site-packages/litert_torch")):
        if os.environ.get(VARIABLE) and folder.exists():  # no place to install into
            raise SettingsError(
                f"the format litert: {VARIABLE} is {folder}, which holds no litert-torch: name the "
                "converter's environment, or unset it to be told how one is made"
            )
        install = _INSTALL.format(torch=torch.__version__.partition("+")[0])
        raise SettingsError(
            f"the format litert: its converter has an environment of its own, {folder}, which is "
            f"missing. Make it, of some 7 GB: python3 -m venv {folder} && {folder}/bin/pip install "
            f"{install} (in a checkout: make litert), or name its folder by {VARIABLE}"
        )
    return python


def check_runtime(what: str) -> None:
    """Raise a SettingsError for `what` if the package that runs such files is missing."""
    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ModuleNotFoundError:
        raise SettingsError(
            f"{what}: the package ai-edge-litert is missing; install nas-seg[litert]"
        ) from None


def export_litert(
    segmenter: Segmenter,
    card: NetworkCard,
    path: Path,
    images: Sequence[npt.NDArray[np.uint8]] = (),
    size: tuple[int, int] | None = None,
) -> Deviation:
    """Write `path` in fp32: a normalised image (1, H, W, 3) to logits (1, H, W, C).

    The file's metadata of the name `METADATA_NAME` is JSON of what `metadata` gives.

    Args: those of `export_onnx`, which see; but a size is needed.

    Raises:
        SettingsError: see `find_converter`, or there is no size.
        RunError: the converter fails, the logits or labels are too far from PyTorch's, or the file
            cannot be written. Then there is no new file.
        WeightsError: the card is of another network, or PyTorch's logits are not finite. Then
            there is none either.
        ValueError: an image has another shape or type, or no pixels.
    """
    python = find_converter()
    if size is None:
        raise SettingsError("a graph of LiteRT takes images of one size: name it")
    card.check(segmenter)
    pictures = batches(images, size)
    model = _with_metadata(converted(segmenter, size, python), card)
    agreement = agreed(path, "LiteRT", segmenter, LiteRtSession(model), pictures)
    write_bytes(path, model)
    return agreement


def converted(segmenter: Segmenter, size: tuple[int, int], python: Path) -> bytes:
    """The content of a .tflite file for images of this height and width.

    Raises:
        RunError: the converter cannot be started, or fails.
    """
    network = _ChannelsLast(plain_convolutions(copy.deepcopy(segmenter))).eval()
    with tempfile.TemporaryDirectory(prefix="nas-litert-") as name, torch.no_grad():
        source, target = Path(name) / "network.pt2", Path(name) / "network.tflite"
        program = torch.export.export(network, (torch.zeros(1, *size, 3),))
        with warnings.catch_warnings():
            # Of weights that share memory, as the convolutions' do with the copies: all are here.
            warnings.filterwarnings("ignore", "No complete tensor found")
            torch.export.save(program, source)
        try:
            done = subprocess.run(
                [str(python), "-P", str(_SCRIPT), str(source), str(target)],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise RunError(f"{python} cannot be started: {error.strerror}") from None
        if done.returncode or not target.is_file():
            said = last_lines(done.stderr.strip() or done.stdout)
            raise RunError(
                "\n".join([f"{python}: the converter ended with {done.returncode}:", *said])
            )
        return target.read_bytes()


class LiteRtSession:
    """A .tflite file's content on the CPU: see `Runtime`, whose layout it takes.

    Raises:
        ValueError, RuntimeError: it is no such file, or of no network of `export_litert`.
    """

    def __init__(self, model: bytes, threads: int | None = None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        # The interpreter ends the process at a file that is none.
        if model[4:8] != _FILE_IDENTIFIER:
            raise ValueError("no graph of LiteRT begins there")
        self.model = model
        self.interpreter = Interpreter(
            model_content=model, num_threads=threads or torch.get_num_threads()
        )
        self.interpreter.allocate_tensors()
        (self._input,) = self.interpreter.get_input_details()
        (self._output,) = self.interpreter.get_output_details()
        shape = [int(side) for side in self._input["shape"]]
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            raise ValueError(f"its input is {shape}, not an image with its channels last")
        self.size = shape[1], shape[2]

    def run(
        self, outputs: list[str], inputs: dict[str, npt.NDArray[np.float32]]
    ) -> list[npt.NDArray[np.float32]]:
        image = inputs[INPUT].transpose(0, 2, 3, 1)
        self.interpreter.set_tensor(self._input["index"], np.ascontiguousarray(image))
        self.interpreter.invoke()
        logits = self.interpreter.get_tensor(self._output["index"])
        return [logits.transpose(0, 3, 1, 2)]

    def get_inputs(self) -> Sequence[Any]:
        return [SimpleNamespace(name=INPUT, shape=[1, 3, *self.size])]

    def known(self) -> dict[str, str]:
        """See `metadata`; empty where the file has none.

        Raises:
            ValueError: it is malformed.
        """
        from ai_edge_litert import schema_py_generated as schema

        graph = schema.Model.GetRootAs(self.model, 0)
        for number in range(graph.MetadataLength()):
            entry = graph.Metadata(number)
            if entry.Name() == METADATA_NAME.encode():
                content = graph.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
                return {key: str(value) for key, value in dict(json.loads(content)).items()}
        return {}


class _ChannelsLast(nn.Module):
    """A network from images (N, H, W, 3) to logits (N, H, W, C)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.permute(0, 3, 1, 2))
        return logits.permute(0, 2, 3, 1)


def _with_metadata(model: bytes, card: NetworkCard) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    known = metadata(card, layout="NHWC")
    graph = schema.ModelT.InitFromPackedBuf(model, 0)
    content = schema.BufferT()
    content.data = np.frombuffer(json.dumps(known).encode(), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = METADATA_NAME, len(graph.buffers)
    graph.buffers.append(content)
    graph.metadata = [*(graph.metadata or []), entry]
    builder = flatbuffers.Builder(len(model) + 2**16)
    builder.Finish(graph.Pack(builder), _FILE_IDENTIFIER)
    return bytes(builder.Output())
