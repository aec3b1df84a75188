"""How long a trained network takes for one image, in PyTorch and in the runtimes of its exports."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from os.path import lexists
from pathlib import Path

import numpy as np
import torch

from nas_core.base.errors import SettingsError, WeightsError, first_line
from nas_core.base.files import check_regular
from nas_core.deploy.export import Runtime, input_size, onnx_model, session
from nas_core.deploy.measure import NOT_ONNX, NUM_RUNS, NUM_WARM_UPS
from nas_core.deploy.openvino_ir import OpenVinoSession, check_packages
from nas_core.deploy.turns import by_turns
from nas_core.models.checkpoint import NetworkCard
from nas_core.models.labelling import check_memory
from nas_core.models.onnx_graph import INPUT, OUTPUT
from nas_core.models.segmenter import Segmenter


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image, from the normalised image to logits of its size.

    Attributes:
        backend: pytorch, onnxruntime, or the name of an exported file.
        median_ms, p10_ms, p90_ms: over `runs` runs.
        speedup: PyTorch's median divided by this one's.
    """

    backend: str
    width: int
    height: int
    threads: int
    runs: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    speedup: float


def bench(
    segmenter: Segmenter,
    card: NetworkCard,
    sizes: Sequence[tuple[int, int]],
    threads: int | None = None,
    files: Sequence[Path] = (),
) -> Iterator[list[Latency]]:
    """Measure on the CPU at batch 1, in fp32 and eval mode, after a warm-up; yields size by size.

    The backends take turns, so that other work on the machine slows both.

    Args:
        segmenter: on the CPU.
        sizes: heights and widths in pixels.
        threads: of each backend; as many as torch uses if None.
        files: exports of the network, in whatever they compute in. One that takes a single size is
            left out at the others.

    Raises:
        WeightsError: a file is none that `nas export` writes, or of no size that is measured.
        DataError: the free memory is too small for a size.
        SettingsError: more threads than the machine has cores, which wait for each other.
    """
    cores = os.cpu_count() or 1
    if threads is not None and threads > cores:
        raise SettingsError(f"--threads {threads}: this machine has {cores} CPU cores; give fewer")
    for size in sizes:
        check_memory("--size", size)
    with _threads(threads or torch.get_num_threads()) as number:
        exports = {str(path): _exported(path, sizes, number, len(card.classes)) for path in files}
        runtime = session(onnx_model(segmenter, card), number)
        segmenter = segmenter.to(memory_format=torch.channels_last).eval()
        for height, width in sizes:
            generator = torch.Generator().manual_seed(0)
            image = torch.randn(1, 3, height, width, generator=generator)
            inputs = {INPUT: image.numpy()}
            eager = image.contiguous(memory_format=torch.channels_last)

            def run_torch(eager: torch.Tensor = eager) -> None:
                with torch.inference_mode():
                    segmenter(eager)

            def run_onnx(inputs: dict[str, np.ndarray] = inputs) -> None:
                runtime.run([OUTPUT], inputs)

            runs: dict[str, Callable[[], object]] = {
                "pytorch": run_torch,
                "onnxruntime": run_onnx,
            }
            for name, (exported, fixed) in exports.items():
                if fixed in (None, (height, width)):
                    runs[name] = partial(exported.run, [OUTPUT], inputs)
            times = by_turns(runs, NUM_RUNS, warm_ups=NUM_WARM_UPS, clock=time.perf_counter)
            baseline = float(np.median(times["pytorch"]))
            yield [
                Latency(
                    backend=backend,
                    width=width,
                    height=height,
                    threads=number,
                    runs=len(values),
                    median_ms=float(np.median(values)),
                    p10_ms=float(np.percentile(values, 10)),
                    p90_ms=float(np.percentile(values, 90)),
                    speedup=baseline / float(np.median(values)),
                )
                for backend, values in times.items()
            ]


def _exported(
    path: Path, sizes: Sequence[tuple[int, int]], threads: int, num_classes: int
) -> tuple[Runtime, tuple[int, int] | None]:
    """A file ready to run, and the height and width that it takes alone."""
    try:
        check_regular(path)
        if path.suffix not in (".onnx", ".xml"):  # "pytorch" is what is measured without a file
            raise ValueError("its name ends in another way")
        if path.suffix == ".xml":
            _check_ir(path)
            check_packages(quantised=False)
            runtime: Runtime = OpenVinoSession(str(path), threads)
        else:
            runtime = session(path.read_bytes(), threads)
        fixed = input_size(runtime)
        for size in sizes if fixed is None else [fixed]:
            _try(runtime, size, num_classes)
    except OSError as error:
        where = f" ({error.filename})" if path.suffix == ".xml" and error.filename else ""
        raise WeightsError(f"--file {path} cannot be read: {error.strerror}{where}") from None
    except (RuntimeError, ValueError, LookupError, *NOT_ONNX) as error:
        raise WeightsError(
            f"--file {path} is no file of nas export (.onnx or .xml): {_reason(error)}"
        ) from None
    if fixed is not None and fixed not in sizes:
        height, width = fixed
        raise WeightsError(
            f"--file {path} takes images of {width}x{height} alone: add --size {width}x{height}"
        )
    return runtime, fixed


def _reason(error: Exception) -> str:
    """OpenVINO begins with places in its source, each in a line, and ends with what is wrong."""
    text = str(error).strip()
    if text.startswith("Exception from "):
        text = text.rpartition("\n")[2]
    return first_line(text or error)


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


def _try(runtime: Runtime, size: tuple[int, int], num_classes: int) -> None:
    """Raises ValueError, or what the runtime does, unless it labels as the network does."""
    (logits,) = runtime.run([OUTPUT], {INPUT: np.zeros((1, 3, *size), np.float32)})
    if logits.shape != (1, num_classes, *size):
        raise ValueError(f"its output is {list(logits.shape)}, of {num_classes} classes expected")


@contextmanager
def _threads(number: int) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield number
    finally:
        torch.set_num_threads(before)
