"""A full training, as far as the model and its card."""

import json
from pathlib import Path

from prefect.logging import disable_run_logger

from nas_core.architectures import ARCHITECTURES
from nas_core.config import validate_settings
from nas_core.data.prepared import prepare
from nas_core.paths import prepared_folder
from nas_core.shipping import ship
from tasks.training import train_architecture

SIZE = {"height": 40, "width": 48}
PARAMS = {
    "name": "small",
    "dataset": {
        "kind": "synthetic",
        "path": "raw",
        "synthetic": {"num_train": 4, "num_val": 2, "num_test": 2, **SIZE},
    },
    "encoder": {"weights": "none"},
    "network": {"agg_size": 8, "sep_repeats": 1},
    "train": {"epochs": 1, "batch_size": 2, "crop_height": 40, "crop_width": 48},
    "compute": {"threads": 1, "precision": "fp32"},
}


def test_a_training_records_what_its_card_tells(tmp_path: Path) -> None:
    settings = validate_settings(PARAMS, "test")
    data = prepare(settings.dataset, tmp_path, prepared_folder(tmp_path, settings))
    with disable_run_logger():
        folder = train_architecture.fn(
            settings, tmp_path, "arch1", ARCHITECTURES["arch1"].to_dict()
        )
    path = ship(folder, "arch1-small", "none", tmp_path / "models")
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["data"]["name"] == "small" and card["data"]["sha256"] == data.data_hash
    assert card["recipe"]["train"]["batch_size"] == 2
    assert card["recipe"]["encoder"] == {"weights": "none"}
    assert f"{SIZE['width']}×{SIZE['height']}" in path.with_suffix(".svg").read_text()
    assert card["commit"] == "unknown"  # there is no git repository
    assert card["epochs"] == 1 and 0 <= card["val"]["mean_iou"] <= 1 and card["test"] == {}
