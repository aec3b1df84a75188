"""Patterns of dataset.yaml: which files are images, where the mask of each lies, and its group.

In `images`, `*` stands for any characters but the slash, `**` for any folders, `?` for one
character and `{split}` for the name of a split. In `masks` and `group`, `{stem}` is the name of the
image's file without suffix, `{1}` what the first star of `images` stands for, and `{split}` what
that does; a star in `masks` is what the star of that number stands for. The letters of a suffix
match in either case: one camera writes .jpg and .JPG.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

import regex

from nas_core.base.errors import some_of
from nas_core.data.listing import SPLIT_NAMES

# Some expressions take longer than a lifetime for one name.
SECONDS_A_NAME = 1.0

_TOKEN = re.compile(r"\*\*/?|\*|\?|\{[^{}]*\}|[^*?{}]+|[{}]")
_MAX_LENGTH = 500


@dataclass(frozen=True)
class Found:
    """What the patterns say of a file that is an image: its mask's path, its split and group."""

    mask: str
    split: str | None
    group: str | None


@dataclass(frozen=True)
class Patterns:
    """The patterns `images`, `masks` and `group`, all of paths in the dataset's folder.

    Raises:
        ValueError: one is not valid.
    """

    images: str
    masks: str
    group: str | None = None
    _expression: regex.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        texts = {"images": self.images, "masks": self.masks}
        if self.group is not None:
            texts["group"] = self.group
        for key, text in texts.items():
            if not text or len(text) > _MAX_LENGTH:
                raise ValueError(f"{key}: expected 1 to {_MAX_LENGTH} characters")
            if key != "group" and (text[0] == "/" or "\\" in text or ".." in text.split("/")):
                raise ValueError(
                    f"{key}: expected a path in the folder of the dataset, found {text}"
                )
        expression, num_stars = _expression_of(self.images)
        object.__setattr__(self, "_expression", expression)
        known = {"stem", *map(str, range(1, num_stars + 1))}
        known |= {"split"} if "{split}" in self.images else set()
        for key in ("masks", "group"):
            for name in _placeholders(texts.get(key, "")):
                if name not in known:
                    there = some_of(f"{{{one}}}" for one in sorted(known))
                    raise ValueError(
                        f"{key}: {{{name}}}: there are {there} (images has {num_stars} stars)"
                    )

    def match(self, path: str) -> Found | None:
        """What they say of a file, by its path; None if it is no image.

        Raises:
            TimeoutError: it takes longer than a second.
        """
        matched = self._expression.fullmatch(path, timeout=SECONDS_A_NAME)
        if matched is None:
            return None
        values = {name: value or "" for name, value in matched.groupdict().items()}
        values = {name.removeprefix("star"): value for name, value in values.items()}
        values["stem"] = path.rpartition("/")[2].rpartition(".")[0] or path.rpartition("/")[2]
        split = SPLIT_NAMES.get(values["split"].lower()) if "split" in values else None
        if split is None and "split" in values:
            return None  # letters that are equal but for their case, as s and the long s
        group = None if self.group is None else _filled(self.group, values)
        return Found(_filled(self.masks, values), split, group)


def _expression_of(pattern: str) -> tuple[regex.Pattern[str], int]:
    """A pattern as a regular expression with the groups star1, star2 ... and split."""
    parts = []
    num_stars = 0
    start, suffix = split_suffix(unicodedata.normalize("NFC", pattern))
    if any(char in suffix for char in "*?{}"):
        start, suffix = start + suffix, ""
    for token in _TOKEN.findall(start):
        if token[0] == "*":
            num_stars += 1
            name = f"star{num_stars}"
            parts.append(
                {"*": rf"(?P<{name}>[^/]*)", "**": rf"(?P<{name}>.*)"}.get(
                    token, rf"(?:(?P<{name}>.*)/)?"
                )
            )
        elif token == "?":
            parts.append("[^/]")
        elif token == "{split}" and "{split}" not in pattern.partition("{split}")[2]:
            parts.append(f"(?P<split>(?i:{'|'.join(SPLIT_NAMES)}))")
        elif token[0] == "{" and len(token) > 1:
            raise ValueError(f"images: {token}: there are *, **, ? and once {{split}}")
        else:
            parts.append(re.escape(token))
    parts.append(f"(?i:{re.escape(suffix)})")
    return regex.compile("".join(parts), regex.DOTALL), num_stars


def split_suffix(path: str) -> tuple[str, str]:
    """A path without the suffix of its file, and the suffix with its dot; it may be empty."""
    start, dot, suffix = path.rpartition(".")
    return (start, dot + suffix) if dot and "/" not in suffix else (path, "")


def _placeholders(template: str) -> list[str]:
    """The names in braces, and the numbers of the stars."""
    tokens = _TOKEN.findall(template)
    stars = sum(token[0] == "*" for token in tokens)
    names = [token[1:-1] for token in tokens if token[0] == "{" and len(token) > 1]
    return [*names, *map(str, range(1, stars + 1))]


def _filled(template: str, values: dict[str, str]) -> str:
    num_stars = 0
    parts = []
    for token in _TOKEN.findall(unicodedata.normalize("NFC", template)):
        if token[0] == "*":
            num_stars += 1
            value = values[str(num_stars)]
            parts.append(value + "/" * (token == "**/" and bool(value)))
        elif token[0] == "{" and len(token) > 1:
            parts.append(values[token[1:-1]])
        else:
            parts.append(token)
    return "".join(parts)
