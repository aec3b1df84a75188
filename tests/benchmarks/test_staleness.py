import itertools

import numpy as np
import pytest

from benchmarks.staleness import simulate
from benchmarks.strategies import KnownSpace
from nas_core.config import SearchSettings
from nas_core.space.decisions import Decision

KNOWN = KnownSpace(
    tuple(Decision("op", 4, edge) for edge in range(5)),
    lambda choices: str(tuple(choices)),
    {str(choices): float(sum(choices)) for choices in itertools.product(range(4), repeat=5)},
)


@pytest.mark.parametrize(
    ("num_workers", "batch_size", "ahead", "busy"),
    [
        (1, 4, 0, 1.0),
        (8, 4, 0, 0.5),
        (8, 4, 1, 1.0),
        (8, 8, 0, 1.0),
        (16, 4, 1, 0.5),
    ],
)
def test_candidates_of_equal_length_fill_what_is_open(
    num_workers: int, batch_size: int, ahead: int, busy: float
) -> None:
    search = SearchSettings(strategy="random", batch_size=batch_size, rounds_ahead=ahead)
    found, best = simulate(KNOWN, np.array([10.0]), 64, search, num_workers, seed=0)
    assert found == pytest.approx(busy)
    # The same networks in any way that rounds overlap, the best of 64 of 1,024.
    assert best == simulate(KNOWN, np.array([10.0]), 64, search, 1, seed=0)[1]
    assert 10 <= best <= 15


def test_who_takes_longer_lets_the_others_wait_but_for_rounds_ahead() -> None:
    times = np.array([10.0, 10.0, 10.0, 50.0])
    shares = [
        simulate(
            KNOWN,
            times,
            400,
            SearchSettings(strategy="random", batch_size=4, rounds_ahead=ahead),
            num_workers=4,
            seed=0,
        )[0]
        for ahead in (0, 1, 4)
    ]
    assert shares[0] < shares[1] < shares[2]
    assert shares[0] < 0.6 and shares[2] > 0.85
