"""The tasks of a search: sample, train on the proxy task, aggregate the rewards."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from nas_core.compute import Compute
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.genotype import Genotype
from nas_core.locks import RunLock
from nas_core.paths import prepared_folder
from nas_core.search import run
from nas_core.search.candidates import keep_files, proxy_task, score_candidate
from nas_core.search.costs import CandidateCost, Costs, needs_latency
from nas_core.search.journal import Record
from nas_core.search.latencies import LATENCY_FILE, read_latencies
from nas_core.workers import Workers


@task(name="sample candidates", task_run_name="sample round {number}", cache_policy=NO_CACHE)
def sample_candidates(
    folder: Path, settings: Settings, root: Path, number: int
) -> list[tuple[Genotype, CandidateCost]]:
    """What the strategy proposes in round `number`, within the limits, and what each costs.

    With its latency only where the search depends on that: then nothing may be in training.
    """
    costs = _costs(folder, settings, root)
    proposals = run.propose(folder, settings.search, settings.seed, costs, number)
    latency = needs_latency(settings.search)
    return [
        (proposal.genotype, costs.of(proposal.genotype, latency=latency)) for proposal in proposals
    ]


@task(
    name="train candidate",
    task_run_name="candidate {number} · {short_id}",
    cache_policy=NO_CACHE,
    cache_result_in_memory=False,
)
def train_on_proxy(
    workers: Workers,
    folder: Path,
    settings: Settings,
    root: Path,
    genotype: dict[str, Any],
    number: int,
    short_id: str,
    thresholds: Sequence[float],
) -> dict[str, Any]:
    """Train one candidate in a worker and keep its files; returns its outcome.

    See `score_candidate` and `Workers.call` for what it raises.
    """
    shared = workers.share(proxy_task, settings, root)
    outcome, files = workers.call(score_candidate, shared, settings, genotype, thresholds)
    keep_files(folder, Genotype.from_dict(genotype).id, files)
    return outcome


@task(name="aggregate rewards", task_run_name="learn from round {number}", cache_policy=NO_CACHE)
def aggregate_rewards(
    folder: Path, settings: Settings, root: Path, number: int, rewards: Sequence[float | None]
) -> dict[str, float]:
    """Teach the strategy the rewards of round `number`; returns its diagnostics."""
    costs = _costs(folder, settings, root)
    return run.learn(folder, settings.search, settings.seed, costs, rewards)


@task(name="rebuild diagnostics", cache_policy=NO_CACHE)
def rebuild_diagnostics(
    folder: Path, settings: Settings, root: Path, records: Sequence[Record]
) -> None:
    """Make the diagnostics of the search's rounds again, where they are lost."""
    logger, closed = get_run_logger(), run.current_round(folder)
    path = folder / run.ROUNDS_FILE
    logger.warning("%s lacks rounds that the search has learned from: making it again", path)
    costs = _costs(folder, settings, root)
    rebuilt = run.rebuild_diagnostics(folder, settings.search, settings.seed, costs, records)
    if rebuilt < closed:
        logger.warning(
            "%s: after round %d of %d this machine proposes otherwise than the search did; the "
            "rounds from there on stay without diagnostics, which changes no result",
            path,
            rebuilt,
            closed,
        )


@task(name="measure latencies", cache_policy=NO_CACHE)
def measure_latencies(
    folder: Path, settings: Settings, root: Path, candidates: Sequence[Record]
) -> dict[str, float]:
    """The latency of each of these candidates of a search, by id; nothing may be in training.

    Those that are known are not measured again, so that an interruption loses none.

    Raises:
        RunError: another process works on the search.
    """
    costs = _costs(folder, settings, root)
    known = read_latencies(folder / LATENCY_FILE)
    if num_new := sum(one.id not in known for one in candidates):
        get_run_logger().info(f"measuring the latency of {num_new} networks")
    with RunLock(folder):
        return {one.id: costs.latency(Genotype.from_dict(one.genotype)) for one in candidates}


@lru_cache(maxsize=1)
def _costs(folder: Path, settings: Settings, root: Path) -> Costs:
    """Kept in the process, so that no network is counted twice."""
    data = PreparedData.open(prepared_folder(root, settings))
    return Costs(
        folder / LATENCY_FILE,
        settings.network,
        data.num_classes,
        (data.height, data.width),
        Compute.from_settings(settings.compute),
    )
