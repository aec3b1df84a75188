"""A data set of images, label masks and dataset.yaml from what an annotation tool says."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, count, dropwhile
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from nas_core.base.errors import DataError, RunError
from nas_core.base.files import check_writable, read_limited, resolved
from nas_core.data.containers import MAX_BYTES, PNG
from nas_core.data.description import DESCRIPTION, seen_name
from nas_core.data.fitting import Size
from nas_core.data.images import IMAGE_SUFFIXES, decode_image
from nas_core.data.importing import Format, Unlabelled
from nas_core.data.importing.coco import read_coco
from nas_core.data.importing.labelme import read_labelme
from nas_core.data.importing.plan import Findings, Picture, Plan, Shape, split_of
from nas_core.data.importing.shapes import ShapeError
from nas_core.data.labels import IGNORED, MAX_CLASSES
from nas_core.data.listing import SPLIT_NAMES, report

SHARES = {"val": 0.15, "test": 0.15}
"""Of the images, where the source does not divide them."""

# What tools call the pixels without a shape.
_BACKGROUNDS = ("background", "_background_", "__background__")


@dataclass(frozen=True)
class Drawn:
    """A picture whose mask was drawn.

    Attributes:
        mask: the content of its PNG; None if it is left out.
        suffix: that of the image's file in the data set.
        recoded: whether the image is stored as PNG, since its own format is not read there.
    """

    picture: Picture
    mask: bytes | None = None
    suffix: str = ".png"
    recoded: bool = False
    problems: Findings = field(default_factory=Findings)
    left_out: Findings = field(default_factory=Findings)


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes:
        counts: images by split; of all as `None` if dataset.yaml divides them by shares.
        left_out: what is not in the data set, and what is not seen in it: a line for each kind.
    """

    classes: tuple[str, ...]
    counts: dict[str | None, int]
    left_out: list[str]
    notes: list[str]


def check_target(out: Path) -> None:
    """Raise a DataError unless `out` can be made: it must not be there, or be an empty folder."""
    try:
        out.lstat()
    except ValueError:  # a NUL, or what no file system can write
        raise DataError(f"{out}: no name of a folder") from None
    except OSError:
        pass  # it is to be made
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out} exists: nothing is overwritten, name another folder")
    check_writable(out.parent, "name another folder for the data set")


def read_plan(source: Path, form: Format) -> Plan:
    """What a file or folder of an annotation tool says, see `read_coco` and `read_labelme`."""
    return read_coco(source) if form == "coco" else read_labelme(source)


def import_dataset(
    plan: Plan,
    out: Path,
    *,
    unlabelled: Unlabelled,
    skip_bad_shapes: bool,
    copy: bool,
    advance: Callable[[], None],
) -> Imported:
    """Draw the masks and write a data set of the kind folder.

    A later shape lies above an earlier one, crowd regions lie below all.

    Args:
        out: the folder to make, see `check_target`.
        unlabelled: what pixels without a shape are.
        skip_bad_shapes: leave out shapes that cannot be drawn, which are problems otherwise.
        copy: copy the images; else they are hard links, where the disk has them.
        advance: is called twice for each picture: when its mask is drawn and when it is written.

    Raises:
        DataError: with all problems of the source; then nothing was written.
        RunError: the disk does not take it; then nothing is left there.
    """
    problems, left_out = Findings(), Findings()
    problems.update(plan.problems)
    left_out.update(plan.left_out)
    if not plan.pictures:
        if not problems:
            problems.add("it names no image")
        raise report(plan.root, problems.lines())
    classes = _classes(plan.categories, unlabelled)
    if not 2 <= len(classes) <= MAX_CLASSES:
        problems.add(f"number of classes: {len(classes)}, expected 2 to {MAX_CLASSES}")
    numbers = {name: number for number, name in enumerate(classes)}
    beneath = 0 if unlabelled == "background" else IGNORED

    def draw(picture: Picture) -> Drawn:
        drawn = _draw(picture, numbers, beneath, skip_bad_shapes)
        advance()
        return drawn

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        drawings = list(threads.map(draw, plan.pictures))
    for drawn in drawings:
        problems.update(drawn.problems)
        left_out.update(drawn.left_out)
    kept = [drawn for drawn in drawings if drawn.mask]
    if not problems and not any(drawn.picture.shapes for drawn in kept):
        problems.add("; ".join(["nothing that can be drawn", *left_out.counts()]))
    if problems:
        raise report(plan.root, problems.lines())
    splits, notes = _splits(kept)
    num_copied = _write(out, kept, splits, classes, copy, advance)
    if num_copied and not copy:
        notes.append(f"{num_copied} images are copies: their disk has no hard links to this place")
    return Imported(classes, dict(Counter(splits)), left_out.counts(), [*plan.notes, *notes])


