"""Writing names of any language into pictures, with the fonts that are installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.font_manager import FontProperties, findSystemFonts
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

_DEJAVU = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
# What Pillow's own font has, which is less than Latin-1.
_PLAIN = frozenset(map(chr, range(0x20, 0x7F))) | {"·", "…"}


class Lettering:
    """The font for a picture with names of classes, and of images in its titles.

    Where no font has all characters, classes go by their numbers, and titles have escapes.
    """

    def __init__(self, classes: Sequence[str], titles: Iterable[str] = ()) -> None:
        names = frozenset().union(*classes)
        all_texts = names.union(*titles)
        self._plain = all_texts <= _PLAIN
        self.path = _font_with(all_texts) or _font_with(names) or _DEJAVU
        self._has = _PLAIN if self._plain else _characters(self.path)
        drawable = all(char in self._has for char in names if not char.isspace())
        self.class_names = (
            list(classes) if drawable else [f"class {number}" for number in range(len(classes))]
        )
        self.note = "" if drawable else _note(classes)
        """What to tell people where class names are not in the picture; empty where they are."""

    def title(self, text: str) -> str:
        return "".join(
            char if char in self._has else char.encode("unicode_escape").decode() for char in text
        )

    def pillow(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        """For Pillow, `size` pixels high."""
        return ImageFont.load_default(size) if self._plain else ImageFont.truetype(self.path, size)

    def matplotlib(self, size: float) -> FontProperties:
        """For Matplotlib, `size` points high."""
        return FontProperties(fname=None if self._plain else self.path, size=size)


def _note(classes: Sequence[str]) -> str:
    legend = ", ".join(f"class {number} is {name}" for number, name in enumerate(classes))
    return (
        "no installed font has all characters of the class names, so pictures show numbers "
        f"({legend}); install one, as Debian's fonts-noto-cjk for Chinese, Japanese and Korean"
    )


@lru_cache(maxsize=8)
def _font_with(characters: frozenset[str]) -> Path | None:
    """The first font that has these characters, DejaVu's before those of the system."""
    wanted = frozenset(char for char in characters if not char.isspace())
    for path in (_DEJAVU, *map(Path, sorted(findSystemFonts()))):
        # Unicode's Last Resort font has a box for every character.
        if "lastresort" not in path.name.lower() and wanted <= _characters(path):
            return path
    return None


@lru_cache(maxsize=8)
def _characters(path: Path) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(str(path)).get_charmap()))
    except (RuntimeError, OSError, ValueError):  # damaged, or of a kind that it does not read
        return frozenset()
