from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEIGHT, WIDTH = 6, 8
COUNTS = {"train": 3, "val": 2, "test": 2}


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[[], Path]:
    """Writes a tiny dataset in CamVid's layout, with nothing wrong in it, to tmp_path/data."""

    def make() -> Path:
        root = tmp_path / "data"
        rng = np.random.default_rng(0)
        for split, count in COUNTS.items():
            for folder in (root / split, root / f"{split}annot"):
                folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
                labels = rng.integers(0, 12, (HEIGHT, WIDTH), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / f"{split}_{index}.png")
                Image.fromarray(labels).save(root / f"{split}annot" / f"{split}_{index}.png")
        return root

    return make
