"""How long ONNX Runtime takes for an image: `python measure.py MODEL --threads N` prints it.

What a search asks for the latency of a network, unless `search.latency.command` names something
else. It needs onnxruntime and numpy alone: copied to a board, it measures there.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnxruntime

NUM_WARM_UPS = 3
NUM_RUNS = 15


def session(model: str | bytes, threads: int) -> onnxruntime.InferenceSession:
    """A model, or the file of one, ready to run on `threads` CPU threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def median_milliseconds(path: str, threads: int) -> float:
    """For one image of the size that the model takes alone, after a warm-up."""
    runtime = session(path, threads)
    (image,) = runtime.get_inputs()
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
    print(median_milliseconds(arguments.model, arguments.threads))


if __name__ == "__main__":
    main()
