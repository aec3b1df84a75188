"""A whole search in one script: no server, no MLflow, no DVC.

    python examples/search_without_servers.py [FOLDER]

Draws a small dataset of street scenes, trains 4 networks on it for moments each, and trains the
best one of them fully. Everything lies in FOLDER (by default ./small-search), with report.html, a
page of what was found, in the folder of the search; the same command goes on where it was stopped.
"""

import logging
import sys
from pathlib import Path

from nas_core.analysis.report.live import LiveReport
from nas_core.base.paths import prepared_folder
from nas_core.data.preparing import prepare
from nas_core.loading import validate_settings
from nas_core.search.loop import Search
from nas_core.search.progress import Progress
from nas_core.space.genotype import Genotype
from nas_core.training.side_by_side import evaluate, train
from nas_core.workers.local import InProcessWorkers

SETTINGS = {
    "name": "small",
    "dataset": {
        "kind": "synthetic",
        "path": "scenes",
        "synthetic": {"num_train": 24, "num_val": 6, "num_test": 6, "height": 72, "width": 96},
    },
    "encoder": {"weights": "none"},
    "search": {
        "num_candidates": 4,
        "proxy": {"height": 48, "width": 64, "batch_size": 8, "epochs_a": 1, "epochs_b": 1},
    },
    "train": {"epochs": 2, "crop_height": 64, "crop_width": 80, "validate_every": 1},
}


def main(root: Path) -> None:
    settings = validate_settings(SETTINGS, "SETTINGS")
    prepare(settings.dataset, root, prepared_folder(root, settings))
    with Search.open(settings, root, InProcessWorkers()) as search:
        search.run([Progress(), LiveReport()])
        best = search.ranked[0].record
    with InProcessWorkers() as workers:
        training = train(workers, settings, root, best.id, Genotype.from_dict(best.genotype))
        test = evaluate(workers, settings, root, best.id, training)
    print(f"{best.id}: {best.num_parameters:,} parameters, test mIoU {test.mean_iou:.4f}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "small-search"))
