"""Which of a search's best are scored again: a race over training seeds.

One reward cannot order good networks, since a network's reward varies from seed to seed. So the
best by their first reward race: in a round each that still stands is trained with one more seed,
then those that are hopeless are dropped, until no more stand than are wanted or the seeds are
spent. Such races are those of Maron and Moore (Hoeffding races, NIPS 1993) and of Birattari et al.
(F-race, GECCO 2002); the test is in `hopeless`. Without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from nas_core.search.journal import Confirmation, Record

# One-sided, of each comparison. Dropping too easily costs little, as what is dropped is a near tie.
LEVEL = 0.1


class Race(BaseModel):
    """Who races, for what, and how long."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    candidates: Annotated[int, Field(ge=0)]
    """The best by their first reward. 0 or 1: there is no race."""
    max_seeds: Annotated[int, Field(ge=1)]
    """Of each entrant, beside that of its first training."""
    top: Annotated[int, Field(ge=1)]
    """How many are to be told apart from the rest, 1 at least."""

    def open_runs(
        self, candidates: Iterable[Record], confirmations: Iterable[Confirmation]
    ) -> list[tuple[Record, int]]:
        """The trainings that the race needs next, all of one round: who, and the seed's number.

        A function of what is known alone: so it is the same after an interruption, and whatever
        the order in which the trainings of a round ended. Candidates that stopped early do not
        enter, for theirs is the reward of a shorter training.

        Args:
            confirmations: of these candidates, and maybe of others; see `journal`.

        Returns:
            Empty at the end of the race. Seeds count from 1.
        """
        finished = [record for record in candidates if record.status == "finished"]
        entrants = sorted(finished, key=lambda record: (-_reward(record), record.index))
        entrants = entrants[: self.candidates]
        rewards: dict[str, list[float | None]] = {one.id: [one.reward] for one in entrants}
        for one in confirmations:
            if one.confirms in rewards:
                rewards[one.confirms].append(one.reward)
        number, standing = open_round(list(rewards.values()), self.top, self.max_seeds)
        return [(entrants[index], number) for index in standing]


def open_round(
    rewards: Sequence[Sequence[float | None]], top: int, max_seeds: int
) -> tuple[int, list[int]]:
    """The oldest round that is not complete, and the entrants that lack it.

    Args:
        rewards: of each entrant that of its first training, then a value a round, as far as it
            came; None where the training failed, which tells nothing for or against it.
        top, max_seeds: see `Race`.

    Returns:
        The number of the round, from 1, and the entrants' indices, none at the end of the race.
    """
    standing = list(range(len(rewards)))
    for number in range(1, max_seeds + 1):
        if len(standing) <= top:
            break
        if lacking := [index for index in standing if len(rewards[index]) <= number]:
            return number, lacking
        known = [
            [value for value in rewards[index][: number + 1] if value is not None]
            for index in standing
        ]
        out = hopeless(known, top)
        standing = [index for place, index in enumerate(standing) if place not in out]
    return max_seeds, []


def hopeless(rewards: Sequence[Sequence[float]], top: int) -> set[int]:
    """Those whose mean is significantly below that of the `top`-th best.

    A one-sided t-test of each against it, with the variance within entrants pooled over all of
    them: the least significant difference of a one-way analysis of variance (Fisher, The Design of
    Experiments, 1935). It is not corrected for the number of comparisons or of rounds.

    Args:
        rewards: of each entrant, one or more, not all of one.
    """
    # They take a while to import, and most that ask of a race need none of this.
    import numpy as np
    from scipy.special import stdtrit

    numbers = np.array([len(values) for values in rewards])
    means = np.array([np.mean(values) for values in rewards])
    freedom = int(numbers.sum()) - len(numbers)
    if freedom == 0 or len(rewards) <= top:
        return set()
    squares = sum(float(np.var(values)) * len(values) for values in rewards)
    last = int(np.argsort(-means, kind="stable")[top - 1])
    errors = np.sqrt(squares / freedom * (1 / numbers + 1 / numbers[last]))
    below = means < means[last] - stdtrit(freedom, 1 - LEVEL) * errors
    return {int(index) for index in np.flatnonzero(below)}


def _reward(record: Record) -> float:
    assert record.reward is not None
    return record.reward
