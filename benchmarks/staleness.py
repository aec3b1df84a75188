"""How busy n workers are, and how well PPO learns, by batch size and rounds ahead. A simulation.

python -m benchmarks.staleness --run FOLDER_OF_A_SEARCH [--candidates N] [--seeds N] [--json]

Each candidate takes a time that is drawn from those in the journal of a search, and has a reward
that is known: the share of its decisions that are 0, where there is a choice, as in the tests of
the strategies. The controller is the real one, with the settings of params.yaml. Learning takes no
time here. Every row has the same number of candidates.

`reward` is the mean of the last quarter, averaged over seeds; random search has `by chance`.
"""

from __future__ import annotations

import heapq
import json
import sys
from collections import deque
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from nas_core.config import SearchSettings, load_settings, project_dir
from nas_core.errors import NasError
from nas_core.search.journal import Journal
from nas_core.search.random_search import RandomSearch
from nas_core.search.strategy import Proposal, Result, make_strategy
from nas_core.space import DECISIONS

WITH_CHOICE = [index for index, decision in enumerate(DECISIONS) if decision.num_choices > 1]
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
    (512, 64, 8),
    (512, 512, 0),
    (512, 512, 1),
)


def reward_of(proposal: Proposal) -> float:
    return sum(proposal.choices[index] == 0 for index in WITH_CHOICE) / len(WITH_CHOICE)


def simulate(
    search: SearchSettings, times: npt.NDArray[np.float64], num_workers: int, num: int, seed: int
) -> tuple[float, float]:
    """The share of the workers' time that they train, and the mean reward of the last quarter."""
    strategy = make_strategy(search, seed)
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
            num_asked += len(strategy.ask(search.batch_size))
            opened = may_begin.popleft()
            end = 0.0
            for seconds in rng.choice(times, search.batch_size):
                begun = max(heapq.heappop(free), opened)
                heapq.heappush(free, begun + seconds)
                end = max(end, begun + seconds)
                busy += seconds
            ends.append(end)
        results = [Result(one, reward_of(one)) for one in strategy.open_rounds[0]]
        rewards += [result.reward for result in results if result.reward is not None]
        strategy.tell(results)
        # Rounds are learned from in their order.
        learned = max(learned, ends.popleft())
        may_begin.append(learned)
    return busy / (num_workers * max(free)), float(np.mean(rewards[-(len(rewards) // 4) :]))


def measure(run: Path, num: int, num_seeds: int) -> dict[str, Any]:
    """A row for each of `CASES`, and the mean reward by chance.

    Raises:
        NasError: there is no journal, or nothing was trained to its end.
    """
    search = load_settings(root=project_dir()).search.model_copy(update={"strategy": "ppo"})
    records = Journal.read(run / "journal.jsonl").candidates
    times = np.array([sum(record.seconds.values()) for record in records if record.is_scored])
    if not len(times):
        raise NasError(f"{run}: no candidate was trained to its end")
    rows = []
    for num_workers, batch_size, ahead in track(CASES, console=Console(stderr=True)):
        changed = search.model_copy(update={"batch_size": batch_size, "rounds_ahead": ahead})
        found = [simulate(changed, times, num_workers, num, seed) for seed in range(num_seeds)]
        busy, rewards = zip(*found, strict=True)
        rows.append(
            {
                "workers": num_workers,
                "batch_size": batch_size,
                "rounds_ahead": ahead,
                "busy": float(np.mean(busy)),
                "reward": float(np.mean(rewards)),
                "reward_spread": float(np.std(rewards, ddof=1)) if num_seeds > 1 else None,
            }
        )
    chance = [reward_of(proposal) for proposal in RandomSearch(0).ask(2000)]
    return {
        "num_candidates": num,
        "num_seeds": num_seeds,
        "seconds_mean": float(times.mean()),
        "seconds_deviation": float(times.std()),
        "by_chance": float(np.mean(chance)),
        "rows": rows,
    }


def main(
    run: Annotated[Path, typer.Option(help="Folder of a search with its journal.jsonl.")],
    candidates: Annotated[int, typer.Option(min=8, help="Of each simulated search.")] = 2048,
    seeds: Annotated[int, typer.Option(min=1, help="Simulated searches a row.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Simulate searches with many workers."""
    try:
        figures = measure(run, candidates, seeds)
    except NasError as error:
        sys.exit(f"error: {error}")
    if as_json:
        print(json.dumps(figures, indent=1))
        return
    table = Table(
        title=f"{candidates} candidates, {seeds} seeds, {figures['seconds_mean']:.0f} +/- "
        f"{figures['seconds_deviation']:.0f} s each; reward by chance {figures['by_chance']:.3f}"
    )
    for column in ("workers", "batch size", "rounds ahead", "busy", "reward"):
        table.add_column(column, justify="right")
    for row in figures["rows"]:
        table.add_row(
            *(str(row[key]) for key in ("workers", "batch_size", "rounds_ahead")),
            f"{row['busy']:.0%}",
            f"{row['reward']:.3f}",
        )
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    typer.run(main)
