"""The tasks of a search: sample, train on the proxy task, aggregate the rewards."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from nas_core.compute import Compute
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.files import write_json
from nas_core.genotype import Genotype
from nas_core.models.checkpoint import NetworkCard, save_segmenter
from nas_core.models.encoder import load_encoder_weights
from nas_core.paths import prepared_folder
from nas_core.search import run
from nas_core.search.costs import CandidateCost, Costs
from nas_core.training.proxy import ProxyTask, build_proxy_task, train_candidate


@task(name="sample candidates", task_run_name="sample round {number}", cache_policy=NO_CACHE)
def sample_candidates(
    folder: Path, settings: Settings, root: Path, number: int
) -> list[tuple[Genotype, CandidateCost]]:
    """What the strategy proposes in round `number`, within the limits, and what each costs."""
    costs = _costs(folder, settings, root)
    proposals = run.propose(folder, settings.search, settings.seed, costs)
    return [(proposal.genotype, costs.of(proposal.genotype)) for proposal in proposals]


@task(
    name="train candidate",
    task_run_name="candidate {number} · {short_id}",
    cache_policy=NO_CACHE,
    cache_result_in_memory=False,
)
def train_on_proxy(
    folder: Path,
    settings: Settings,
    root: Path,
    genotype: dict[str, Any],
    number: int,
    short_id: str,
    thresholds: Sequence[float],
) -> dict[str, Any]:
    """Train one candidate briefly and score it on meta-val.

    Writes what is kept of it into its folder; see `candidate_files`.

    Returns:
        The values that the journal keeps: scores, metrics, seconds, stopped_early.
    """
    candidate = Genotype.from_dict(genotype)
    result = train_candidate(
        proxy_task(settings, root),
        candidate,
        seed=run.candidate_seed(settings.seed, candidate.id),
        thresholds=thresholds,
    )
    data = PreparedData.open(prepared_folder(root, settings))
    proxy = settings.search.proxy
    files = candidate_files(folder, candidate.id)
    write_json(files["genotype"], genotype)
    write_json(files["losses"], result.losses)
    result.confusion.write_csv(files["confusion_matrix"], data.classes)
    card = NetworkCard(candidate, data.classes, data.colours, proxy.agg_size, proxy.sep_repeats)
    save_segmenter(files["weights"], result.segmenter, card)
    return {
        "scores": result.scores,
        "metrics": {
            **result.confusion.metrics(),
            "skipped_steps": float(result.num_skipped_steps),
        },
        "seconds": result.seconds,
        "stopped_early": result.stopped_early,
    }


@task(name="aggregate rewards", task_run_name="learn from round {number}", cache_policy=NO_CACHE)
def aggregate_rewards(
    folder: Path, settings: Settings, root: Path, number: int, rewards: Sequence[float | None]
) -> dict[str, float]:
    """Teach the strategy the rewards of round `number`; returns its diagnostics."""
    costs = _costs(folder, settings, root)
    return run.learn(folder, settings.search, settings.seed, costs, rewards)


def candidate_files(folder: Path, genotype_id: str) -> dict[str, Path]:
    """What is kept of a candidate, by name, in the folder of its search."""
    place = folder / "candidates" / genotype_id
    names = ("genotype.json", "weights.safetensors", "confusion_matrix.csv", "losses.json")
    return {name.partition(".")[0]: place / name for name in names}


@lru_cache(maxsize=1)
def _costs(folder: Path, settings: Settings, root: Path) -> Costs:
    """Kept in the process, so that no network is counted twice."""
    data = PreparedData.open(prepared_folder(root, settings))
    return Costs(
        folder / run.LATENCY_FILE,
        settings.network,
        data.num_classes,
        (data.height, data.width),
        Compute.from_settings(settings.compute),
    )


@lru_cache(maxsize=1)
def proxy_task(settings: Settings, root: Path) -> ProxyTask:
    """What all candidates share, kept in the process. Settings are frozen, thus fit as a key."""
    return build_proxy_task(
        PreparedData.open(prepared_folder(root, settings)),
        load_encoder_weights(settings.encoder.weights, root),
        settings.search.proxy,
        Compute.from_settings(settings.compute),
        meta_val_fraction=settings.search.meta_val_fraction,
        seed=settings.seed,
    )
