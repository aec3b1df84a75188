"""What a dataset holds, for people who are about to search on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

from nas_core.base.errors import DataError
from nas_core.config import MetaValSettings, ProxySettings, TileSettings, TrainSettings
from nas_core.data.fitting import Size, fitted
from nas_core.data.images import read_image
from nas_core.data.inspection import (
    all_problems,
    frame_size,
    image_sizes,
    inspect_sample,
)
from nas_core.data.lengths import MOST_PROXY_IMAGES, lengths
from nas_core.data.lettering import Lettering
from nas_core.data.likeness import fingerprint, near_pairs
from nas_core.data.listing import Colour, Listing, Sample
from nas_core.data.listing import report as report_of
from nas_core.data.masks import MaskReader
from nas_core.data.meta_val import MetaVal, choose_meta_val, drawn_rows
from nas_core.data.overlay import overlay
from nas_core.data.prepared import MIN_TRAIN_IMAGES
from nas_core.data.seen import SampleLook, Seen
from nas_core.data.tiling import is_void, tile_name, too_small, windows

_PER_SPLIT = 2
_PANEL = (320, 320)
_LINE = 16
_TEXT = 10
_MIN_SIDE = 32
_NO_PIXELS = np.zeros(256, np.int64)


@dataclass(frozen=True)
class DatasetReport:
    """What a look at every file of a dataset told.

    Attributes:
        counts: images by split.
        tile: what images are to be cut into, if so.
        prepared: images by split as they are prepared: tiles, if they are cut.
        num_void: tiles that are left out.
        num_known: images that were not read, for an earlier check had.
        sizes: images by (height, width).
        frame: height and width of the largest image, or of a tile.
        label_shares: by split, each class's share of the labelled pixels, float64 (C,); NaN
            where no pixel is labelled.
        ignored: by split, the share of ignored pixels; NaN where no mask could be read.
        unlabelled: by split, how many readable masks have no labelled pixel.
        near: images of two splits that are nearly equal.
        palettes: labels that palettes show in several colours, and in which masks.
        meta_val: the images that would score candidates; None where problems say why not.
        problems: all that keeps a search from running on it, one line each.
    """

    listing: Listing
    counts: dict[str, int]
    tile: TileSettings | None
    prepared: dict[str, int]
    num_void: int
    num_known: int
    sizes: Counter[Size]
    frame: Size
    label_shares: dict[str, npt.NDArray[np.float64]]
    ignored: dict[str, float]
    unlabelled: dict[str, int]
    near: list[tuple[Sample, Sample]]
    palettes: list[str]
    meta_val: MetaVal | None
    problems: list[str]


def check_dataset(
    listing: Listing,
    meta_val: MetaValSettings,
    on_done: Callable[[], None] = lambda: None,
    *,
    tile: TileSettings | None = None,
    kept_in: Path | None = None,
) -> DatasetReport:
    """Decode every file of a dataset; nothing is kept but counts.

    Args:
        meta_val: how a search would choose the images that score candidates.
        on_done: called for each sample once it is decoded, from several threads.
        tile: what images are to be cut into.
        kept_in: a file for what was found, see `Seen`: a later check reads only what has changed.

    Raises:
        DataError: a tile does not fit into an image; nothing is decoded then. Or `kept_in` cannot
            be written.
    """
    image_of = image_sizes(listing)
    names = [listing.relative(sample.image) for sample in listing.samples]
    if small := too_small(zip(names, image_of, strict=True), tile):
        raise report_of(listing.root, [*listing.problems, *small])
    frame = frame_size(listing, image_of)
    shown = (tile.size, tile.size) if tile else frame
    proxy = _proxy_size(shown)

    seen_before = None
    if kept_in is not None:
        seen_before = Seen(kept_in, listing, frame, proxy, tile and tile.model_dump())

    def look(sample: Sample) -> SampleLook:
        if seen_before is None:
            return read(sample)
        key = seen_before.key(sample)
        if (known := seen_before.get(key, sample)) is None:
            known = read(sample)
            seen_before.put(key, known)
        else:
            on_done()
        return known

    def read(sample: Sample) -> SampleLook:
        inspected, image, mask = inspect_sample(listing, sample, frame)
        on_done()
        if image is None or mask is None:
            return SampleLook(inspected, None)
        parts = {
            tile_name(sample.name, window) if tile else sample.name: mask[window]
            for window in windows(mask.shape, tile)
        }
        kept = {
            name: part
            for name, part in parts.items()
            if not tile or not is_void(part, listing.ignore_index)
        }
        labelled = (name for name, part in kept.items() if _has_label(listing, part, shown, proxy))
        reader = listing.read_mask
        palette = reader.colours_of_labels(sample.mask) if isinstance(reader, MaskReader) else {}
        return SampleLook(
            inspected, fingerprint(image), (*kept,), (*labelled,), len(parts) - len(kept), palette
        )

    with ThreadPoolExecutor() as threads:
        looks = list(threads.map(look, listing.samples))
    if seen_before is not None:
        seen_before.save()
    inspected = [one.inspected for one in looks]
    prepared = dict.fromkeys(listing.splits, 0)
    for one in looks:
        prepared[one.inspected.sample.split] += len(one.names)
    problems = all_problems(listing, inspected)
    chosen = None
    if not problems:
        problems += [
            f"{split}: no tile is left, all are nearly void"
            for split, number in prepared.items()
            if not number
        ]
        seen = [
            (name, one.inspected.sample.group)
            for one in looks
            if one.inspected.sample.split == "train"
            for name in one.labelled
        ]
        problems += _too_few_for_proxy(prepared.get("train", 0), len(seen), proxy)
        if not problems:
            if tile:
                meta_val = meta_val.model_copy(update={"by": "groups"})
            rows = drawn_rows(np.arange(len(seen)), MOST_PROXY_IMAGES, meta_val)
            used, groups = ([*of] for of in zip(*(seen[row] for row in rows), strict=True))
            chosen = choose_meta_val(used, groups, meta_val)
    sizes = Counter(one.size for one in inspected if one.size is not None)
    shares, ignored, unlabelled = {}, {}, {}
    for split in listing.splits:
        counts = [one.label_counts for one in inspected if one.sample.split == split]
        shares[split], ignored[split] = _shares(sum(counts, _NO_PIXELS), len(listing.classes))
        unlabelled[split] = sum(
            bool(count.any()) and not count[: len(listing.classes)].any() for count in counts
        )
    return DatasetReport(
        listing=listing,
        counts={split: len(listing.of_split(split)) for split in listing.splits},
        tile=tile,
        prepared=prepared,
        num_void=sum(one.num_void for one in looks),
        num_known=seen_before.num_used if seen_before else 0,
        sizes=sizes,
        frame=shown,
        label_shares=shares,
        ignored=ignored,
        unlabelled=unlabelled,
        near=_near(looks),
        palettes=_palettes(listing, looks),
        meta_val=chosen,
        problems=problems,
    )


def _near(looks: Sequence[SampleLook]) -> list[tuple[Sample, Sample]]:
    """Nearly equal images of two splits, without those that are equal, which is a problem."""
    seen = [(one.inspected, one.fingerprint) for one in looks if one.fingerprint is not None]
    if not seen:
        return []
    pairs = near_pairs(
        np.stack([hashed for _, hashed in seen]), [one.sample.split for one, _ in seen]
    )
    return [
        (seen[first][0].sample, seen[second][0].sample)
        for first, second in pairs
        if seen[first][0].pixel_digest != seen[second][0].pixel_digest
    ]


def _palettes(listing: Listing, looks: Sequence[SampleLook]) -> list[str]:
    """Labels that palettes show in two colours: programs may number them as they like."""
    first: dict[int, tuple[Colour, Sample]] = {}
    found: dict[int, str] = {}
    for one in looks:
        for label, colour in one.palette.items():
            its, earlier = first.setdefault(label, (colour, one.inspected.sample))
            if its != colour and label not in found:
                found[label] = (
                    f"label {label} is {list(its)} in {listing.relative(earlier.mask)} and "
                    f"{list(colour)} in {listing.relative(one.inspected.sample.mask)}"
                )
    return [found[label] for label in sorted(found)]


def sample_picture(listing: Listing) -> Image.Image | None:
    """Up to two samples of each split, the image beside its overlay, and the classes' colours.

    Samples that cannot be read are left out; None if no other is there.
    """
    palette = np.array(listing.palette, np.uint8)
    rows = []
    for split in listing.splits:
        samples = listing.of_split(split)
        for index in np.unique(np.linspace(0, len(samples) - 1, _PER_SPLIT).astype(int)):
            sample = samples[index]
            try:
                image, mask = read_image(sample.image, listing.root), listing.read_mask(sample.mask)
            except DataError:
                continue  # the report names it
            if mask.shape == image.shape[:2]:
                panels = (Image.fromarray(image), overlay(image, mask, palette))
                rows.append((f"{split}: {sample.name}", panels))
    if not rows:
        return None
    return _drawn(listing, rows)


def profile_values(report: DatasetReport, name: str, path: str, kind: str) -> dict[str, Any]:
    """What a profile for this dataset changes in params.yaml: place, sizes and lengths.

    The report has no problem. Trainings have about as many steps as on CamVid, see `lengths`.
    The proxy's images have the dataset's aspect ratio and about as many pixels as the default's; a
    training crop covers up to four fifths of an image, and about as many pixels as the default at
    most.
    """
    for_training = TrainSettings()
    proxy = _proxy_size(report.frame)
    crop = _scaled(report.frame, for_training.crop_height * for_training.crop_width, 0.8)
    if report.meta_val is None:
        raise ValueError("a profile for a dataset with problems")
    steps = lengths(report.prepared["train"], len(report.meta_val.train))
    tile = {"tile": report.tile.model_dump()} if report.tile else {}
    return {
        "name": name,
        "dataset": {"kind": kind, "path": path} | tile,
        "search": {"proxy": {"height": proxy[0], "width": proxy[1], **steps["proxy"]}},
        "train": {**steps["train"], "crop_height": crop[0], "crop_width": crop[1]},
    }


def _proxy_size(frame: Size) -> Size:
    default = ProxySettings()
    return _scaled(frame, default.height * default.width, 1.0)


def _has_label(listing: Listing, mask: npt.NDArray[np.uint8], frame: Size, size: Size) -> bool:
    """Whether a mask has a labelled pixel once it is scaled for the proxy, as by `resized`."""
    rows, columns = (
        # The nearest pixels, as torchvision's NEAREST_EXACT takes them.
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for old, new in zip(mask.shape, fitted(mask.shape, frame, size), strict=True)
    )
    return bool((mask[rows][:, columns] != listing.ignore_index).any())


def _too_few_for_proxy(number: int, labelled: int, size: Size) -> list[str]:
    if labelled >= MIN_TRAIN_IMAGES:
        return []
    return [
        f"train: {labelled} of {number} images have a labelled pixel once "
        f"they are scaled to the proxy's {size[1]}x{size[0]}; a search needs {MIN_TRAIN_IMAGES} "
        "at least: label larger areas"
    ]


def _scaled(size: Size, max_pixels: int, max_share: float) -> Size:
    """A size of the same aspect ratio, a multiple of 8, within these limits."""
    height, width = size
    factor: float = min(max_share, (max_pixels / (height * width)) ** 0.5)

    def side(length: int, most: int) -> int:
        return min(most, max(_MIN_SIDE, round(length * factor / 8) * 8))

    return side(height, 2048), side(width, 4096)


def _shares(
    counts: npt.NDArray[np.int64], num_classes: int
) -> tuple[npt.NDArray[np.float64], float]:
    """Each class's share of the labelled pixels, and the ignored share; NaN where none is."""
    labelled = counts[:num_classes]
    with np.errstate(invalid="ignore"):
        return labelled / labelled.sum(), float(1 - labelled.sum() / counts.sum())


def _drawn(
    listing: Listing, rows: list[tuple[str, tuple[Image.Image, Image.Image]]]
) -> Image.Image:
    width = 2 * _PANEL[0]
    letters = Lettering(listing.classes, (title for title, _ in rows))
    font = letters.pillow(_TEXT)
    scaled = [
        (title, [ImageOps.contain(panel, _PANEL) for panel in panels]) for title, panels in rows
    ]
    height = sum(_LINE + panels[0].height for _, panels in scaled)
    picture = Image.new("RGB", (width, height + _LINE * (len(listing.classes) + 1)), "white")
    draw = ImageDraw.Draw(picture)
    top = 0
    for title, panels in scaled:
        draw.text((4, top + 2), letters.title(title), "black", font)
        top += _LINE
        for number, panel in enumerate(panels):
            picture.paste(panel, (number * _PANEL[0], top))
        top += panels[0].height
    for name, colour in zip(letters.class_names, listing.palette, strict=True):
        top += _LINE
        draw.rectangle((4, top - 12, 28, top), fill=colour, outline="black")
        draw.text((36, top - 13), name, "black", font)
    return picture
