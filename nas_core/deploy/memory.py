"""The memory that a network takes in the runtime of its file."""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import torch

from nas_core.base.errors import DataError
from nas_core.deploy.runtimes import import_runtime, open_runtime
from nas_core.models.onnx_graph import INPUT, OUTPUT

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_megabytes(path: Path, size: tuple[int, int], threads: int) -> float:
    """The most memory that a process takes to load a file and to run one image, in MB.

    A new process, so that nothing else is counted; what it has taken once the packages are
    imported is taken off.

    Args:
        path: see `open_runtime`.
        size: height and width.

    Raises:
        DataError: the process was killed, as Linux does where memory is short.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context) as process:
        try:
            return process.submit(_peak, path, size, threads).result()
        except BrokenProcessPool:
            raise DataError(
                f"{path} at {size[1]}x{size[0]}: its process was killed, which happens where "
                "memory is short; give a smaller size"
            ) from None


def _peak(path: Path, size: tuple[int, int], threads: int) -> float:
    """In a process of its own."""
    torch.set_num_threads(threads)
    import_runtime(path.suffix)
    image = np.zeros((1, 3, *size), np.float32)
    with suppress(OSError):
        _RESET.write_text("5")  # the peak so far is forgotten
    before = psutil.Process().memory_info().rss
    runtime = open_runtime(path, threads)
    runtime.run([OUTPUT], {INPUT: image})
    return max(0, _most_bytes() - before) / 1e6


def _most_bytes() -> int:
    """The most memory that this process has held."""
    if found := re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text() if _STATUS.exists() else ""):
        return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
