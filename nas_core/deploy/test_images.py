"""Whether pictures are of a test split: then their scores are a look at test."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas_core.base.errors import DataError
from nas_core.base.paths import artifacts_folder
from nas_core.data.images import read_image
from nas_core.data.prepared import PreparedData, Split
from nas_core.models.checkpoint import NetworkCard
from nas_core.training.looks import Look, count_looks, note_look


def note_scored(
    root: Path, pictures: Sequence[Path], card: NetworkCard, model: str, mean_iou: float
) -> list[str]:
    """Note that pictures were scored as a look at test, if one is of a test split prepared here.

    A picture is, if an image of the split has its name and its pixels.

    Args:
        card: of the network that was scored.
        model: what the command called it.

    Returns:
        A line for each data set that they are of.
    """
    lines = []
    for folder in sorted((artifacts_folder(root) / "prepared").glob("*/")):
        try:
            data = PreparedData.open(folder)
        except DataError:
            continue  # another version's, or being made
        if "test" not in data.splits or not _has_one_of(data.split("test"), pictures):
            continue
        look = Look(
            time=time.time(),
            architecture=card.genotype.id,
            data_hash=data.data_hash,
            data=folder.name,
            model=model,
            mean_iou=mean_iou,
        )
        note_look(root, look)
        number = count_looks(root, look.architecture, look.data_hash)
        lines.append(
            f"the pictures are of the test split of {folder.name}: look {number} at it with "
            f"architecture {look.architecture}"
        )
    return lines


def _has_one_of(split: Split, pictures: Sequence[Path]) -> bool:
    for path in pictures:
        # The name of a sample has the folders that it lies in before it.
        rows = [row for row, name in enumerate(split.names) if name.endswith(path.stem)]
        if not rows:
            continue
        try:
            image = read_image(path, upright=True)
        except DataError:
            continue
        height, width = image.shape[:2]
        if any(np.array_equal(split.images[row][:height, :width], image) for row in rows):
            return True
    return False
