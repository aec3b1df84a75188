"""`nas describe`: an architecture in words and numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from flows.cli.arguments import Reference, find
from flows.cli.model_commands import check_output
from flows.cli.sizes import size_of_input
from flows.cli.terminal import console
from nas_core.config import DEFAULT_ENCODER, NetworkSettings
from nas_core.data.labels import MAX_CLASSES


def describe(
    genotype: Reference,
    num_classes: Annotated[int, typer.Option(min=2, max=MAX_CLASSES, help="Classes.")] = 11,
    agg_size: Annotated[
        int, typer.Option(min=1, max=1024, help="Channels of the decoder's head.")
    ] = NetworkSettings().agg_size,
    sep_repeats: Annotated[
        int, typer.Option(min=1, max=4, help="Repeats inside a separable convolution.")
    ] = NetworkSettings().sep_repeats,
    encoder: Annotated[str, typer.Option(help="See network.encoder.")] = DEFAULT_ENCODER,
    input_size: Annotated[str, typer.Option(metavar="HxW", help="Size of an image.")] = "360x480",
    drawing: Annotated[
        Path | None,
        typer.Option("--draw", metavar="FILE", help="Draw it too, into a .svg or .png file."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Parameters, multiply-accumulates, output size and a readable description."""
    if drawing:
        check_output("--draw", drawing, (".svg", ".png"))
    from nas_core.models.cost import Form, measure_cost

    name, architecture = find(genotype)
    form = Form(
        num_classes=num_classes, agg_size=agg_size, sep_repeats=sep_repeats, encoder=encoder
    )
    size = size_of_input(input_size)
    cost = measure_cost(architecture, **form, input_size=size)
    if drawing:
        from nas_core.analysis.drawing import draw
        from nas_core.base.files import write_bytes

        file_format: Any = drawing.suffix.removeprefix(".")
        write_bytes(
            drawing, draw(architecture, name, **form, input_size=size, file_format=file_format)
        )
    values = {
        "id": architecture.id,
        "num_parameters": cost.num_parameters,
        "macs": cost.macs,
        "output_size": list(cost.output_size),
    }
    if as_json:
        print(json.dumps(values))
        return
    height, width = cost.output_size
    console.print(Text.assemble((name, "bold"), f" · id {architecture.id}"))
    console.print(f"parameters   {cost.num_parameters:,}")
    console.print(f"MACs         {cost.macs / 1e9:.3f} G for an image of {input_size}")
    console.print(f"output size  {height}x{width}, resized to the image")
    console.print(architecture.describe(), markup=False, highlight=False)
    if drawing:
        console.print(f"written: {drawing}", soft_wrap=True, markup=False, highlight=False)
