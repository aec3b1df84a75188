"""How long a trained network takes for one image, in PyTorch and in ONNX Runtime."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from nas_core.base.errors import SettingsError
from nas_core.deploy.export import INPUT, OUTPUT, onnx_model, session
from nas_core.models.checkpoint import NetworkCard
from nas_core.models.labelling import check_memory
from nas_core.models.segmenter import Segmenter

NUM_WARM_UPS = 3
NUM_RUNS = 15


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image, from the normalised image to logits of its size.

    Attributes:
        backend: pytorch or onnxruntime.
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
) -> Iterator[list[Latency]]:
    """Measure on the CPU at batch 1, in fp32 and eval mode, after a warm-up; yields size by size.

    The backends take turns, so that other work on the machine slows both.

    Args:
        segmenter: on the CPU.
        sizes: heights and widths in pixels.
        threads: of each backend; as many as torch uses if None.

    Raises:
        DataError: the free memory is too small for a size.
        SettingsError: more threads than the machine has cores, which wait for each other.
    """
    cores = os.cpu_count() or 1
    if threads is not None and threads > cores:
        raise SettingsError(f"--threads {threads}: this machine has {cores} CPU cores; give fewer")
    with _threads(threads or torch.get_num_threads()) as number:
        runtime = session(onnx_model(segmenter, card), number)
        segmenter = segmenter.to(memory_format=torch.channels_last).eval()
        for height, width in sizes:
            check_memory("--size", (height, width))
            generator = torch.Generator().manual_seed(0)
            image = torch.randn(1, 3, height, width, generator=generator)
            inputs = {INPUT: image.numpy()}
            eager = image.contiguous(memory_format=torch.channels_last)

            def run_torch(eager: torch.Tensor = eager) -> None:
                with torch.inference_mode():
                    segmenter(eager)

            def run_onnx(inputs: dict[str, np.ndarray] = inputs) -> None:
                runtime.run([OUTPUT], inputs)

            times = _measure({"pytorch": run_torch, "onnxruntime": run_onnx})
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


def _measure(runs: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {backend: [] for backend in runs}
    for index in range(NUM_WARM_UPS + NUM_RUNS):
        for backend, run in runs.items():
            started = time.perf_counter()
            run()
            if index >= NUM_WARM_UPS:
                times[backend].append(1000 * (time.perf_counter() - started))
    return times


@contextmanager
def _threads(number: int) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield number
    finally:
        torch.set_num_threads(before)
