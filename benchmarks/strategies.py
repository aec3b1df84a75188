"""How good the networks are that each strategy finds, where all networks are known: on tables.

python -m benchmarks.strategies [--tables FOLDER] [--strategy NAME ...] [--seeds N]
    [--first-seed N] [-S KEY=VALUE ...] [--json]

The tables are the two search spaces of TransNAS-Bench-101 (Duan et al., arXiv 2105.11871), task
semantic segmentation: every network fully trained, with its accuracy on the validation split. The
strategies are the project's own with the settings of params.yaml, and the accuracy is the reward.
A search ends after 100 different networks or 60 rounds. FOLDER is shared/benchmarks beside the
project if not given.

`better_left` is how many networks of the table are better than the best found, a mean over seeds
with its standard error; `new_share` is the share of new networks among the proposals; `curve` is
the mean rank of the best after 1, 2, ... different networks.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from os import sched_getaffinity
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.command import AsJson, errors_in_words
from nas_core.analysis.comparison import PlannedSearch, plan_searches
from nas_core.base.errors import RunError, first_line
from nas_core.base.files import check_regular
from nas_core.base.project import project_dir
from nas_core.config import SearchSettings
from nas_core.loading import load_settings
from nas_core.search.strategy import Result, make_strategy
from nas_core.space.decisions import Decision, Space
from nas_core.space.genotype import Genotype

NUM_NETWORKS = 100
NUM_ROUNDS = 60
# Numbers of different networks after which the terminal shows the best's rank.
SHOWN = (25, 50, 100)


@dataclass(frozen=True)
class Network:
    """A network of a table. Of a genotype, strategies use no more than the id."""

    id: str


@dataclass(frozen=True)
class KnownSpace:
    """A search space, and the accuracy in per cent of each of its networks by id."""

    decisions: tuple[Decision, ...]
    id_of: Callable[[Sequence[int]], str]
    accuracy: dict[str, float]

    @property
    def space(self) -> Space:
        return Space(self.decisions, lambda choices: cast(Genotype, Network(self.id_of(choices))))

    def refusal(self, genotype: Genotype) -> str | None:
        """Choices that make no network of the table are refused, as by a limit."""
        return None if genotype.id in self.accuracy else "the table"

    def num_better(self, accuracies: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """How many networks are better than each of these."""
        ascending = np.sort(np.fromiter(self.accuracy.values(), float))
        return len(ascending) - np.searchsorted(ascending, accuracies, side="right")


# Six edges of a cell, each with one of four operations.
MICRO = tuple(Decision("op", 4, edge) for edge in range(6))
# How many modules, 4 to 6, then the kind of each of them, 1 to 4. Those beyond are ignored.
MACRO = (Decision("length", 3, 0), *(Decision("module", 4, place) for place in range(6)))


def _micro_id(choices: Sequence[int]) -> str:
    return str(tuple(choices))


def _macro_id(choices: Sequence[int]) -> str:
    length, *modules = choices
    return str(tuple(module + 1 for module in modules[: 4 + length]))


def read_tables(folder: Path) -> dict[str, KnownSpace]:
    """Both tables by name.

    Raises:
        RunError: a file is missing or malformed.
    """
    edges = [f"edge{edge}" for edge in range(len(MICRO))]
    micro = _read(
        folder / "transnas_micro_segmentation.csv",
        lambda row: _micro_id([int(row[edge]) for edge in edges]),
    )
    macro = _read(folder / "transnas_macro_segmentation.csv", _macro_name)
    return {
        "micro": KnownSpace(MICRO, _micro_id, micro),
        "macro": KnownSpace(MACRO, _macro_id, macro),
    }


def _macro_name(row: Mapping[str, str]) -> str:
    if not re.fullmatch(r"\([1-4](, [1-4]){3,5}\)", row["arch"]):
        raise ValueError(f"no macro network: {row['arch'][:80]}")
    return row["arch"]


def _read(path: Path, id_of: Callable[[dict[str, str]], str]) -> dict[str, float]:
    try:
        check_regular(path)
        with path.open(newline="") as file:
            accuracy = {id_of(row): float(row["val_accuracy"]) for row in csv.DictReader(file)}
        if not all(0 <= value <= 100 for value in accuracy.values()):
            raise ValueError("an accuracy is no per cent")
        if len(accuracy) > 1 and len({*accuracy.values()}) == 1:
            raise ValueError("all accuracies are equal")
    except OSError as error:
        raise RunError(
            f"{path} cannot be read: {error.strerror}; name the folder of the tables by --tables"
        ) from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise RunError(f"{path} is no table of TransNAS-Bench-101: {reason}") from None
    if len(accuracy) < NUM_NETWORKS:
        raise RunError(f"{path} has {len(accuracy)} networks, expected {NUM_NETWORKS} or more")
    return accuracy


def play(known: KnownSpace, search: SearchSettings, seed: int) -> tuple[list[float], float]:
    """One search.

    Returns:
        The best accuracy after 1, 2, ... different networks, `NUM_NETWORKS` values (the last is
        repeated if there were fewer), and the share of new networks among the proposals.
    """
    strategy = make_strategy(search, seed, known.space)
    best: list[float] = []
    seen: set[str] = set()
    num_proposals = 0
    for _ in range(NUM_ROUNDS):
        results = []
        for proposal in strategy.ask(search.batch_size, known.refusal):
            accuracy = known.accuracy[proposal.genotype.id]
            results.append(Result(proposal, accuracy))
            if proposal.genotype.id not in seen:
                seen.add(proposal.genotype.id)
                best.append(max([accuracy, *best[-1:]]))
        num_proposals += len(results)
        if len(seen) >= NUM_NETWORKS:
            break
        strategy.tell(results)
    best += best[-1:] * (NUM_NETWORKS - len(best))
    return best[:NUM_NETWORKS], len(seen) / num_proposals


def measure(
    tables: dict[str, KnownSpace], searches: Sequence[PlannedSearch]
) -> list[dict[str, Any]]:
    """A row for each table and strategy, over the seeds of `searches`."""
    by_strategy: dict[str, list[PlannedSearch]] = {}
    for one in searches:
        by_strategy.setdefault(one.strategy, []).append(one)
    cases = [(table, strategy) for table in tables for strategy in by_strategy]
    rows = []
    with workers() as pool:
        for table, strategy in track(cases, "searching", console=Console(stderr=True)):
            ones = by_strategy[strategy]
            settings = [one.settings.search for one in ones]
            found = pool.map(
                play, repeat(tables[table]), settings, [one.seed for one in ones], chunksize=4
            )
            rows.append({"table": table, "strategy": strategy, **_figures(tables[table], found)})
    return rows


def workers() -> ProcessPoolExecutor:
    """A process for each core. Controllers are small: one thread each is the fastest."""
    num = len(sched_getaffinity(0))
    return ProcessPoolExecutor(num, get_context("spawn"), torch.set_num_threads, (1,))


def with_error(mean: float, error: float | None) -> str:
    return f"{mean:.1f}" + ("" if error is None else f" ± {error:.1f}")


def _figures(known: KnownSpace, found: Iterable[tuple[list[float], float]]) -> dict[str, Any]:
    best, new_shares = zip(*found, strict=True)
    num_better = known.num_better(best)
    left = num_better[:, -1]
    return {
        "seeds": len(left),
        "better_left": float(left.mean()),
        "better_left_error": float(left.std(ddof=1) / len(left) ** 0.5) if len(left) > 1 else None,
        "new_share": float(np.mean(new_shares)),
        "curve": (1 + num_better).mean(axis=0).tolist(),
    }


def find_tables() -> Path:
    """shared/benchmarks in the project's folder or beside it."""
    root = project_dir()
    inside = root / "shared" / "benchmarks"
    return inside if inside.is_dir() else root.parent / "shared" / "benchmarks"


@errors_in_words
def main(
    tables: Annotated[Path | None, typer.Option(help="Folder of the tables.")] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="As of nas compare, again for more; all if left out.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Searches a row.")] = 100,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first of them.")] = 1000,
    overrides: Annotated[list[str] | None, typer.Option("-S", help="key=value.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search on tables where all networks are known."""
    searches = plan_searches(
        load_settings("camvid", overrides or [], root=project_dir()),
        strategy or [],
        range(first_seed, first_seed + seeds),
    )
    rows = measure(read_tables(tables or find_tables()), searches)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    shown = Table(title=f"the best of {NUM_NETWORKS} networks, {seeds} seeds")
    for column in ("table", "strategy"):
        shown.add_column(column)
    for column in ("better left", "new", *(f"rank after {number}" for number in SHOWN)):
        shown.add_column(column, justify="right")
    for row in rows:
        shown.add_row(
            row["table"],
            row["strategy"],
            with_error(row["better_left"], row["better_left_error"]),
            f"{row['new_share']:.0%}",
            *(f"{row['curve'][number - 1]:.1f}" for number in SHOWN),
        )
    Console(width=None if sys.stdout.isatty() else 100).print(shown)


if __name__ == "__main__":
    typer.run(main)
