"""How long ONNX Runtime takes for an image: `python measure.py MODEL --threads N` prints it.

What a search asks for the latency of a network, unless `search.latency.command` names something
else. It needs onnxruntime and numpy alone: copied to a board, it measures there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
)
from onnxruntime.capi.onnxruntime_pybind11_state import (
    NotImplemented as NotImplementedByRuntime,
)

# What ONNX Runtime raises for files that it cannot take; their base is Exception.
NOT_ONNX = (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplementedByRuntime,
)

NUM_WARM_UPS = 3
NUM_RUNS = 15


def session(model: str | bytes, threads: int) -> onnxruntime.InferenceSession:
    """A model, or the file of one, ready to run on `threads` CPU threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def median_milliseconds(path: str, threads: int) -> float:
    """For one image of the size that the model takes alone, after a warm-up.

    Raises:
        ValueError: it takes no image of one size alone. For what is no model, see `NOT_ONNX`.
    """
    runtime = session(path, threads)
    (image,) = runtime.get_inputs()
    if not all(isinstance(side, int) for side in image.shape):
        raise ValueError("it takes images of any size; write it with nas export --size")
    noise = np.random.default_rng(0).standard_normal(image.shape, np.float32)
    seconds = []
    for _ in range(NUM_WARM_UPS + NUM_RUNS):
        started = time.perf_counter()
        runtime.run(None, {image.name: noise})
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[NUM_WARM_UPS:])


def main() -> None:
    parser = argparse.ArgumentParser(description="Median milliseconds of a model for one image.")
    parser.add_argument("model", help="An ONNX file of one input, of a fixed size.")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads.")
    arguments = parser.parse_args()
    if arguments.threads < 1:
        parser.error(f"argument --threads: {arguments.threads}: expected 1 or more")
    try:
        print(median_milliseconds(arguments.model, arguments.threads))
    except (ValueError, *NOT_ONNX) as error:
        sys.exit(f"error: {arguments.model}: {error}")


if __name__ == "__main__":
    main()
