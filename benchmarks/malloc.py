"""What it is worth that malloc keeps freed memory while a network is trained fully.

python -m benchmarks.malloc [--architecture NAME] [--steps N] [-p PROFILE] [-S KEY=VALUE ...]
                            [--json]

Takes steps of the profile's full training on random pixels in two processes, with and without
`keep_freed_memory`, by turns.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from functools import cache
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, Overrides, Profile, errors_in_words
from benchmarks.memory import peak_gib
from nas_core.base.project import project_dir
from nas_core.config import Settings
from nas_core.loading import load_settings
from nas_core.models.compute import Compute, keep_freed_memory
from nas_core.models.cost import form_of
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import find_architecture
from nas_core.space.genotype import Genotype
from nas_core.training.losses import segmentation_loss
from nas_core.workers.local import ProcessWorkers

NUM_CLASSES = 11
IGNORED = 255
WARM_UP = 3


class Steps:
    """A network, and a batch that it takes its steps on."""

    def __init__(self, settings: Settings, genotype: Genotype, keep: bool) -> None:
        if keep:
            keep_freed_memory()
        recipe, network = settings.train, settings.network
        self.compute = Compute.from_settings(settings.compute)
        segmenter = Segmenter.build(genotype, **form_of(network, NUM_CLASSES))
        self.segmenter = self.compute.place(segmenter).train()
        shape = (recipe.batch_size, recipe.crop_height, recipe.crop_width)
        images = torch.rand(shape[0], 3, *shape[1:])
        self.images = self.compute.send(images.to(memory_format=torch.channels_last))
        self.masks = self.compute.send(torch.randint(NUM_CLASSES, shape))
        self.weights = torch.ones(NUM_CLASSES, device=self.compute.device)
        for _ in range(WARM_UP):
            self.step()

    def step(self) -> dict[str, float]:
        """Forward and backward pass; seconds and minor page faults."""
        faults, started = _page_faults(), time.perf_counter()
        self.segmenter.zero_grad()
        with self.compute.autocast():
            logits = self.segmenter(self.images)
        segmentation_loss(logits, self.masks, self.weights, IGNORED).backward()
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize()
        return {"seconds": time.perf_counter() - started, "page_faults": _page_faults() - faults}


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


steps_of = cache(Steps)


def _step(settings: Settings, genotype: Genotype, keep: bool) -> dict[str, float]:
    return steps_of(settings, genotype, keep).step() | {"peak_gib": peak_gib()}


def measure(settings: Settings, genotype: Genotype, num_steps: int) -> list[dict[str, Any]]:
    """A row each with and without: medians over the steps, and the peak of memory."""
    limit, threads = settings.runner.time_limit, settings.compute.threads
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with ProcessWorkers(1, limit, threads) as first, ProcessWorkers(1, limit, threads) as second:
        for _ in range(num_steps):
            for keep, worker in ((True, first), (False, second)):
                found[keep].append(worker.call(_step, settings, genotype, keep))
    return [
        {
            "kept": keep,
            "seconds": statistics.median(step["seconds"] for step in steps),
            "page_faults": statistics.median(step["page_faults"] for step in steps),
            "peak_gib": steps[-1]["peak_gib"],
        }
        for keep, steps in found.items()
    ]


@errors_in_words
def main(
    architecture: Annotated[str, typer.Option(help="What is trained.")] = "arch0",
    steps: Annotated[int, typer.Option(min=1, help="Steps of each.")] = 20,
    profile: Profile = "camvid",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Time steps of full training with freed memory kept and without."""
    label, genotype = find_architecture(architecture, {})
    settings = load_settings(profile, overrides or [], root=project_dir())
    rows = measure(settings, genotype, steps)
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("freed memory", "seconds a step", "page faults", "peak, GiB", title=label)
    for row in rows:
        table.add_row(
            "kept" if row["kept"] else "handed back",
            f"{row['seconds']:.3f}",
            f"{row['page_faults']:.0f}",
            f"{row['peak_gib']:.2f}",
        )
    Console().print(table)
    kept, handed_back = (row["seconds"] for row in rows)
    Console().print(f"kept, a step takes {kept / handed_back:.2f} of the time")


if __name__ == "__main__":
    typer.run(main)
