"""One candidate: trained on the proxy task, and what is kept of it. Runs in a worker process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from nas_core.compute import Compute
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.files import write_json
from nas_core.genotype import Genotype
from nas_core.models.checkpoint import NetworkCard, save_segmenter
from nas_core.models.encoder import load_encoder_weights
from nas_core.paths import prepared_folder
from nas_core.search import run
from nas_core.training.proxy import ProxyTask, build_proxy_task, train_candidate


def score_candidate(
    folder: Path,
    settings: Settings,
    root: Path,
    genotype: dict[str, Any],
    thresholds: Sequence[float],
) -> dict[str, Any]:
    """Train a candidate briefly, score it on meta-val and write its files; see `candidate_files`.

    Returns:
        The values that the journal keeps: scores, metrics, seconds, stopped_early.

    Raises:
        CandidateError: no step of an epoch had a finite loss.
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


def candidate_files(folder: Path, genotype_id: str) -> dict[str, Path]:
    """What is kept of a candidate, by name, in the folder of its search."""
    place = folder / "candidates" / genotype_id
    names = ("genotype.json", "weights.safetensors", "confusion_matrix.csv", "losses.json")
    return {name.partition(".")[0]: place / name for name in names}


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
