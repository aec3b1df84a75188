"""Reading PNG files strictly: what is damaged or of another kind raises, and is never guessed."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from nas_core.errors import DataError

MAX_PIXELS = 2**25
"""More (about 33 megapixels) is refused before decoding: a small file can claim any size."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB\x60\x82"
_HEADER = struct.Struct(">8sI4sIIBB")
_COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_DAMAGED = (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error, zlib.error)


class Header(NamedTuple):
    """The first chunk of a PNG file (https://www.w3.org/TR/png-3/#11IHDR)."""

    height: int
    width: int
    depth: int
    colour: str

    def __str__(self) -> str:
        return f"{self.depth}-bit {self.colour}"


def read_header(path: Path) -> Header:
    """Size and kind of a PNG file.

    Raises:
        DataError: the file cannot be read, is no PNG, or claims more than MAX_PIXELS.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER.size)
    except OSError as error:
        raise DataError(f"{_short(path)}: cannot be read: {error.strerror}") from None
    if len(start) < _HEADER.size:
        raise DataError(f"{_short(path)}: no PNG image ({'truncated' if start else 'empty file'})")
    signature, _, chunk, width, height, depth, colour = _HEADER.unpack(start)
    if signature != _SIGNATURE or chunk != b"IHDR" or colour not in _COLOUR_TYPES:
        raise DataError(f"{_short(path)}: no PNG image")
    if not 0 < width * height <= MAX_PIXELS:
        raise DataError(
            f"{_short(path)}: {width}x{height} pixels; at most {MAX_PIXELS} are accepted"
        )
    return Header(height, width, depth, _COLOUR_TYPES[colour])


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image as uint8 (H, W, 3), RGB.

    Raises:
        DataError: unreadable, damaged, or 16-bit grey, which RGB of 8 bits cannot hold.
    """
    header = read_header(path)
    if header.colour.startswith("grey") and header.depth == 16:
        raise DataError(f"{_short(path)}: {header} image; expected 8-bit RGB")
    return _decode(path, "RGB")


def read_mask(path: Path, num_labels: int) -> npt.NDArray[np.uint8]:
    """A mask of class numbers as uint8 (H, W).

    Raises:
        DataError: unreadable, damaged, not 8-bit grey, or a label of `num_labels` or more.
    """
    header = read_header(path)
    if header.colour != "grey" or header.depth != 8:
        raise DataError(
            f"{_short(path)}: {header} mask; expected 8-bit grey whose values are class numbers"
        )
    mask = _decode(path, "L")
    if mask.max() >= num_labels:
        strays = [str(label) for label in np.unique(mask) if label >= num_labels]
        shown = ", ".join(strays[:5]) + (" ..." if len(strays) > 5 else "")
        raise DataError(
            f"{_short(path)}: label{'s' * (len(strays) > 1)} {shown} outside 0..{num_labels - 1}"
        )
    return mask


def _decode(path: Path, mode: str) -> npt.NDArray[np.uint8]:
    """Pixels of a PNG file. Its checksums are verified, which plain decoding does not do."""
    try:
        content = path.read_bytes()
        if _END not in content:
            raise OSError("truncated PNG file")
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            return np.array(image.convert(mode))
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "no image could be decoded"
        raise DataError(f"{_short(path)}: damaged PNG ({reason[:100]})") from None


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
