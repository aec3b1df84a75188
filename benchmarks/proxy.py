"""How many candidates an hour the proxy task scores, and the memory that it takes.

python -m benchmarks.proxy [-p PROFILE] [-S KEY=VALUE ...] [--sampled N] [--json]

Trains both architectures of the paper and a few sampled ones as a search would, without early
stopping, on the dataset of the settings.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from nas_core.architectures import ARCHITECTURES
from nas_core.compute import Compute
from nas_core.config import load_settings, project_dir
from nas_core.data.prepared import prepare
from nas_core.errors import NasError
from nas_core.models.encoder import load_encoder_weights
from nas_core.paths import prepared_folder
from nas_core.space import sample
from nas_core.training.proxy import build_proxy_task, train_candidate


def measure(profile: str, overrides: list[str], num_sampled: int) -> dict[str, object]:
    """Time a search's set-up and each candidate."""
    root = project_dir()
    settings = load_settings(profile, overrides, root=root)
    data = prepare(settings.dataset, root, prepared_folder(root, settings))
    started = time.perf_counter()
    task = build_proxy_task(
        data,
        load_encoder_weights(settings.encoder.weights, root),
        settings.search.proxy,
        Compute.from_settings(settings.compute),
        meta_val_fraction=settings.search.meta_val_fraction,
        seed=settings.seed,
    )
    set_up = time.perf_counter() - started
    rng = np.random.default_rng(settings.seed)
    sampled = [sample(rng) for _ in range(num_sampled)]
    architectures = ARCHITECTURES | {genotype.id: genotype for genotype in sampled}
    candidates = []
    for name, genotype in architectures.items():
        started = time.perf_counter()
        result = train_candidate(task, genotype, seed=settings.seed)
        seconds = time.perf_counter() - started
        candidates.append({"name": name, "seconds": seconds, "reward": result.scores[-1]})
    mean = float(np.mean([candidate["seconds"] for candidate in candidates]))
    return {
        "device": task.compute.describe(),
        "set_up_seconds": set_up,
        "candidates": candidates,
        "candidates_per_hour": 3600 / mean,
        # Linux counts it in KiB.
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main(
    profile: Annotated[str, typer.Option("--profile", "-p")] = "camvid",
    overrides: Annotated[list[str] | None, typer.Option("--set", "-S")] = None,
    sampled: Annotated[int, typer.Option(min=0, help="Random architectures beside the two.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time the proxy task on the dataset of a profile."""
    try:
        figures = measure(profile, overrides or [], sampled)
    except NasError as error:
        sys.exit(str(error))
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("candidate", "seconds", "reward", title=str(figures["device"]))
    for candidate in figures["candidates"]:  # type: ignore[attr-defined]
        table.add_row(
            candidate["name"], f"{candidate['seconds']:.1f}", f"{candidate['reward']:.4f}"
        )
    console = Console()
    console.print(table)
    console.print(f"set-up, once a search  {figures['set_up_seconds']:.1f} s")
    console.print(f"candidates an hour     {figures['candidates_per_hour']:.0f}")
    console.print(f"peak memory            {figures['peak_gib']:.2f} GiB")


if __name__ == "__main__":
    typer.run(main)
