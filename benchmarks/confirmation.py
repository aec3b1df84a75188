"""Whether it pays to confirm the best of a search before they are trained fully. Needs no training.

python -m benchmarks.confirmation [--tables FOLDER] [--searches N] [-S KEY=VALUE ...] [--json]

Networks are drawn at random from the table micro of TransNAS-Bench-101, as in
benchmarks.strategies. Their true qualities are its accuracies, scaled so that the better half of
them has the standard deviation between networks that docs/data/reliability.json has for the upper
half; a reward is a true quality and normal noise with the standard deviation within a network from
there, over all networks or over the upper half. A search has 32 or 100 candidates, of all networks
or, as from a strategy that has learned, of the better half. What is chosen are the three best by
one reward of each of as many more candidates as the race has trainings (`without`), or by the
race of search.confirm (`with_race`).

Figures are the mean true quality of the three, below that of the best network of the table, and
the gain by the race with its 95 % interval over searches (1.96 standard errors of the paired
difference).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, errors_in_words
from benchmarks.strategies import find_tables, read_tables
from nas_core.base.errors import SettingsError
from nas_core.loading import load_settings
from nas_core.search.confirming import race_of
from nas_core.search.racing import Race, open_round

TOP = 3
NUM_CANDIDATES = (32, 100)
RELIABILITY = Path(__file__).resolve().parents[1] / "docs" / "data" / "reliability.json"

Floats = npt.NDArray[np.float64]


def play(first: Floats, true: Floats, noise: Floats, race: Race) -> tuple[list[int], int]:
    """The `TOP` best after the race between the best, and how many trainings that took.

    Args:
        first: (N,), the rewards of a search.
        true: (N,) or more, the qualities.
        noise: (race.candidates, race.max_seeds), of the further rewards.
    """
    entrants = np.argsort(-first)[: race.candidates]
    rewards: list[list[float | None]] = [[float(first[one])] for one in entrants]
    cost = 0
    while True:
        number, lacking = open_round(rewards, race.top, race.max_seeds)
        if not lacking:
            break
        for index in lacking:
            rewards[index].append(float(true[entrants[index]] + noise[index, number - 1]))
        cost += len(lacking)
    means = [fmean(value for value in values if value is not None) for values in rewards]
    return [int(entrants[index]) for index in np.argsort(-np.array(means))[:TOP]], cost


def compare(
    qualities: Floats, sd: float, num: int, num_searches: int, race: Race
) -> dict[str, Any]:
    """Searches of `num` candidates with the race, and longer ones of the same cost without."""
    most = num + race.candidates * race.max_seeds
    found: list[tuple[float, float, int]] = []
    for seed in range(num_searches):
        rng = np.random.default_rng(seed)
        true = rng.choice(qualities, most, replace=False)
        rewards = true + rng.normal(0.0, sd, most)
        noise = rng.normal(0.0, sd, (race.candidates, race.max_seeds))
        chosen, cost = play(rewards[:num], true, noise, race)
        single = np.argsort(-rewards[: num + cost])[:TOP]
        found.append((float(true[single].mean()), float(true[chosen].mean()), cost))
    without, with_race, costs = (np.array(values) for values in zip(*found, strict=True))
    gains = with_race - without
    error = 1.96 * gains.std(ddof=1) / len(gains) ** 0.5
    return {
        "num_candidates": num,
        "noise": sd,
        "entrants": race.candidates,
        "race_trainings": float(costs.mean()),
        "without": float(without.mean()),
        "with_race": float(with_race.mean()),
        "gain": float(gains.mean()),
        "gain_interval": [float(gains.mean() - error), float(gains.mean() + error)],
    }


def measure(
    accuracies: Sequence[float], num_searches: int, races: Mapping[int, Race]
) -> list[dict[str, Any]]:
    """A row for each place that candidates come from, noise and length of a search.

    Args:
        races: by the number of a search's candidates.
    """
    measured = json.loads(RELIABILITY.read_text())["variants"]["linear"]["reward"]
    ascending = np.sort(np.array(accuracies, dtype=float))
    better = ascending[len(ascending) // 2 :]
    scale = measured["upper_half"]["sd_between"] / better.std(ddof=1)
    return [
        {"drawn_from": name, **compare(scale * (part - part.max()), sd, num, num_searches, race)}
        for name, part in (("all", ascending), ("better half", better))
        for sd in (measured["sd_within"], measured["upper_half"]["sd_within"])
        for num, race in races.items()
    ]


@errors_in_words
def main(
    tables: Annotated[Path | None, typer.Option(help="Folder of the tables.")] = None,
    searches: Annotated[int, typer.Option(min=2, help="Searches a row.")] = 2000,
    overrides: Annotated[list[str] | None, typer.Option("-S", help="key=value.")] = None,
    as_json: AsJson = False,
) -> None:
    """Choose three networks with and without a race between the best, at equal cost."""
    confirm = load_settings(overrides=overrides or []).search.confirm
    if confirm.candidates < TOP:
        raise SettingsError(
            f"search.confirm.candidates = {confirm.candidates}: {TOP} are chosen by the race, so "
            f"let {TOP} or more run in it"
        )
    races = {
        num: race_of(
            load_settings(
                overrides=[
                    *(overrides or []),
                    f"search.num_candidates={num}",
                    f"train.top={TOP}",
                ]
            )
        )
        for num in NUM_CANDIDATES
    }
    micro = read_tables(tables or find_tables())["micro"]
    rows = measure(list(micro.accuracy.values()), searches, races)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    shown = Table(title=f"true quality of the {TOP} chosen, below the best; {searches} searches")
    shown.add_column("drawn from")
    for column in ("noise", "candidates", "race", "without", "with", "gain (95 %)"):
        shown.add_column(column, justify="right")
    for row in rows:
        low, high = row["gain_interval"]
        shown.add_row(
            row["drawn_from"],
            f"{row['noise']:.4f}",
            str(row["num_candidates"]),
            f"{row['race_trainings']:.1f}",
            f"{row['without']:.4f}",
            f"{row['with_race']:.4f}",
            f"{row['gain']:.4f} ({low:.4f}, {high:.4f})",
        )
    Console(width=None if sys.stdout.isatty() else 100).print(shown)


if __name__ == "__main__":
    typer.run(main)
