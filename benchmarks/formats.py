"""What each format of `nas export` costs and gains, on a part of CamVid's val split.

python -m benchmarks.formats --camvid FOLDER [--model NAME] [--runs N] [--json]

Calibrates with 24 training images, scores the first quarter of val at its own size against the
labels, and measures the CPU time of one thread by turns, relative to ONNX Runtime in fp32 with free
sizes. Of a model that was trained on val only the differences of the scores mean something.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import errors_in_words
from nas_core.base.errors import DataError, SettingsError
from nas_core.data.images import read_image, read_mask
from nas_core.data.picture_files import find_pictures
from nas_core.deploy import int8, litert, onnx_int8, openvino_ir
from nas_core.deploy.calibration import calibration_images
from nas_core.deploy.export import Runtime, network_input, onnx_model, session
from nas_core.models.checkpoint import load_segmenter
from nas_core.models.onnx_graph import INPUT, OUTPUT
from nas_core.training.finding import find_weights

BASE = "ONNX Runtime fp32"
LITERT = "LiteRT fp32, fixed size"


def measure(camvid: Path, model: str, runs: int, part: int = 4) -> list[dict[str, Any]]:
    """A row for each format, with free and with fixed size: points lost, share of labels, speed.

    Args:
        camvid: has train, val and valannot.
        runs: that the time is the median of.
        part: one of so many of val is scored, the first.

    Raises:
        DataError: val has too few images, or one of the files cannot be read.
    """
    torch.set_num_threads(1)
    segmenter, card = load_segmenter(find_weights(model))
    names = find_pictures([camvid / "val"])
    if len(names) < part:
        raise DataError(f"{camvid / 'val'}: {len(names)} images, expected {part} or more")
    names = names[: len(names) // part]
    images = [read_image(path) for path in names]
    num_classes = len(card.classes)
    masks = [read_mask(camvid / "valannot" / path.name, num_classes + 1) for path in names]
    inputs = [network_input(image[None]) for image in images]
    calibrating = [
        network_input(image[None]) for image in calibration_images([camvid / "train"], None, card)
    ]
    openvino_ir.check_packages(quantised=True)
    runtimes: dict[str, Runtime] = {}
    sizes: dict[str, int] = {}
    fixed = images[0].shape[0], images[0].shape[1]
    for suffix, size in (("", None), (", fixed size", fixed)):
        plain = onnx_model(segmenter, card, size)
        made = onnx_int8.quantise(plain, card, calibrating)
        network = openvino_ir.converted(plain)
        made_ir = openvino_ir.quantise(plain, card, calibrating)
        for name, runtime, files in (
            (BASE, session(plain, 1), {".onnx": plain}),
            ("ONNX Runtime int8", made.session(1), made.files),
            (
                "OpenVINO fp32",
                openvino_ir.OpenVinoSession(network, 1),
                openvino_ir.serialised(network, card),
            ),
            ("OpenVINO int8", made_ir.session(1), made_ir.files),
        ):
            runtimes[name + suffix] = runtime
            sizes[name + suffix] = sum(map(len, files.values()))
    try:
        python = litert.find_converter()
    except SettingsError as missing:
        print(f"LiteRT is left out. {missing}", file=sys.stderr)
    else:
        content = litert.converted(segmenter, fixed, python)
        runtimes[LITERT], sizes[LITERT] = litert.LiteRtSession(content, 1), len(content)
    labels = {
        name: [runtime.run([OUTPUT], {INPUT: image})[0][0].argmax(0) for image in inputs]
        for name, runtime in runtimes.items()
    }
    times = int8.cpu_milliseconds(runtimes, inputs[0], runs)
    rows = []
    for name in runtimes:
        checked = int8.check(labels[BASE], labels[name], masks, num_classes)
        rows.append(
            {
                "format": name,
                "points_lost": checked.loss,
                "labels": checked.labels,
                "milliseconds": times[name],
                "speed": times[BASE] / times[name],
                "megabytes": sizes[name] / 1e6,
            }
        )
    return rows


@errors_in_words
def main(
    camvid: Annotated[Path, typer.Option(help="With train, val and valannot.")],
    model: str = "camvid0-camvid",
    runs: Annotated[int, typer.Option(min=1)] = 30,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    rows = measure(camvid, model, runs)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("format", title=model, title_justify="left")
    for heading in ("points lost", "labels, %", "CPU ms", "speed", "MB"):
        table.add_column(heading, justify="right")
    for row in rows:
        values = (row["points_lost"], 100 * row["labels"], row["milliseconds"], row["speed"])
        cells = [f"{value:.2f}" for value in (*values, row["megabytes"])]
        table.add_row(row["format"], *cells)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
