"""Images that are nearly equal, as frames of one video or copies of another size or quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 16
_MAX_BITS = 24
"""Of 256 that may differ: a smaller copy stored as JPEG has about 10, the most alike images of two
recordings of CamVid 70."""
_MIN_CONTRAST = 4.0
"""Standard deviation of the greys below which an image is too even to be told from others."""
_ROWS = 2**10


def fingerprint(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64] | None:
    """Whether each of 16x16 places is brighter than the one to its left, uint64 (4,).

    The difference hash (dHash) of https://www.hackerfactor.com/blog/?/archives/529-Kind-of-Like-That.html.
    None where an image (H, W, 3) is too even to tell.
    """
    picture = Image.fromarray(image).convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(picture, np.int16)
    if grey.std() < _MIN_CONTRAST:
        return None
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def near_pairs(
    fingerprints: npt.NDArray[np.uint64], groups: Sequence[str]
) -> list[tuple[int, int]]:
    """Rows of `fingerprints` (N, 4) that are nearly equal and of different groups, in order."""
    of_group = [np.flatnonzero(np.array(groups) == group) for group in dict.fromkeys(groups)]
    found: list[tuple[int, int]] = []
    for number, rows in enumerate(of_group):
        others = np.concatenate([np.empty(0, np.intp), *of_group[number + 1 :]])
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            bits = np.zeros((len(some), len(others)), np.uint16)
            for word in range(fingerprints.shape[1]):
                both = fingerprints[some, None, word] ^ fingerprints[None, others, word]
                bits += np.bitwise_count(both)
            first, second = np.nonzero(bits <= _MAX_BITS)
            found += zip(some[first].tolist(), others[second].tolist(), strict=True)
    return sorted((min(pair), max(pair)) for pair in found)
