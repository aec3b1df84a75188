"""When a candidate's proxy training is not worth finishing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_core.config import EarlyStoppingSettings


def stopping_thresholds(
    earlier: Sequence[Sequence[float]],
    num_validations: int,
    settings: EarlyStoppingSettings,
    rng: np.random.Generator,
) -> list[float]:
    """The score below which a candidate stops, at each of its validations.

    At validation k it is mean * (1 - u): the mean over earlier candidates that got there, u
    uniform in [0, delta * decay ** n] after n candidates. Source: the search of Nekrasov, Shen and
    Reid (2020). They are known before the training begins, so a candidate's fate depends on its
    seed and on the journal alone.

    Args:
        earlier: the scores at the validations of each earlier candidate, in order.
        num_validations: how many validations a whole training has.

    Returns:
        One threshold a validation; 0.0 where nothing can stop there.
    """
    if not settings.enabled:
        return [0.0] * num_validations
    delta = settings.delta * settings.decay ** len(earlier)
    thresholds = []
    for k in range(num_validations):
        scores = [scores[k] for scores in earlier if len(scores) > k]
        u = rng.uniform(0.0, delta)
        thresholds.append(float(np.mean(scores)) * (1.0 - u) if scores else 0.0)
    return thresholds
