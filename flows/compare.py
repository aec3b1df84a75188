"""The flow nas-compare: search strategies side by side at equal proxy training time."""

from __future__ import annotations

import time

from prefect import flow, get_run_logger

from flows.context import Context
from flows.run_logs import say_errors_once
from flows.search import run_search
from flows.servers.orphans import claim
from flows.signals import repeat_lost_signals
from nas_core.analysis.comparison import (
    ComparedSearch,
    ComparisonReport,
    compare_searches,
    plan_searches,
)
from nas_core.base.files import digest_of
from nas_core.base.paths import results_folder
from nas_core.base.project import project_dir
from nas_core.config import Settings
from nas_core.search.journal import Record
from nas_core.search.measuring import check_latency
from nas_core.search.start import start_networks
from tasks.comparison_report import write_comparison
from tasks.dataset import prepare_dataset
from tasks.tracking.store import patiently

say_errors_once()
repeat_lost_signals()


@flow(name="nas-compare", flow_run_name="compare on {settings.name}", on_running=[claim])
def nas_compare(settings: Settings, strategies: list[str], seeds: list[int]) -> ComparisonReport:
    """Search with each strategy and seed, and compare what they found.

    Each is the search that `nas search` with these settings does: it goes on after an
    interruption, and one that is complete is not repeated. Leaves curves.parquet, compare.json,
    compare.png and report.html under compare/ in the results; the results of the stage search stay
    as they are.

    Args:
        strategies, seeds: see `plan_searches`.

    Returns:
        compare.json.
    """
    root = project_dir()
    started = time.time()
    planned = plan_searches(settings, strategies, seeds)
    context = Context.check(settings, root)
    check_latency(settings.search.latency, root)
    start_networks(settings.search, root)  # raises before data are prepared
    prepare_dataset(settings, root, settings.name)
    logger = get_run_logger()
    search = settings.search
    if search.num_candidates <= search.evolution.population_size:
        logger.warning(
            "evolution draws at random until its population is full (search.evolution."
            "population_size = %d): with %d candidates it is a random search",
            search.evolution.population_size,
            search.num_candidates,
        )
    searches = []
    for number, one in enumerate(planned, start=1):
        logger.info("search %d of %d: %s, seed %d", number, len(planned), one.strategy, one.seed)
        name, records = _search(one.settings, one.strategy)
        searches.append(ComparedSearch(one.strategy, one.seed, name, records))
    place = results_folder(root, settings, "compare")
    comparison = compare_searches(searches, search.num_candidates)
    report = ComparisonReport(
        name=settings.name,
        data_hash=context.data.data_hash,
        search=search.model_dump(mode="json", exclude={"strategy", "num_candidates", "confirm"}),
        **dict(comparison.figures),
    )
    files = write_comparison(place, report, comparison.curves)
    seeds_done = list(dict.fromkeys(one.seed for one in planned))
    patiently(
        lambda: context.tracker.log_report(
            "compare",
            digest_of(comparison.figures.model_dump()),
            started,
            {
                "strategies": " ".join(report.strategies),
                "seeds": " ".join(str(seed) for seed in seeds_done),
                "num_candidates": search.num_candidates,
            },
            {
                f"{figure}/{strategy}": spread.mean
                for strategy, over_seeds in report.strategies.items()
                for figure, spread in over_seeds.equal_time.items()
                if spread is not None
            },
            files,
        ),
        get_run_logger(),
    )
    # Not from the file, which another process with other seeds may have replaced.
    return report


# A flow of its own, so that Prefect shows the candidates of each search apart.
@flow(
    name="nas-compared-search",
    flow_run_name="{strategy} · seed {settings.seed}",
    on_running=[claim],
)
def _search(settings: Settings, strategy: str) -> tuple[str, list[Record]]:
    """Returns the name of the search's folder, and its records."""
    context = Context.check(settings, project_dir())
    with context.open_search() as search:
        run_search(context, search)
        return search.folder.name, search.journal.records
