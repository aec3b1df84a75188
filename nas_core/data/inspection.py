"""What the files of a dataset hold, and all that is wrong with them."""

from __future__ import annotations

import filecmp
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nas_core.base.errors import DataError
from nas_core.data.fitting import Size
from nas_core.data.images import image_size, read_image
from nas_core.data.listing import Listing, Sample
from nas_core.data.prepared import MIN_TRAIN_IMAGES

_NO_COUNTS = np.zeros(256, np.int64)


@dataclass
class Inspected:
    """What decoding one sample told: its problems, or what its split needs to know of it.

    Attributes:
        label_counts: int64 (256,), pixels of each class number and of the ignored label.
    """

    sample: Sample
    problems: list[str] = field(default_factory=list)
    size: Size | None = None
    pixel_digest: bytes = b""
    label_counts: npt.NDArray[np.int64] = field(default_factory=_NO_COUNTS.copy)


def image_sizes(listing: Listing) -> list[Size | None]:
    """The size of each sample's image as its header has it; None if that cannot be read.

    What cannot be read is a problem that `inspect_sample` tells.
    """

    def size_of(sample: Sample) -> Size | None:
        try:
            return image_size(sample.image, listing.root)
        except DataError:
            return None

    with ThreadPoolExecutor() as threads:
        return list(threads.map(size_of, listing.samples))


def frame_size(listing: Listing, sizes: Iterable[Size | None]) -> Size:
    """The size that costs are told for: that of the largest image.

    Where sizes are not mixed it is that of most images.
    """
    known = Counter(size for size in sizes if size is not None)
    if not known:
        return (1, 1)
    if listing.mixed_sizes:
        return max(known, key=lambda size: (size[0] * size[1], size))
    return known.most_common(1)[0][0]


def inspect_sample(
    listing: Listing, sample: Sample, frame: Size
) -> tuple[Inspected, npt.NDArray[np.uint8] | None, npt.NDArray[np.uint8] | None]:
    """What there is to know of a sample, and its image and mask if they have no problem.

    Args:
        frame: see `frame_size`; where sizes are not mixed, each image must have it.
    """
    inspected = Inspected(sample)
    image = mask = None
    try:
        image = read_image(sample.image, listing.root)
    except DataError as error:
        inspected.problems.append(str(error))
    try:
        mask = listing.read_mask(sample.mask)
    except DataError as error:
        inspected.problems.append(str(error))
    if image is not None:
        height, width = image.shape[:2]
        inspected.size = (height, width)
        # The size belongs to it: two plain images of other shapes may have the same bytes.
        content = hashlib.sha256(f"{height}x{width}".encode())
        content.update(image.tobytes())
        inspected.pixel_digest = content.digest()
        if not listing.mixed_sizes and inspected.size != frame:
            inspected.problems.append(
                f"{listing.relative(sample.image)}: {_extent(image)}; "
                f"most images are {frame[1]}x{frame[0]}"
            )
        if mask is not None and mask.shape != image.shape[:2]:
            inspected.problems.append(
                f"{listing.relative(sample.mask)}: {_extent(mask)}; its image is {_extent(image)}"
            )
        if mask is not None and filecmp.cmp(sample.image, sample.mask, shallow=False):
            inspected.problems.append(
                f"{listing.relative(sample.image)}: the same file as its mask "
                f"{listing.relative(sample.mask)}: put the image there"
            )
    if inspected.problems or image is None or mask is None:
        return inspected, None, None
    inspected.label_counts = np.bincount(mask.ravel(), minlength=256)
    return inspected, image, mask


def all_problems(listing: Listing, inspected: Sequence[Inspected]) -> list[str]:
    """The problems of the listing, of each sample, and of the splits as a whole."""
    found = (
        *listing.problems,
        *(line for one in inspected for line in one.problems),
        *_shared_images(listing, inspected),
        *_unlabelled_splits(listing, inspected),
        *_one_class(listing, inspected),
        *_too_few(listing, inspected),
    )
    return list(dict.fromkeys(found))  # a file that cannot be read is found twice


def _extent(array: npt.NDArray[np.uint8]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _shared_images(listing: Listing, inspected: Iterable[Inspected]) -> list[str]:
    """Images with the same pixels in two splits: a score on one would not be fair."""
    first: dict[bytes, Sample] = {}
    problems = []
    for one in inspected:
        if not one.pixel_digest:
            continue
        sample = one.sample
        earlier = first.setdefault(one.pixel_digest, sample)
        if earlier.split != sample.split:
            problems.append(
                f"{_in_split(listing, sample)}: same image as {_in_split(listing, earlier)}"
            )
    return problems


def _in_split(listing: Listing, sample: Sample) -> str:
    """An image's path, and its split where the path does not say it."""
    path = listing.relative(sample.image)
    return path if sample.split in path.split("/") else f"{path} ({sample.split})"


def _unlabelled_splits(listing: Listing, inspected: Sequence[Inspected]) -> list[str]:
    """Splits without a labelled pixel: nothing could be learned from or measured on them."""
    problems = []
    for split in listing.splits:
        of_split = [one for one in inspected if one.sample.split == split]
        if any(one.problems for one in of_split):
            continue
        if not any(one.label_counts[: len(listing.classes)].any() for one in of_split):
            problems.append(f"{split}: no pixel of any mask has a class, all are ignored")
    return problems


def _one_class(listing: Listing, inspected: Sequence[Inspected]) -> list[str]:
    """Training masks of a single class, as where the label of the other is ignored."""
    train = [one for one in inspected if one.sample.split == "train"]
    labelled = sum((one.label_counts for one in train), _NO_COUNTS)[: len(listing.classes)] > 0
    if any(one.problems for one in train) or labelled.sum() != 1:
        return []
    return [
        f"train: every pixel with a label is {listing.classes[labelled.argmax()]}: nothing can be "
        "learned from one class; see what is ignored"
    ]


def _too_few(listing: Listing, inspected: Sequence[Inspected]) -> list[str]:
    """Too few training images with a label; said only where nothing else explains it."""
    train = [one for one in inspected if one.sample.split == "train"]
    labelled = sum(one.label_counts[: len(listing.classes)].any() for one in train)
    if listing.problems or any(one.problems for one in train) or labelled >= MIN_TRAIN_IMAGES:
        return []
    have = f", {labelled} of them with a labelled pixel" if labelled < len(train) else ""
    return [f"train: {len(train)} images{have}; a search needs {MIN_TRAIN_IMAGES} at least"]
