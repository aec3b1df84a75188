"""The images that a network is quantised with and checked on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas_core.base.errors import DataError, SettingsError
from nas_core.base.paths import artifacts_folder
from nas_core.data.picture_files import find_pictures
from nas_core.data.prepared import PreparedData
from nas_core.deploy.export import read_picture
from nas_core.deploy.int8 import Pictures, evenly
from nas_core.deploy.predict import mask_reader
from nas_core.models.checkpoint import NetworkCard

NUM_CALIBRATION = 24
NUM_CHECKED = 100
"""At most as many are taken, evenly spread."""


def prepared_data(root: Path | None, card: NetworkCard) -> PreparedData:
    """The data set of the network's classes that a project has prepared.

    Raises:
        SettingsError: there is none, or several.
    """
    found = []
    for folder in sorted((artifacts_folder(root) / "prepared").glob("*/")) if root else ():
        try:
            data = PreparedData.open(folder)
        except DataError:
            continue  # another version's, or being made
        if data.classes == card.classes:
            found.append(data)
    if len(found) == 1:
        return found[0]
    what = (
        f"{' and '.join(data.folder.name for data in found)} are prepared here"
        if found
        else "no data set of the network's classes is prepared here"
    )
    raise SettingsError(
        f"{what}; to calibrate, give a folder of images such as the network was trained on"
    )


def calibration_images(
    places: Sequence[Path], root: Path | None, card: NetworkCard
) -> list[npt.NDArray[np.uint8]]:
    """Up to NUM_CALIBRATION images of files and folders, or of a prepared training split.

    Raises:
        DataError: a place does not exist or has no image, or one cannot be read.
        SettingsError: no place is given, and none is known.
    """
    if places:
        paths = find_pictures(places)
        return [read_picture(paths[row]) for row in evenly(len(paths), NUM_CALIBRATION)]
    train = prepared_data(root, card).split("train")
    return [np.array(train.images[row]) for row in evenly(len(train), NUM_CALIBRATION)]


def checked_pictures(
    images: Sequence[Path], masks: Path | None, root: Path | None, card: NetworkCard
) -> Pictures | None:
    """Up to NUM_CHECKED images, with their true classes from `masks`; see `predict_files`.

    Without images they are those of a prepared val split. None if there is none of it either.

    Raises:
        DataError: an image or a mask is missing or cannot be read, or their sizes differ.
    """
    if images:
        paths = find_pictures(images)
        paths = [paths[row] for row in evenly(len(paths), NUM_CHECKED)]
        if masks is None:
            return Pictures([read_picture(path) for path in paths])
        read = mask_reader(masks, card.classes)
        truth = [read(path) for path in paths]
        if all((mask >= len(card.classes)).all() for mask in truth):
            raise DataError(f"{masks}: no pixel of any mask has a class; check the masks")
        pictures = Pictures([read_picture(path) for path in paths], truth)
        for path, image, mask in zip(paths, pictures.images, truth, strict=True):
            if image.shape[:2] != mask.shape:
                raise DataError(
                    f"{path}: {image.shape[1]}x{image.shape[0]}; its mask in {masks} is "
                    f"{mask.shape[1]}x{mask.shape[0]}"
                )
        return pictures
    try:
        data = prepared_data(root, card)
    except SettingsError:
        return None
    val = data.split("val")
    rows = list(evenly(len(val), NUM_CHECKED))
    unlabelled = len(card.classes)
    truth = [np.array(val.masks[row]) for row in rows]
    for mask in truth:
        mask[mask == data.ignore_index] = unlabelled
    return Pictures([np.array(val.images[row]) for row in rows], truth)
