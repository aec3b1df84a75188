"""What the steps share: how much of everything is done, the time, and what was found."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core.base.errors import RunError
from nas_core.base.files import write_json
from nas_core.config import Settings
from nas_core.workers.local import Workers

RESULTS = "results.json"


@dataclass(frozen=True)
class Lengths:
    """How much of everything is done."""

    processes: tuple[int, ...] = (1, 4, 8, 12)
    rate_epochs: int = 6
    rate_candidates: int = 3
    tests: tuple[str, ...] = ("tests/nas_core",)
    candidates: int = 1000
    claims: tuple[str, ...] = ("arch0", "arch1", "camvid0")
    claim_seeds: int = 5
    claim_epochs: int = 400
    best: int = 10
    best_epochs: int = 200
    held_out: str = "0006R0"
    """A group of train, in CamVid a recording, that the best are scored on, too."""
    teacher_agg_size: int = 256
    teacher_epochs: int = 400
    taught_seeds: int = 2
    winner_seeds: int = 3
    winner_epochs: int = 1000


DRY = Lengths(
    processes=(1, 2),
    rate_epochs=3,
    rate_candidates=1,
    tests=("tests/nas_core/training/test_cuda_graphs.py",),
    candidates=2,
    claims=("arch0",),
    claim_seeds=2,
    claim_epochs=1,
    best=2,
    best_epochs=1,
    held_out="train_0000",
    teacher_agg_size=32,
    teacher_epochs=1,
    taught_seeds=1,
    winner_seeds=2,
    winner_epochs=1,
)
DRY_SETTINGS = (
    "dataset.synthetic.num_train=10",
    "dataset.synthetic.num_val=2",
    "dataset.synthetic.num_test=2",
    "dataset.synthetic.height=48",
    "dataset.synthetic.width=64",
    "encoder.weights=none",
    "search.confirm.candidates=0",
    "search.proxy.height=48",
    "search.proxy.width=64",
    "search.proxy.epochs_a=1",
    "search.proxy.epochs_b=1",
    "train.crop_height=48",
    "train.crop_width=64",
    "compute.device=cpu",
    "compute.precision=fp32",
    "compute.threads=1",
    "runner.workers=2",
)


class TimeIsUpError(Exception):
    """A step's share of the time is over; the next call goes on with it."""


@dataclass(frozen=True)
class Box:
    """What the steps share, and when the one in work has to end."""

    settings: Settings
    root: Path
    """Of the artifacts."""
    lengths: Lengths
    found: dict[str, Any]
    """By step; what a step has found so far, kept by `keep`."""
    deadline: float
    """By `time.monotonic`."""

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def keep(self) -> None:
        write_json(self.root / RESULTS, self.found)

    @contextmanager
    def ending(self, workers: Workers) -> Iterator[Workers]:
        """Closes the workers when the time is up: what they train has its checkpoint.

        Raises:
            TimeIsUpError: that happened.
        """
        timer = threading.Timer(max(0.0, self.seconds_left), workers.close)
        timer.daemon = True
        timer.start()
        try:
            with workers:
                yield workers
        except RunError:
            if self.seconds_left > 0:
                raise
            raise TimeIsUpError from None
        finally:
            timer.cancel()

    def with_settings(self, **values: Any) -> Settings:
        """The settings with others by dotted keys, `__` for the dot."""
        changed = self.settings
        for key, value in values.items():
            changed = changed_at(changed, key.split("__"), value)
        return changed


def changed_at(settings: Any, keys: list[str], value: Any) -> Any:
    """The settings, or a section of them, with another value at a key of these parts."""
    if len(keys) > 1:
        value = changed_at(getattr(settings, keys[0]), keys[1:], value)
    return settings.model_copy(update={keys[0]: value})
