"""Finding the pictures that people have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas_core.base.errors import DataError
from nas_core.data.images import IMAGE_SUFFIXES


def find_pictures(places: Sequence[Path]) -> list[Path]:
    """The files among `places`, and the pictures that lie directly in the folders among them.

    Pictures in folders are known by `IMAGE_SUFFIXES`; hidden files are left out.

    Raises:
        DataError: a place does not exist, or a folder has no picture.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(
                path
                for path in place.iterdir()
                if path.suffix.lower() in IMAGE_SUFFIXES
                and path.name[0] != "."
                and not path.is_dir()
            )
            if not inside:
                raise DataError(f"{place}: no picture in this folder ({', '.join(IMAGE_SUFFIXES)})")
            found += inside
        elif place.exists():
            found.append(place)
        else:
            raise DataError(f"{place} does not exist: give files or folders of pictures")
    return found
