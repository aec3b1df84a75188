from __future__ import annotations

import io

import numpy as np
from PIL import Image

from nas_core.data.likeness import fingerprint, near_pairs

RNG = np.random.default_rng(0)


def scene(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)


def test_copies_are_near_and_other_scenes_are_not() -> None:
    file = io.BytesIO()
    scene(0).resize((160, 120)).save(file, "JPEG", quality=50)
    pictures = [scene(0), Image.open(file), *(scene(seed) for seed in range(1, 20))]
    prints = [fingerprint(np.array(picture)) for picture in pictures]
    rows = np.stack([one for one in prints if one is not None])
    assert rows.shape == (21, 4)
    assert near_pairs(rows, ["train", "val"] + ["train", "val", "test"] * 6 + ["val"]) == [(0, 1)]
    assert near_pairs(rows, ["train"] * 21) == []


def test_even_images_are_not_told_apart() -> None:
    assert fingerprint(np.full((30, 40, 3), 90, np.uint8)) is None


def test_ten_thousand_images_take_seconds() -> None:
    rows = RNG.integers(0, 2**63, (10_000, 4)).astype(np.uint64)
    rows[9000] = rows[17]
    groups = ["train"] * 8000 + ["val"] * 2000
    assert near_pairs(rows, groups) == [(17, 9000)]