def _classes(categories: Sequence[str], unlabelled: Unlabelled) -> tuple[str, ...]:
    if unlabelled == "ignore":
        return tuple(categories)
    alike = (name for name in categories if seen_name(name).casefold() in _BACKGROUNDS)
    first = next(alike, "background")
    return (first, *(name for name in categories if name != first))


def _draw(
    picture: Picture, numbers: Mapping[str, int], beneath: int, skip_bad_shapes: bool
) -> Drawn:
    problems, left_out = Findings(), Findings()
    drawn = Drawn(picture, problems=problems, left_out=left_out)
    try:
        content = _content(picture)
        height, width = decode_image(content, picture.name).shape[:2]
    except DataError as error:
        problems.add(str(error))
        return drawn
    if picture.size not in (None, (height, width)):
        said = f"{picture.size[1]}x{picture.size[0]}" if picture.size else ""
        problems.add(
            "images of another size than their annotations say",
            f"{picture.name} is {width}x{height}, not {said}",
        )
        return drawn
    bad_shapes = left_out if skip_bad_shapes else problems
    mask = _mask(picture.shapes, (height, width), numbers, beneath, bad_shapes, left_out)
    if (mask == IGNORED).all():
        left_out.add("images without a pixel of a class", picture.name)
        return drawn
    if not picture.shapes:
        left_out.add("images without a shape, which are all background", picture.name)
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    suffix, recoded = Path(picture.name).suffix, False
    if suffix.lower() not in IMAGE_SUFFIXES or callable(picture.source):
        suffix = ".jpg" if content.startswith(b"\xff\xd8") else ".png"
        recoded = suffix == ".png" and not content.startswith(PNG)
    return replace(drawn, mask=buffer.getvalue(), suffix=suffix, recoded=recoded)


def _content(picture: Picture) -> bytes:
    if callable(picture.source):
        return picture.source()
    try:
        return read_limited(picture.source, MAX_BYTES)
    except OSError as error:
        raise DataError(f"{picture.name}: cannot be read: {error.strerror}") from None


def _mask(
    shapes: Sequence[Shape],
    size: Size,
    numbers: Mapping[str, int],
    beneath: int,
    bad_shapes: Findings,
    left_out: Findings,
) -> npt.NDArray[np.uint8]:
    """Class numbers, uint8 (H, W), of what lies above; `beneath` where no shape is."""
    ordered = sorted(shapes, key=lambda shape: not shape.below)
    owners = np.zeros(size, np.int32)
    seen = []
    for owner, shape in enumerate(ordered, 1):
        try:
            region = shape.draw(size)
        except ShapeError as error:
            bad_shapes.add(str(error), shape.name)
            continue
        if not region.pixels.any():
            left_out.add("shapes smaller than a pixel", shape.name)
            continue
        owners[region.window][region.pixels] = owner
        seen.append(owner)
    for owner in set(seen).difference(np.unique(owners).tolist()):
        left_out.add("shapes that lie below others", ordered[owner - 1].name)
    values = [IGNORED if one.category is None else numbers[one.category] for one in ordered]
    return np.array([beneath, *values]).astype(np.uint8)[owners]  # too many are a problem already


