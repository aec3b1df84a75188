"""Sizes of images, as the commands take them."""

from __future__ import annotations

import re

from nas_core.base.errors import SettingsError


def image_size(text: str) -> tuple[int, int]:
    """Height and width of --size.

    Raises:
        SettingsError: it is no size that a network takes.
    """
    width, height = _numbers(text)
    if not (32 <= width <= 16384 and 32 <= height <= 16384):
        raise SettingsError(
            f"--size {text}: expected WIDTHxHEIGHT, both from 32 to 16384, as 480x360"
        )
    return height, width


def size_of_input(text: str) -> tuple[int, int]:
    """Height and width of --input-size.

    Raises:
        SettingsError: it is no size that a network takes.
    """
    size = _numbers(text)
    if min(size) < 32:
        raise SettingsError(f"--input-size {text}: expected HxW, both from 32 to 99999, as 360x480")
    return size


def _numbers(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
