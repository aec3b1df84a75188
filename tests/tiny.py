"""The settings of tests that search and train: images of 40x56, networks of 8 channels."""

import copy
from collections.abc import Mapping
from typing import Any

_TINY: dict[str, Any] = {
    "name": "tiny",
    "dataset": {
        "kind": "synthetic",
        "path": "raw",
        "synthetic": {"num_train": 10, "num_val": 3, "num_test": 3, "height": 40, "width": 56},
    },
    "encoder": {"weights": "none"},
    "search": {
        "num_candidates": 3,
        "batch_size": 2,
        "proxy": {
            "height": 40, "width": 56, "batch_size": 4, "epochs_a": 1, "epochs_b": 1,
            "agg_size": 8,
        },
        "confirm": {"candidates": 0},
    },
    "network": {"agg_size": 8, "sep_repeats": 1},
    "train": {
        "top": 1, "also": [], "epochs": 1, "batch_size": 4, "crop_height": 32, "crop_width": 48,
        "warmup_steps": 1, "averaging": 0.5,
    },
    "compute": {"device": "cpu", "precision": "fp32", "threads": 1},
    "runner": {"workers": 1},
}  # fmt: skip


def tiny(**changes: Any) -> dict[str, Any]:
    """The settings, with changes laid over key by key."""
    values = copy.deepcopy(_TINY)
    lay_over(values, changes)
    return values


def lay_over(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            lay_over(values[key], value)
        else:
            values[key] = value
