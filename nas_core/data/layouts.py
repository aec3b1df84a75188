"""How data sets lie on a disk: the kinds that there are."""

from __future__ import annotations

from pathlib import Path

from nas_core.base.errors import DataError
from nas_core.config import DatasetKind, DatasetSettings
from nas_core.data import camvid, cityscapes, folder, synthetic
from nas_core.data.description import check_name, description_file
from nas_core.data.listing import Listing


def list_dataset(dataset: DatasetSettings, root: Path) -> Listing:
    """List and hash the dataset of these settings; nothing is decoded.

    A synthetic one is drawn first, if it is not there.

    Raises:
        DataError: there is no folder, or its description cannot be read.
    """
    source = root / dataset.path
    try:
        match dataset.kind:
            case "camvid":
                return camvid.list_dataset(source)
            case "cityscapes":
                return cityscapes.list_dataset(source)
            case "folder":
                return folder.list_dataset(source)
            case "synthetic":
                synthetic.draw_dataset(source, dataset.synthetic)
                return camvid.list_dataset(source)  # the layout that it is drawn in
    except OSError as error:
        raise DataError(f"{error.filename or source}: cannot be read: {error.strerror}") from None


def find_kind(root: Path) -> DatasetKind:
    """The dataset.kind of a folder, by its layout.

    Raises:
        DataError: it has none of the layouts.
    """
    if (root / "leftImg8bit").is_dir() or (root / "gtFine").is_dir():
        return "cityscapes"
    if description_file(root) is not None:
        return "folder"
    if (root / "trainannot").is_dir():
        return "camvid"
    if not root.is_dir():
        raise DataError(f"{root} is no folder")
    if folder.has_layout(root):
        return "folder"
    check_name(root)
    raise DataError(
        f"{root}: no known layout: expected dataset.yaml with images and masks, or with patterns "
        "for where they lie (docs/your_data.md), leftImg8bit/ and gtFine/ of Cityscapes, or "
        "CamVid's train/ and trainannot/"
    )
