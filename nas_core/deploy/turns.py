"""Times of several things that run by turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def by_turns(
    runs: Mapping[str, Callable[[], object]],
    num: int,
    *,
    warm_ups: int,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Milliseconds of `num` runs of each, by name, after `warm_ups` that do not count.

    They take turns, so that other work on the machine slows all.

    Args:
        clock: gives seconds, as `time.perf_counter`.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(warm_ups + num):
        for name, run in runs.items():
            started = clock()
            run()
            if index >= warm_ups:
                times[name].append(1000 * (clock() - started))
    return times
