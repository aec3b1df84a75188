"""How data sets lie on a disk: the kinds that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nas_core.base.errors import DataError, shown, some_of
from nas_core.base.files import digest_of
from nas_core.config import DatasetKind, DatasetSettings
from nas_core.data import camvid, cityscapes, folder, synthetic
from nas_core.data.description import Places, check_name, description_file
from nas_core.data.listing import SPLITS, Listing

_SHOWN_GROUPS = 8


def list_dataset(dataset: DatasetSettings, root: Path) -> Listing:
    """List and hash the dataset of these settings; nothing is decoded.

    A synthetic one is drawn first, if it is not there.

    Raises:
        DataError: there is no folder, its description cannot be read, or `held_out` names a group
            that the training split lacks, or all that it has.
    """
    listing = _list(dataset, root)
    return hold_out(listing, dataset.held_out) if dataset.held_out else listing


def hold_out(listing: Listing, groups: Sequence[str]) -> Listing:
    """A listing in which these groups of the training split take the place of test.

    Raises:
        DataError: the training split lacks one of them, or has no other.
    """
    known = list(dict.fromkeys(sample.group for sample in listing.of_split("train")))
    for group in groups:
        if group not in known:
            raise DataError(
                f"dataset.held_out: the training split has no group {shown(group)}; it has "
                f"{some_of(known, _SHOWN_GROUPS)}"
            )
    if set(known) == set(groups):
        raise DataError("dataset.held_out: these are all groups of the training split: leave one")
    samples = [
        replace(sample, split="test")
        if sample.split == "train" and sample.group in groups
        else sample
        for sample in listing.samples
        if sample.split != "test"
    ]
    return replace(
        listing,
        samples=tuple(sorted(samples, key=lambda sample: SPLITS.index(sample.split))),
        data_hash=digest_of(listing.data_hash, sorted(groups), length=64),
    )


def _list(dataset: DatasetSettings, root: Path) -> Listing:
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
    if (root / folder.CAMVID_MASKS).is_dir():
        if folder.has_layout(root):
            raise DataError(
                f"{root}: {folder.arrange(root, Places()).layout}, and {folder.CAMVID_MASKS}/ of "
                "CamVid: leave one, or name the kind"
            )
        return "camvid"
    if not root.is_dir():
        raise DataError(f"{root} is no folder")
    if folder.has_layout(root):
        return "folder"
    check_name(root)
    inner = [path for path in root.iterdir() if _has_layout(path)]
    if len(inner) == 1:  # as archives unpack
        raise DataError(f"{root}: no known layout, but {inner[0]} has one: give that folder")
    raise DataError(
        f"{root}: no known layout: expected dataset.yaml with images and masks, or with patterns "
        "for where they lie (docs/your_data.md), leftImg8bit/ and gtFine/ of Cityscapes, or "
        "CamVid's train/ and trainannot/"
    )


def _has_layout(path: Path) -> bool:
    """Whether something can be read there; a folder that may not be looked into has none."""
    try:
        return path.is_dir() and folder.has_layout(path)
    except OSError:
        return False
