"""How images of many sizes are shown at one size, as the proxy wants them."""

from __future__ import annotations

from collections.abc import Sequence

Size = tuple[int, int]
"""Height and width in pixels."""


def fitted(size: Sequence[int], frame: Size, target: Size) -> Size:
    """The size at which an image is shown in `target`, which an image of size `frame` fills.

    It is as large as there is room for, and stretched only as the frame is.
    """
    factor = min(frame[0] / size[0], frame[1] / size[1])
    height, width = (
        min(most, max(1, round(old * factor * most / whole)))
        for old, whole, most in zip(size, frame, target, strict=True)
    )
    return height, width
