"""How much of the front of quality and cost a search finds, where all networks are known.

python -m benchmarks.pareto [--tables FOLDER] [--seeds N] [--first-seed N] [-S KEY=VALUE ...]
    [--json]

The tables of `benchmarks.strategies`, with a cost that is made up, since they have none: each edge
or module costs `COSTS` of its choice. A search ends after 100 different networks. `hypervolume` is
the area that its networks dominate up to the worst accuracy and the largest cost of the table, as
a share of that of the whole table: a mean over seeds with its standard error. Beside pareto stand
random search, and evolution with the reward accuracy * (cost / median cost) ** exponent.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.command import AsJson, errors_in_words
from benchmarks.strategies import (
    NUM_NETWORKS,
    KnownSpace,
    find_tables,
    read_tables,
    with_error,
    workers,
)
from nas_core.base.project import project_dir
from nas_core.config import SearchSettings
from nas_core.loading import load_settings
from nas_core.search.strategy import Result, make_strategy

COSTS = {"micro": (0.0, 0.1, 1.0, 9.0), "macro": (0.0, 1.0, 2.0, 3.0, 5.0)}
"""Of none, skip, 1x1 and 3x3; of module kinds, which count from 1."""
EXPONENTS = (0.0, -0.07, -0.2)


def cost_of(table: str, name: str) -> float:
    """The made-up cost of a network of a table, by its id."""
    choices: tuple[int, ...] = ast.literal_eval(name)
    return 0.5 + sum(COSTS[table][choice] for choice in choices)


def hypervolume(
    points: Sequence[tuple[float, float]], worst_cost: float, worst_quality: float
) -> float:
    """The area that points (cost, quality) dominate within these bounds."""
    area, best = 0.0, worst_quality
    for cost, quality in sorted(points):
        area += max(0.0, quality - best) * max(0.0, worst_cost - cost)
        best = max(best, quality)
    return area


def play(
    table: str, known: KnownSpace, search: SearchSettings, exponent: float, seed: int
) -> float:
    """The hypervolume of one search, as a share of the table's."""
    strategy = make_strategy(search, seed, known.space)
    whole = [(cost_of(table, name), accuracy) for name, accuracy in known.accuracy.items()]
    typical = float(np.median([cost for cost, _ in whole]))
    found: dict[str, tuple[float, float]] = {}
    while len(found) < NUM_NETWORKS:
        results = []
        for proposal in strategy.ask(search.batch_size, known.refusal):
            name = proposal.genotype.id
            cost, accuracy = found[name] = (cost_of(table, name), known.accuracy[name])
            results.append(Result(proposal, accuracy * (cost / typical) ** exponent, (cost,)))
        strategy.tell(results)
    worst = max(cost for cost, _ in whole), min(accuracy for _, accuracy in whole)
    return hypervolume([*found.values()], *worst) / hypervolume(whole, *worst)


def measure(
    tables: dict[str, KnownSpace], search: SearchSettings, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """A row for each table and way to search, over the seeds."""
    ways = [("pareto", 0.0), ("random", 0.0), *(("evolution", one) for one in EXPONENTS)]
    rows = []
    with workers() as pool:
        for table, way in track(
            [(table, way) for table in tables for way in ways],
            "searching",
            console=Console(stderr=True),
        ):
            settings = search.model_copy(update={"strategy": way[0]})
            arguments = (table, tables[table], settings, way[1])
            found = list(pool.map(play, *map(repeat, arguments), seeds, chunksize=4))
            error = float(np.std(found, ddof=1) / len(found) ** 0.5) if len(found) > 1 else None
            rows.append(
                {
                    "table": table,
                    "strategy": way[0],
                    "exponent": way[1],
                    "seeds": len(found),
                    "hypervolume": float(np.mean(found)),
                    "hypervolume_error": error,
                }
            )
    return rows


@errors_in_words
def main(
    tables: Annotated[Path | None, typer.Option(help="Folder of the tables.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Searches a row.")] = 100,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first of them.")] = 1000,
    overrides: Annotated[list[str] | None, typer.Option("-S", help="key=value.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fronts of quality and cost on tables where all networks are known."""
    search = load_settings("camvid", overrides or [], root=project_dir()).search
    known = read_tables(tables or find_tables())
    rows = measure(known, search, range(first_seed, first_seed + seeds))
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    shown = Table(title=f"the fronts of {NUM_NETWORKS} networks, {seeds} seeds")
    for column in ("table", "strategy", "exponent"):
        shown.add_column(column)
    shown.add_column("hypervolume, %", justify="right")
    for row in rows:
        spread = row["hypervolume_error"] and 100 * row["hypervolume_error"]
        exponent = f"{row['exponent']:g}" if row["strategy"] == "evolution" else ""
        volume = with_error(100 * row["hypervolume"], spread)
        shown.add_row(row["table"], row["strategy"], exponent, volume)
    Console(width=None if sys.stdout.isatty() else 100).print(shown)


if __name__ == "__main__":
    typer.run(main)
