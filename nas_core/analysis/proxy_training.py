"""A training on the proxy task to its end, in a worker, for `rank_agreement`."""

from __future__ import annotations

from collections.abc import Callable

from nas_core.analysis.rank_agreement import ProxyOutcome
from nas_core.config import Settings
from nas_core.search.candidates import task_on_device
from nas_core.space.genotype import Genotype
from nas_core.training.proxy import train_candidate
from nas_core.training.proxy_task import ProxyTask


def train_to_proxy_end(
    shared_task: Callable[[], ProxyTask], settings: Settings, architecture: Genotype, seed: int
) -> ProxyOutcome:
    """Train one architecture on the proxy task without early stopping.

    Raises:
        CandidateError: see `train_candidate`.
    """
    result = train_candidate(task_on_device(shared_task, settings), architecture, seed=seed)
    return ProxyOutcome(
        id=architecture.id,
        seed=seed,
        scores=result.scores,
        seconds=result.seconds,
        losses=result.losses,
        num_skipped_steps=result.num_skipped_steps,
    )
