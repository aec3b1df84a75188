"""The layout that patterns in dataset.yaml describe."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from nas_core.base.errors import some_of
from nas_core.data.arrangement import Arrangement, Pair
from nas_core.data.description import DESCRIPTION, Places
from nas_core.data.folders import with_lists
from nas_core.data.listing import list_files
from nas_core.data.patterns import SECONDS_A_NAME, Found, Patterns, split_suffix


def by_patterns(root: Path, places: Places) -> Arrangement | None:
    """Images and masks as the patterns `images` and `masks` say."""
    if places.images is None or places.masks is None:
        return None
    patterns = Patterns(places.images, places.masks, places.group)
    files = dict(list_files(root))
    layout = f"patterns in {DESCRIPTION}: {places.images} with {places.masks}"
    try:
        found = {name: one for name in files if (one := patterns.match(name)) is not None}
    except TimeoutError:
        problem = f"images takes more than {SECONDS_A_NAME:.0f} s for a name: use fewer stars"
        return Arrangement(layout, "", (), (f"{DESCRIPTION}: {problem}",))
    found = _with_masks_there(found, files)
    problems = _problems(places.images, found, files)
    masks = {one.mask for name, one in found.items() if one.mask != name}
    pairs = [
        Pair(name.removesuffix(path.suffix), name, path, files[one.mask], one.split, one.group)
        for name, path in files.items()
        if (one := found.get(name)) is not None
        and name not in masks
        and one.mask in files
        and one.mask != name
    ]
    pairs.sort(key=lambda pair: pair.name)
    if "{split}" in places.images:
        return Arrangement(layout, "", tuple(pairs), tuple(problems))
    return with_lists(root, layout, "", pairs, problems, places)


def _with_masks_there(found: dict[str, Found], files: Collection[str]) -> dict[str, Found]:
    """The same with masks as their files are called, whose suffix may have other letters' case."""

    def alike(name: str) -> str:
        start, suffix = split_suffix(name)
        return start + suffix.lower()

    there = {alike(name): name for name in files} | {name: name for name in files}
    return {
        name: replace(one, mask=there.get(one.mask, there.get(alike(one.mask), one.mask)))
        for name, one in found.items()
    }


def _problems(pattern: str, found: dict[str, Found], files: dict[str, Path]) -> list[str]:
    """Nothing that is an image, images without a mask, and masks of several images."""
    if not found:
        some = some_of(files, 3) or "no file"
        return [f"{DESCRIPTION}: images: {pattern} is no file's path; there are {some}"]
    problems = []
    first: dict[str, str] = {}
    masks = {one.mask for name, one in found.items() if one.mask != name}
    for name, one in found.items():
        if name in masks:
            continue
        if one.mask == name:
            problems.append(f"{name}: masks in {DESCRIPTION} names the image itself")
        elif one.mask not in files:
            problems.append(f"{name}: no mask {one.mask}")
        elif (other := first.setdefault(one.mask, name)) != name:
            problems.append(f"{name}: {one.mask} is the mask of {other} too")
    return problems
