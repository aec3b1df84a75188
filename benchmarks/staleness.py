"""How busy n workers are, and how well PPO learns, by batch size and rounds ahead. A simulation.

python -m benchmarks.staleness [--tables FOLDER] [--candidates N] [--seeds N] [--json]

Each candidate takes a time that is drawn from those of a real search (docs/data/search.parquet),
and is a network of a table, whose accuracy is the reward; see benchmarks/strategies.py. The
controller is the real one, with the settings of params.yaml. Learning takes no time here. Every
row has the same number of candidates.

`micro` and `macro` are how many networks of the table are better than the best found, a mean over
seeds with its standard error; random search is the last row.
"""

from __future__ import annotations

import heapq
import json
import sys
from collections import deque
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.command import AsJson, errors_in_words
from benchmarks.strategies import KnownSpace, find_tables, read_tables, with_error, workers
from nas_core.base.project import project_dir
from nas_core.config import SearchSettings
from nas_core.loading import load_settings
from nas_core.search.strategy import Result, make_strategy

TIMES = Path(__file__).parents[1] / "docs" / "data" / "search.parquet"
# Workers, batch size, rounds ahead.
CASES = (
    (1, 4, 0),
    (8, 4, 0),
    (8, 4, 1),
    (8, 4, 2),
    (8, 4, 3),
    (8, 8, 0),
    (8, 8, 1),
    (64, 4, 0),
    (64, 4, 16),
    (64, 4, 24),
    (64, 64, 0),
    (64, 64, 1),
    (64, 16, 4),
    (64, 16, 6),
)


def simulate(
    known: KnownSpace,
    times: npt.NDArray[np.float64],
    num: int,
    search: SearchSettings,
    num_workers: int,
    seed: int,
) -> tuple[float, float]:
    """The share of the workers' time that they train, and the best accuracy of `num` candidates."""
    strategy = make_strategy(search, seed, known.space)
    rng = np.random.default_rng(seed)
    free = [0.0] * num_workers
    # When a round may begin: when the one that it waits for has been learned from.
    may_begin: deque[float] = deque([0.0] * (search.rounds_ahead + 1))
    ends: deque[float] = deque()
    rewards: list[float] = []
    busy = learned = 0.0
    num_asked = 0
    while len(rewards) < num:
        while len(strategy.open_rounds) <= search.rounds_ahead and num_asked < num:
            num_asked += len(strategy.ask(search.batch_size, known.refusal))
            opened = may_begin.popleft()
            end = 0.0
            for seconds in rng.choice(times, search.batch_size):
                begun = max(heapq.heappop(free), opened)
                heapq.heappush(free, begun + seconds)
                end = max(end, begun + seconds)
                busy += seconds
            ends.append(end)
        proposals = strategy.open_rounds[0]
        accuracies = [known.accuracy[proposal.genotype.id] for proposal in proposals]
        rewards += accuracies
        strategy.tell([Result(*pair) for pair in zip(proposals, accuracies, strict=True)])
        # Rounds are learned from in their order.
        learned = max(learned, ends.popleft())
        may_begin.append(learned)
    return busy / (num_workers * max(free)), max(rewards[:num])


def measure(tables: dict[str, KnownSpace], num: int, num_seeds: int) -> dict[str, Any]:
    """A row for each of `CASES` with PPO, and one of random search.

    Raises:
        NasError: params.yaml is malformed.
    """
    times = pd.read_parquet(TIMES)["seconds"].to_numpy()
    search = load_settings(root=project_dir()).search
    cases = [("ppo", *case) for case in CASES] + [("random", 1, 4, 0)]
    rows = []
    with workers() as pool:
        for strategy, num_workers, batch_size, ahead in track(cases, console=Console(stderr=True)):
            changed = search.model_copy(
                update={"strategy": strategy, "batch_size": batch_size, "rounds_ahead": ahead}
            )
            row: dict[str, Any] = {
                "strategy": strategy,
                "workers": num_workers,
                "batch_size": batch_size,
                "rounds_ahead": ahead,
            }
            for name, known in tables.items():
                run = partial(simulate, known, times, num, changed, num_workers)
                busy, best = zip(*pool.map(run, range(num_seeds)), strict=True)
                left = known.num_better(best)
                error = left.std(ddof=1) / num_seeds**0.5 if num_seeds > 1 else None
                row |= {"busy": float(np.mean(busy)), name: float(left.mean())}
                row[f"{name}_error"] = error
            rows.append(row)
    return {
        "num_candidates": num,
        "num_seeds": num_seeds,
        "seconds_mean": float(times.mean()),
        "seconds_deviation": float(times.std()),
        "rows": rows,
    }


@errors_in_words
def main(
    tables: Annotated[Path | None, typer.Option(help="Folder of the tables.")] = None,
    candidates: Annotated[int, typer.Option(min=8, help="Of each simulated search.")] = 256,
    seeds: Annotated[int, typer.Option(min=1, help="Simulated searches a row.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Simulate searches with many workers."""
    known = read_tables(tables or find_tables())
    figures = measure(known, candidates, seeds)
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    table = Table(
        title=f"{candidates} candidates, {seeds} seeds, {figures['seconds_mean']:.0f} +/- "
        f"{figures['seconds_deviation']:.0f} s each; better networks left in each table"
    )
    for column in ("strategy", "workers", "batch size", "rounds ahead", "busy", *known):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for row in figures["rows"]:
        table.add_row(
            *(str(row[key]) for key in ("strategy", "workers", "batch_size", "rounds_ahead")),
            f"{row['busy']:.0%}",
            *(with_error(row[name], row[f"{name}_error"]) for name in known),
        )
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    typer.run(main)
