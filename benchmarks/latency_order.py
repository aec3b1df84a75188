"""Whether PyTorch and MACs order networks by latency as ONNX Runtime does, which is shipped.

python -m benchmarks.latency_order [--num N] [--size WIDTHxHEIGHT] [--runs N] [--json]

Random networks of 300,000 parameters at most, with random weights, for 11 classes, on one thread.
PyTorch runs eagerly in channels_last, ONNX Runtime the graph of that size. All take turns, and CPU
time is counted, so what else goes on on the machine hits all alike. Every second round counts for a
measurement of its own: how far the order of a runtime agrees with itself shows what noise does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import errors_in_words
from flows.cli.sizes import image_size
from nas_core.analysis.rank_agreement import rank_agreement
from nas_core.base.seeds import seeded
from nas_core.config import ConstraintSettings, NetworkSettings
from nas_core.deploy.measure import session
from nas_core.deploy.turns import by_turns
from nas_core.models.cost import count_parameters, form_of, measure_cost
from nas_core.models.onnx_graph import INPUT, OUTPUT, onnx_graph
from nas_core.models.segmenter import Segmenter
from nas_core.search.random_search import RandomSearch
from nas_core.space.genotype import Genotype

FORM = form_of(NetworkSettings(), 11)
MACS, TORCH, ONNX = "MACs", "PyTorch", "ONNX Runtime"
AGAIN = ", again"
PAIRS = (
    (MACS, ONNX),
    (TORCH, ONNX),
    (MACS, TORCH),
    (ONNX, ONNX + AGAIN),
    (TORCH, TORCH + AGAIN),
)


def networks(num: int) -> list[Genotype]:
    """Random ones within the default limit of parameters, always the same."""
    most = ConstraintSettings().max_parameters or 0

    def refusal(genotype: Genotype) -> str | None:
        return "max_parameters" if count_parameters(genotype, **FORM) > most else None

    return [proposal.genotype for proposal in RandomSearch(0).ask(num, refusal)]


def calls(genotype: Genotype, size: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """What computes an image in each runtime."""
    segmenter = seeded(0, lambda: Segmenter.build(genotype, **FORM)).eval()
    runtime = session(onnx_graph(segmenter, size).SerializeToString(), 1)
    segmenter = segmenter.to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return {
        TORCH: partial(segmenter, image.contiguous(memory_format=torch.channels_last)),
        ONNX: partial(runtime.run, [OUTPUT], {INPUT: image.numpy()}),
    }


def measure(num: int, size: tuple[int, int], runs: int) -> dict[str, list[float]]:
    """A figure of each of `num` networks, by what was measured."""
    torch.set_num_threads(1)
    genotypes = networks(num)
    runners = {
        f"{name} {one.id}": call for one in genotypes for name, call in calls(one, size).items()
    }
    with torch.inference_mode():
        times = by_turns(runners, 2 * runs, warm_ups=2, clock=time.process_time)
    figures: dict[str, list[float]] = {
        MACS: [measure_cost(one, **FORM, input_size=size).macs for one in genotypes]
    }
    for name in (TORCH, ONNX):
        of_each = [times[f"{name} {one.id}"] for one in genotypes]
        for start, what in enumerate((name, name + AGAIN)):
            figures[what] = [float(np.median(values[start::2])) for values in of_each]
    return figures


def orders(figures: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Kendall's tau of `PAIRS` of orders, with a 95 % interval by bootstrap over the networks."""
    rows = []
    for first, second in PAIRS:
        found = rank_agreement([[x] for x in figures[first]], figures[second], seed=0)
        rows.append(
            {
                "orders": [first, second],
                "kendall_tau": found.kendall_tau,
                "interval": found.kendall_tau_interval,
            }
        )
    return rows


@errors_in_words
def main(
    num: Annotated[int, typer.Option(min=3, help="Networks.")] = 30,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "480x360",
    runs: Annotated[int, typer.Option(min=1, help="That a time is the median of.")] = 20,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    figures = measure(num, image_size(size), runs)
    rows = orders(figures)
    if as_json:
        print(json.dumps({"figures": figures, "orders": rows}, indent=2))
        return
    table = Table("order", "and that of", "Kendall's tau", "95 %")
    for row in rows:
        low, high = row["interval"]
        table.add_row(*row["orders"], f"{row['kendall_tau']:.2f}", f"{low:.2f} to {high:.2f}")
    Console().print(table)
    for name, values in figures.items():
        Console().print(f"{name}: {min(values):,.0f} to {max(values):,.0f}")


if __name__ == "__main__":
    typer.run(main)
