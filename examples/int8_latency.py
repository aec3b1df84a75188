"""The latency of a network in 8-bit integers, for a search that is to find one for them:

    nas search -S search.constraints.max_latency_ms=30 \
        -S 'search.latency.command=python examples/int8_latency.py {model}'

Quantises an ONNX file as `nas export --format openvino-int8` does, but with noise in place of
images, which time does not depend on, and prints the median CPU milliseconds of one thread for one.
Needs nas-seg[openvino].
"""

import argparse
import logging
import statistics
import sys
import time
from contextlib import redirect_stdout

# Both tell their makers of each use, unless this package of theirs is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
try:
    import nncf
    import numpy as np
    import openvino
except ModuleNotFoundError as error:
    sys.exit(f"error: the package {error.name} is missing; install nas-seg[openvino]")


def main() -> None:
    parser = argparse.ArgumentParser(description="Median milliseconds in int8 for one image.")
    parser.add_argument("model", help="An ONNX file of one input, of a fixed size.")
    parser.add_argument("--runs", type=int, default=15, help="That the time is the median of.")
    given = parser.parse_args()
    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(sys.stderr):  # for the number alone is printed
        model = openvino.convert_model(given.model)
        noise = np.random.default_rng(0).standard_normal(model.input(0).shape, np.float32)
        kept = nncf.IgnoredScope(patterns=["/?encoder/features.1/.*"], validate=False)
        small = nncf.quantize(model, nncf.Dataset([noise]), subset_size=1, ignored_scope=kept)
    options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.compile_model(small, "CPU", options).create_infer_request()
    milliseconds = []
    for _ in range(3 + given.runs):
        started = time.process_time()
        request.infer([noise])
        milliseconds.append(1000 * (time.process_time() - started))
    print(statistics.median(milliseconds[3:]))


if __name__ == "__main__":
    main()
