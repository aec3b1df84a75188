"""The latency of a network in 8-bit integers, for a search that is to find one for them:

    nas search -S search.constraints.max_latency_ms=30 \
        -S 'search.latency.command=python examples/int8_latency.py {model}'

Quantises an ONNX file as `nas export --format openvino-int8` does, but with noise in place of
images, which time does not depend on, and prints the median CPU milliseconds of one thread for one.
Needs nas-seg[openvino].
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from nas_core.base.errors import SettingsError
from nas_core.deploy.export import input_size, session
from nas_core.deploy.openvino_ir import OpenVinoSession, check_packages, quantised
from nas_core.deploy.turns import by_turns
from nas_core.models.onnx_graph import INPUT, OUTPUT

try:
    check_packages(quantised=True, what=Path(__file__).name)
except SettingsError as error:
    sys.exit(f"error: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Median milliseconds in int8 for one image.")
    parser.add_argument("model", type=Path, help="An ONNX file of one input, of a fixed size.")
    parser.add_argument("--runs", type=int, default=15, help="That the time is the median of.")
    given = parser.parse_args()
    model = given.model.read_bytes()
    size = input_size(session(model, 1))
    if size is None:
        parser.error(f"argument model: {given.model}: it takes images of any size")
    noise = np.random.default_rng(0).standard_normal((1, 3, *size), np.float32)
    runtime = OpenVinoSession(quantised(model, [noise]), 1)
    runs = {"int8": lambda: runtime.run([OUTPUT], {INPUT: noise})}
    times = by_turns(runs, given.runs, warm_ups=3, clock=time.process_time)
    print(statistics.median(times["int8"]))


if __name__ == "__main__":
    main()