def _splits(kept: Sequence[Drawn]) -> tuple[list[str | None], list[str]]:
    """The split of each picture, where the source divides them, and what is to be said of it."""
    splits = [drawn.picture.split for drawn in kept]
    if None in splits or "val" in splits:
        return splits, []

    def order(place: int) -> str:
        name = kept[place].picture.name
        return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()

    train = sorted((place for place, its in enumerate(splits) if its == "train"), key=order)
    for place in train[: max(1, round(SHARES["val"] * len(train)))]:
        splits[place] = "val"
    return splits, [f"there was no val: it is {SHARES['val']:.0%} of train"]


def _write(
    out: Path,
    kept: Sequence[Drawn],
    splits: Sequence[str | None],
    classes: Sequence[str],
    copy: bool,
    advance: Callable[[], None],
) -> int:
    """Make the folder, whole or not at all; how many images were copied."""
    description = [
        "# Written by nas data import.",
        "classes:",
        *(f"- '{name}'" for name in classes),  # which have no quotes
        f"ignore_labels: [{IGNORED}]",
    ]
    if None in splits:
        description += [f"split: {{val: {SHARES['val']}, test: {SHARES['test']}}}"]
    num_copied = 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=out.parent) as folder:
            new = Path(folder, "new")
            stems = _stems(kept, splits)
            for drawn, split, stem in zip(kept, splits, stems, strict=True):
                image = new / (split or "") / "images" / f"{stem}{drawn.suffix}"
                mask = new / (split or "") / "masks" / f"{stem}.png"
                for path in (image, mask):
                    path.parent.mkdir(parents=True, exist_ok=True)
                mask.write_bytes(drawn.mask or b"")
                num_copied += _store(drawn, image, copy)
                advance()
            (new / DESCRIPTION).write_text("\n".join(description) + "\n", encoding="utf-8")
            new.rename(out)  # takes the place of an empty folder alone
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror}") from None
    return num_copied


def _stems(kept: Sequence[Drawn], splits: Sequence[str | None]) -> list[str]:
    """What images and masks are called, without suffix: the path of the image, but for the folders
    of images and splits where it is another's without them."""
    taken: set[tuple[str | None, str]] = set()
    stems = []
    for drawn, split in zip(kept, splits, strict=True):
        *folders, name = map(_visible, PurePosixPath(drawn.picture.name).parts)
        if split is None:  # a folder of that name would be read as one of a split
            folders = [f"{x}_" if x.lower() in SPLIT_NAMES else x for x in folders]
        suffix = PurePosixPath(name).suffix
        if not callable(drawn.picture.source):  # else it is the name of the annotations
            name = name.removesuffix(suffix)
        long = "/".join([*folders, name])
        short = "/".join([*dropwhile(partial(_is_usual, split), folders), name])
        numbered = (f"{long}_{suffix[1:]}{number or ''}" for number in count())
        stem = next(x for x in chain((short, long), numbered) if (split, x) not in taken)
        taken.add((split, stem))
        stems.append(stem)
    return stems


def _is_usual(split: str | None, folder: str) -> bool:
    return folder == "images" or (split is not None and split_of(folder) is not None)


def _visible(part: str) -> str:
    """A part of a path that no program hides, composes in two ways or cannot show."""
    shown = "".join(x if x.isprintable() else "_" for x in unicodedata.normalize("NFC", part))
    return re.sub(r"^\.", "_", shown)


def _store(drawn: Drawn, path: Path, copy: bool) -> bool:
    """Write an image; whether its file was copied."""
    picture = drawn.picture
    if drawn.recoded:
        Image.fromarray(decode_image(_content(picture), picture.name)).save(path)
    elif callable(picture.source):
        path.write_bytes(picture.source())
    else:
        if not copy:
            with suppress(OSError):  # another disk, or a kind of disk that has no links
                os.link(resolved(picture.source), path)
                return False
        shutil.copyfile(picture.source, path)
        return True
    return False
