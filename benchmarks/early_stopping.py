"""What early stopping saves and what it costs, from a search that ran without it.

python -m benchmarks.early_stopping [--run NAME] [--json]

Replays rules of stopping over the journal of a finished search with
search.early_stopping.enabled=false: in its own order, and in random ones, since a rule that learns
from earlier candidates depends on who came first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, cast

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, errors_in_words
from nas_core.analysis.leaderboard import read_search
from nas_core.analysis.stopping import (
    Replay,
    Rule,
    complete_candidates,
    replay,
    running_mean,
    successive_halving,
)
from nas_core.base.paths import searches_folder
from nas_core.base.project import project_dir
from nas_core.config import EarlyStoppingSettings
from nas_core.search.journal import Journal

NUM_ORDERS = 200
# delta, decay: the default, and around it.
RUNNING_MEANS = ((0.9, 0.95), (0.9, 0.9), (0.9, 0.99), (0.5, 0.95), (0.2, 0.95), (0.0, 1.0))
KEPT_SHARES = {"1/2": 1 / 2, "2/3": 2 / 3}
LEGEND = f"""\
delta, decay: search.early_stopping. upper: successive halving, against earlier candidates
best stopped: of the top 10 % (at least 3) by final reward
tau: Kendall's, between the rewards that the search would see and the final ones
random: mean over {NUM_ORDERS} orders, 5th to 95th percentile"""
FIGURES = ("saved", "lost", "kendall_tau")


def measure(run: str | None) -> dict[str, Any]:
    """Each rule's figures in the search's own order, and over random ones."""
    searches = searches_folder(project_dir())
    name, records = read_search(searches, run)
    candidates = complete_candidates(name, records)
    journal = Journal.read(searches / name / "journal.jsonl")
    settings = cast("dict[str, Any]", journal.header.settings)
    configured = EarlyStoppingSettings(**settings["search"]["early_stopping"])
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(candidates)) for _ in range(NUM_ORDERS)]
    found = {}
    for rule_name, rule in _rules(configured).items():
        shuffled = [
            replay([candidates[i] for i in order], rule, seed) for seed, order in enumerate(orders)
        ]
        found[rule_name] = {
            "own_order": _figures(replay(candidates, rule, settings["seed"])),
            "random_orders": {figure: _summary(shuffled, figure) for figure in FIGURES},
        }
    return {
        "search": name,
        "candidates": len(candidates),
        "hours": sum(sum(record.seconds.values()) for record in candidates) / 3600,
        "random_orders": NUM_ORDERS,
        "rules": found,
    }


def _rules(configured: EarlyStoppingSettings) -> dict[str, Rule]:
    pairs = dict.fromkeys([(configured.delta, configured.decay), *RUNNING_MEANS])
    means = {
        f"delta {delta:g}, decay {decay:g}": running_mean(
            EarlyStoppingSettings(delta=delta, decay=decay)
        )
        for delta, decay in pairs
    }
    halving = {
        f"upper {share} go on": successive_halving(keep) for share, keep in KEPT_SHARES.items()
    }
    return means | halving


def _figures(outcome: Replay) -> dict[str, float | None]:
    return {figure: getattr(outcome, figure) for figure in FIGURES}


def _summary(outcomes: list[Replay], figure: str) -> dict[str, float] | None:
    """Mean and 5th and 95th percentile; None if the figure is never defined."""
    values = [v for outcome in outcomes if (v := getattr(outcome, figure)) is not None]
    if not values:
        return None
    low, high = (float(v) for v in np.percentile(values, (5, 95)))
    return {"mean": float(np.mean(values)), "p5": low, "p95": high}


def _shown(figure: str, values: Iterable[float]) -> str:
    """`21%`, or with its percentiles `21% (17%, 25%)`."""
    form = "{:.2f}" if figure == "kendall_tau" else "{:.0%}"
    mean, *interval = (form.format(value) for value in values)
    return f"{mean} ({', '.join(interval)})" if interval else mean


@errors_in_words
def main(
    run: Annotated[str | None, typer.Option(help="Folder name in artifacts/searches.")] = None,
    as_json: AsJson = False,
) -> None:
    """Replay rules of early stopping over a finished search that ran without them."""
    figures = measure(run)
    if as_json:
        print(json.dumps(figures))
        return
    title = "{search}: {candidates} candidates, {hours:.2f} h of training".format(**figures)
    table = Table("rule", "order", title=title, title_justify="left")
    for heading in ("time saved", "best stopped", "tau"):
        table.add_column(heading, justify="right")
    for name, outcome in figures["rules"].items():
        own = [(f, outcome["own_order"][f]) for f in FIGURES]
        random = [(f, outcome["random_orders"][f]) for f in FIGURES]
        table.add_row(name, "own", *("" if v is None else _shown(f, [v]) for f, v in own))
        table.add_row("", "random", *(_shown(f, v.values()) if v else "" for f, v in random))
    console = Console()
    console.print(table)
    console.print(LEGEND, highlight=False)


if __name__ == "__main__":
    typer.run(main)
