"""How long the controller takes: sampling 100 candidates, and a PPO update on 100.

python -m benchmarks.controller [--json]
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, errors_in_words
from nas_core.config import ControllerSettings
from nas_core.search.ppo import PPO
from nas_core.search.strategy import Result

NUM_CANDIDATES = 100


def measure(repeats: int) -> dict[str, float]:
    """Median milliseconds, after one round to warm up."""
    strategy = PPO(ControllerSettings(buffer_size=NUM_CANDIDATES, epochs=1), seed=0)
    rewards = torch.linspace(0.2, 0.5, NUM_CANDIDATES).tolist()
    sampling, updating = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        proposals = strategy.ask(NUM_CANDIDATES)
        sampled = time.perf_counter()
        results = [Result(*pair) for pair in zip(proposals, rewards, strict=True)]
        begun = time.perf_counter()
        strategy.tell(results)
        sampling.append(sampled - start)
        updating.append(time.perf_counter() - begun)
    return {
        "sample_100_ms": 1000 * statistics.median(sampling[1:]),
        "ppo_update_ms": 1000 * statistics.median(updating[1:]),
    }


@errors_in_words
def main(
    repeats: Annotated[int, typer.Option(min=1, help="Rounds to take the median of.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Time the controller with its default settings."""
    figures = measure(repeats)
    if as_json:
        print(json.dumps(figures))
        return
    table = Table("work", "median", title=f"controller, {torch.get_num_threads()} threads")
    table.add_row("sample 100 candidates", f"{figures['sample_100_ms']:.0f} ms")
    table.add_row("PPO update on 100 candidates", f"{figures['ppo_update_ms']:.0f} ms")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
