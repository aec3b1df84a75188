"""What a trained network takes for one image, in PyTorch and in the runtimes of its exports."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nas_core.base.errors import SettingsError, WeightsError, first_line
from nas_core.base.files import check_regular
from nas_core.deploy.export import Runtime, input_size, onnx_model
from nas_core.deploy.measure import NOT_ONNX, NUM_RUNS, NUM_WARM_UPS
from nas_core.deploy.memory import peak_megabytes
from nas_core.deploy.runtimes import EXPORTS, WEIGHTS, PyTorchSession, known_of, open_runtime
from nas_core.deploy.turns import by_turns
from nas_core.models.checkpoint import NetworkCard, save_segmenter
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
        peak_mb: see `peak_megabytes`.
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
    peak_mb: float


@dataclass(frozen=True)
class _Backend:
    """What is measured.

    Attributes:
        path: of its file.
        fixed: the height and width that it takes alone, if there is one.
    """

    path: Path
    runtime: Runtime
    fixed: tuple[int, int] | None


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
        WeightsError: a file is none that `nas export` writes, of another network, or of no size
            that is measured.
        DataError: the free memory is too small for a size.
        SettingsError: more threads than the machine has cores, which wait for each other.
    """
    cores = os.cpu_count() or 1
    if threads is not None and threads > cores:
        raise SettingsError(f"{threads} threads: this machine has {cores} CPU cores; give fewer")
    for size in sizes:
        check_memory("an image", size)
    with (
        _threads(threads or torch.get_num_threads()) as number,
        tempfile.TemporaryDirectory(prefix="nas-bench-") as folder,
    ):
        exports = {str(path): _exported(path, sizes, number, card) for path in files}
        backends = {**_own(segmenter, card, Path(folder), number), **exports}
        for size in sizes:
            measured = {k: one for k, one in backends.items() if one.fixed in (None, size)}
            generator = torch.Generator().manual_seed(0)
            inputs = {INPUT: torch.randn(1, 3, *size, generator=generator).numpy()}
            runs = {k: partial(one.runtime.run, [OUTPUT], inputs) for k, one in measured.items()}
            times = by_turns(runs, NUM_RUNS, warm_ups=NUM_WARM_UPS, clock=time.perf_counter)
            baseline = float(np.median(times["pytorch"]))
            yield [
                Latency(
                    backend=backend,
                    width=size[1],
                    height=size[0],
                    threads=number,
                    runs=len(values),
                    median_ms=float(np.median(values)),
                    p10_ms=float(np.percentile(values, 10)),
                    p90_ms=float(np.percentile(values, 90)),
                    speedup=baseline / float(np.median(values)),
                    peak_mb=peak_megabytes(measured[backend].path, size, number),
                )
                for backend, values in times.items()
            ]


def _own(
    segmenter: Segmenter, card: NetworkCard, folder: Path, threads: int
) -> dict[str, _Backend]:
    """What is measured without a file of the user's."""
    weights, onnx = folder / f"network{WEIGHTS}", folder / "network.onnx"
    save_segmenter(weights, segmenter, card)
    onnx.write_bytes(onnx_model(segmenter, card))
    return {
        "pytorch": _Backend(weights, PyTorchSession(segmenter), None),
        "onnxruntime": _Backend(onnx, open_runtime(onnx, threads), None),
    }


def _exported(
    path: Path, sizes: Sequence[tuple[int, int]], threads: int, card: NetworkCard
) -> _Backend:
    """A file ready to run, of this network."""
    try:
        check_regular(path)
        if path.suffix not in EXPORTS:  # weights are those of the model
            raise ValueError("its name ends in another way")
        runtime = open_runtime(path, threads)
        fixed = input_size(runtime)
        for size in sizes if fixed is None else [fixed]:
            _try(runtime, size, len(card.classes))
        is_own = _is_own(known_of(runtime), card)
    except OSError as error:
        where = f" ({error.filename})" if path.suffix == ".xml" and error.filename else ""
        raise WeightsError(f"{path} cannot be read: {error.strerror}{where}") from None
    except (RuntimeError, ValueError, LookupError, *NOT_ONNX) as error:
        *others, last = EXPORTS
        raise WeightsError(
            f"{path} is no file of nas export ({', '.join(others)} or {last}): {_reason(error)}"
        ) from None
    if not is_own:
        raise WeightsError(f"{path} is an export of another network: name that as the model")
    if fixed is not None and fixed not in sizes:
        height, width = fixed
        raise WeightsError(f"{path} takes images of {width}x{height} alone: give that size, too")
    return _Backend(path, runtime, fixed)


def _is_own(known: dict[str, str], card: NetworkCard) -> bool:
    """Whether what a file says of its network holds for this one.

    Raises:
        ValueError: it is malformed.
    """
    own = card.genotype.to_dict()
    genotype = json.loads(known["genotype"]) if "genotype" in known else own
    return bool(genotype == own and known.get("encoder", card.encoder) == card.encoder)


def _reason(error: Exception) -> str:
    """OpenVINO begins with places in its source, each in a line, and ends with what is wrong."""
    text = str(error).strip()
    if text.startswith("Exception from "):
        text = text.rpartition("\n")[2]
    return first_line(text or error)


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
