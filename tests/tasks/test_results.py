"""The picture of the Pareto fronts."""

from itertools import combinations

import pandas as pd

from tasks.results import pareto_picture


def test_ids_in_the_picture_of_the_fronts_do_not_cover_each_other() -> None:
    # A front of 40 in each panel, far more than have room.
    costs = range(100_000, 300_000, 5_000)
    table = pd.DataFrame(
        {
            "id": [f"{cost:012x}" for cost in costs],
            "quality": [cost / 400_000 for cost in costs],
            "num_parameters": costs,
            "macs": [cost * 5_000 for cost in costs],
            "latency_ms": [cost / 1_000 for cost in costs],
        }
    )
    figure = pareto_picture(table)
    for panel in figure.axes:
        boxes = [text.get_window_extent() for text in panel.texts]
        assert 5 < len(boxes) < 40
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        assert panel.texts[0].get_text() == table["id"].iloc[-1][:6], "the best has its id"
