"""What a rule of early stopping would have done to a search that ran without one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from nas_core.base.errors import RunError
from nas_core.base.seeds import derive_seed
from nas_core.config import EarlyStoppingSettings
from nas_core.search.journal import Record
from nas_core.training.early_stopping import stopping_thresholds

LEAST_CANDIDATES = 4
TOP_SHARE, LEAST_TOP = 0.1, 3

Scores = Sequence[Sequence[float]]

# From the scores of earlier candidates, as far as each came, and the number of validations: the
# score below which the next one stops, at each validation.
Rule = Callable[[Scores, int, np.random.Generator], list[float]]


@dataclass(frozen=True)
class Replay:
    """What a rule saves and what it costs."""

    saved: float
    """Share of the training seconds, in [0, 1)."""
    lost: float
    """Share of the top candidates that it stops before their last validation."""
    kendall_tau: float | None
    """Between the rewards that the search would have seen and the final ones; None if either
    are all equal."""


def running_mean(settings: EarlyStoppingSettings) -> Rule:
    """The rule of the search with these settings, enabled or not."""
    enabled = settings.model_copy(update={"enabled": True})

    def thresholds(earlier: Scores, num_validations: int, rng: np.random.Generator) -> list[float]:
        return stopping_thresholds(earlier, num_validations, enabled, rng)

    return thresholds


def successive_halving(keep: float) -> Rule:
    """A candidate goes on if it is in the upper `keep` of the earlier ones at that validation."""

    def thresholds(earlier: Scores, num_validations: int, rng: np.random.Generator) -> list[float]:
        reached = [[s[k] for s in earlier if len(s) > k] for k in range(num_validations)]
        return [float(np.quantile(scores, 1 - keep)) if scores else 0.0 for scores in reached]

    return thresholds


def replay(candidates: Sequence[Record], rule: Rule, seed: int) -> Replay:
    """Run a search again, in the order of `candidates`, as if the rule had been there.

    With the seed of the search and its own order and settings, the rule draws what it would have
    drawn in that search, if none failed.

    Args:
        candidates: complete ones, see `complete_candidates`.
        seed: of the numbers that the rule draws.
    """
    num_validations = len(candidates[0].scores)
    seen: list[tuple[float, ...]] = []
    for record in candidates:
        rng = np.random.default_rng(derive_seed(seed, "thresholds", len(seen)))
        thresholds = rule(seen, num_validations, rng)
        below = (k for k in range(num_validations) if record.scores[k] < thresholds[k])
        seen.append(record.scores[: next(below, num_validations - 1) + 1])

    spent, whole = 0.0, 0.0
    for record, scores in zip(candidates, seen, strict=True):
        until = seconds_until(record.seconds, num_validations)
        spent += until[len(scores) - 1]
        whole += until[-1]
    final = [_reward(record) for record in candidates]
    num_top = max(LEAST_TOP, round(TOP_SHARE * len(candidates)))
    top = sorted(range(len(candidates)), key=lambda i: -final[i])[:num_top]
    # Of a score at the end nothing is lost, even if it is below the last threshold.
    lost = sum(len(seen[i]) < num_validations for i in top)
    tau = float(
        kendalltau([_shaped(r, s[-1]) for r, s in zip(candidates, seen, strict=True)], final)[0]
    )
    return Replay(1 - spent / whole, lost / num_top, tau if math.isfinite(tau) else None)


def seconds_until(seconds: Mapping[str, float], num_validations: int) -> list[float]:
    """Seconds of a proxy training up to each of its validations, from those of its parts.

    Stage B is shared evenly over its epochs, and validation over the validations.

    Args:
        seconds: of a training that was not stopped: stage_a, stage_b (absent without epochs
            in it) and validation.
    """
    stage_b = seconds.get("stage_b", 0.0) / max(1, num_validations - 1)
    validation = seconds["validation"] / num_validations
    return [seconds["stage_a"] + k * stage_b + (k + 1) * validation for k in range(num_validations)]


def complete_candidates(name: str, candidates: Sequence[Record]) -> list[Record]:
    """Those that have a score at every validation: all but failed ones.

    Raises:
        RunError: some were stopped early, or there are too few.
    """
    stopped = sum(record.status == "stopped early" for record in candidates)
    if stopped:
        raise RunError(
            f"{name}: {stopped} of {len(candidates)} candidates were stopped early, so how they "
            "would have ended is not known; search with search.early_stopping.enabled=false"
        )
    complete = [record for record in candidates if record.status == "finished"]
    if len(complete) < LEAST_CANDIDATES:
        raise RunError(
            f"{name} has {len(complete)} scored candidates: {LEAST_CANDIDATES} or more are needed"
        )
    return complete


def _reward(record: Record) -> float:
    assert record.reward is not None
    return record.reward


def _shaped(record: Record, score: float) -> float:
    """The reward that a score gives: a reward with a cost is the score times a factor."""
    factor = _reward(record) / record.scores[-1] if record.scores[-1] else 1.0
    return score * factor
