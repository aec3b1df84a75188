"""A small dataset of drawn street scenes in CamVid's layout, classes and proportions.

It makes a whole search possible without any download. Shapes, textures and light vary so that a
small network learns most of it in a minute and never all of it. The same settings give the same
bytes: each scene has a random generator of its own, seeded by split and number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nas_core.base.errors import DataError
from nas_core.base.files import read_json, replacing, write_json
from nas_core.base.locks import exclusive
from nas_core.config import SyntheticSettings
from nas_core.data.listing import SPLITS
from nas_core.data.street_scene import draw_scene

_RECORD = "synthetic.json"
_VERSION = 1
"""Part of the record: raise it when the drawing changes, and old datasets are drawn again."""


def draw_dataset(folder: Path, settings: SyntheticSettings) -> None:
    """Draw the dataset into `folder`, unless it is there already with the same settings.

    Raises:
        DataError: `folder` holds something else, or cannot be written.
    """
    record = {"version": _VERSION, **settings.model_dump()}
    try:
        with exclusive(folder):
            if _recorded(folder) == record:
                return
            if folder.exists() and not (folder / _RECORD).exists() and any(folder.iterdir()):
                raise DataError(
                    f"{folder} holds files that are no synthetic dataset, which would be lost: "
                    "set dataset.path to another folder, or dataset.kind to camvid to use them"
                )
            with replacing(folder) as new:
                _draw_all(new, settings)
                write_json(new / _RECORD, record)
    except OSError as error:
        raise DataError(f"{folder}: the dataset cannot be drawn there: {error}") from error


def _recorded(folder: Path) -> object:
    try:
        return read_json(folder / _RECORD)
    except (FileNotFoundError, ValueError):
        return None


def _draw_all(folder: Path, settings: SyntheticSettings) -> None:
    counts = (settings.num_train, settings.num_val, settings.num_test)
    for number, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
        images, masks = folder / split, folder / f"{split}annot"
        images.mkdir()
        masks.mkdir()
        for index in range(count):
            rng = np.random.default_rng((number, index))
            image, mask = draw_scene(settings.height, settings.width, rng)
            image.save(images / f"{split}_{index:04}.png")
            mask.save(masks / f"{split}_{index:04}.png")
