"""Latency of other people's compact networks beside that of the paper's and the project's own.

python -m benchmarks.other_networks CODE ... [--size WIDTHxHEIGHT] [--rounds N] [--json]

CODE is a checkout of https://github.com/xiaoyufenfei/Efficient-Segmentation-Networks, which has
these networks under the MIT licence, and a second one of https://github.com/XU-GITHUB-curry/FBSNet,
which names no licence. Their weights are random: the time does not depend on them.
All run in ONNX Runtime on one thread, at a fixed size, for 11 classes, and give logits of the
image's size. They take turns, and CPU time is counted, so what else goes on on the machine hits all
alike.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.command import errors_in_words
from flows.cli.sizes import image_size
from nas_core.base.errors import SettingsError, first_line, some_of
from nas_core.deploy.export import onnx_model, session
from nas_core.deploy.turns import by_turns
from nas_core.models.checkpoint import load_segmenter
from nas_core.models.cost import num_parameters
from nas_core.models.onnx_graph import INPUT, OPSET
from nas_core.training.finding import find_weights

# The first is what the others are compared with.
OWN = ("arch0-camvid", "arch1-camvid", "camvid0-camvid")
# ESPNet with the depth of its paper.
OTHERS: Mapping[str, Mapping[str, int]] = {
    "ESPNet": {"p": 2, "q": 8}, "CGNet": {}, "EDANet": {}, "DABNet": {}, "FPENet": {},
    "ENet": {}, "FBSNet": {},
}  # fmt: skip
NUM_CLASSES = 11
_PRINTERS = {"torchsummary": "summary", "IPython": "embed"}


class Unpool(nn.Module):
    """What torch's MaxUnpool2d of 2x2 pixels computes, in operations that ONNX has."""

    def forward(self, features: Tensor, indices: Tensor) -> Tensor:
        number, channels, height, width = features.shape
        empty = features.new_zeros((number, channels, 4 * height * width))
        filled = empty.scatter(2, indices.flatten(2), features.flatten(2))
        return filled.view(number, channels, 2 * height, 2 * width)


def load_other(code: Sequence[Path], name: str) -> nn.Module:
    """A network of one of the checkouts, in eval mode.

    Raises:
        SettingsError: they have no such file, or another one than was expected.
    """
    paths = [folder / "model" / f"{name}.py" for folder in code]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise SettingsError(
            f"model/{name}.py is in none of {some_of(map(str, code))}: give checkouts of the two "
            "repositories that benchmarks/other_networks.py names"
        )
    spec = importlib.util.spec_from_file_location(f"other_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        with _stand_ins():
            spec.loader.exec_module(module)
        network: nn.Module = getattr(module, name)(classes=NUM_CLASSES, **OTHERS[name])
    except (SyntaxError, ImportError, AttributeError, TypeError) as error:
        raise SettingsError(
            f"{path} cannot be used ({first_line(error)}): CODE must be a checkout as the help "
            "describes it"
        ) from None
    for parent in list(network.modules()):
        for key, child in parent.named_children():
            if isinstance(child, nn.MaxUnpool2d):
                setattr(parent, key, Unpool())
    return network.eval()


@contextmanager
def _stand_ins() -> Iterator[None]:
    """For packages by which the others print their layers when run as programs."""
    missing = [one for one in _PRINTERS.items() if one[0] not in sys.modules]
    for package, what in missing:
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__dict__[what] = None
    try:
        yield
    finally:
        for package, _ in missing:
            del sys.modules[package]


def other_onnx(network: nn.Module, size: tuple[int, int]) -> bytes:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about sizes, which are fixed here
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            network, (torch.zeros(1, 3, *size),), path, dynamo=False, opset_version=OPSET,
            input_names=[INPUT],
        )  # fmt: skip
        return path.read_bytes()


def own_onnx(name: str, size: tuple[int, int]) -> tuple[bytes, int]:
    """A shipped model for one size, and its number of parameters."""
    segmenter, card = load_segmenter(find_weights(name))
    return onnx_model(segmenter, card, size), num_parameters(segmenter)


def measure(code: Sequence[Path], size: tuple[int, int], num_rounds: int) -> list[dict[str, Any]]:
    """Of each network its parameters, its CPU time, and that relative to the first one's."""
    others = {name: load_other(code, name) for name in OTHERS}
    models = {name: own_onnx(name, size) for name in OWN}
    for name, network in others.items():
        models[name] = other_onnx(network, size), num_parameters(network)
    sessions = {name: session(model, threads=1) for name, (model, _) in models.items()}
    image = np.random.default_rng(0).standard_normal((1, 3, *size), np.float32)
    for runtime in sessions.values():
        (logits,) = runtime.run(None, {INPUT: image})
        assert logits.shape == (1, NUM_CLASSES, *size)
    runs = {name: partial(one.run, None, {INPUT: image}) for name, one in sessions.items()}
    times = by_turns(runs, num_rounds, warm_ups=1, clock=time.process_time)
    first = np.array(times[OWN[0]])
    return [
        {
            "network": name,
            "parameters": models[name][1],
            "milliseconds": float(np.median(values)),
            "relative": float(np.median(np.array(values) / first)),
        }
        for name, values in times.items()
    ]


@errors_in_words
def main(
    code: Annotated[list[Path], typer.Argument(help="Checkouts of the others' code.")],
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "480x360",
    rounds: Annotated[int, typer.Option(min=1)] = 20,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    rows = measure(code, image_size(size), rounds)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("network", "parameters", "ms", "relative")
    for row in rows:
        table.add_row(
            row["network"], f"{row['parameters']:,}", f"{row['milliseconds']:.1f}",
            f"{row['relative']:.2f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
