"""Reading image files strictly: what is damaged or of another kind raises, and is never guessed.

Images are PNG or, by the suffix, JPEG files; masks are PNG files. Messages name a file relative to
`root`, or else by its own folder.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from nas_core.errors import DataError
from nas_core.files import read_limited

MAX_PIXELS = 2**25
"""More (about 33 megapixels) is refused before decoding: a small file can claim any size."""

MAX_BYTES = 2**28
"""No image of MAX_PIXELS needs more, even if it is not compressed at all."""

# That limit is lower than the one at which Pillow warns, and gives an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

T = TypeVar("T")

JPEG_SUFFIXES = (".jpg", ".jpeg")

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB\x60\x82"
_HEADER = struct.Struct(">8sI4sIIBB")
_COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_JPEG_MODES = {"L": "grey", "RGB": "RGB", "CMYK": "CMYK"}
# What Pillow raises for damaged files.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class Header(NamedTuple):
    """Size and kind; of a PNG file, its first chunk (https://www.w3.org/TR/png-3/#11IHDR)."""

    height: int
    width: int
    depth: int
    colour: str

    def __str__(self) -> str:
        return f"{self.depth}-bit {self.colour}"


def read_header(path: Path, root: Path | None = None) -> Header:
    """Size and kind of an image file.

    Raises:
        DataError: the file cannot be read, is of another format, or claims more than MAX_PIXELS.
    """
    header = _jpeg_header(path, root) if _is_jpeg(path) else _png_header(path, root)
    if not 0 < header.width * header.height <= MAX_PIXELS:
        raise DataError(
            f"{_short(path, root)}: {header.width}x{header.height} pixels; "
            f"at most {MAX_PIXELS} are accepted"
        )
    return header


def read_image(path: Path, root: Path | None = None) -> npt.NDArray[np.uint8]:
    """An image as uint8 (H, W, 3), RGB.

    Raises:
        DataError: unreadable, damaged, 16-bit grey, which RGB of 8 bits cannot hold, or a JPEG file
            in CMYK or to be turned by its EXIF orientation: its mask may be turned or not.
    """
    header = read_header(path, root)
    if (header.colour.startswith("grey") and header.depth == 16) or header.colour == "CMYK":
        raise DataError(f"{_short(path, root)}: {header} image; expected 8-bit RGB")
    return _decode(path, header, lambda image: np.array(image.convert("RGB")), root)


def read_mask(path: Path, num_labels: int, root: Path | None = None) -> npt.NDArray[np.uint8]:
    """A mask of class numbers as uint8 (H, W).

    Raises:
        DataError: unreadable, damaged, not 8-bit grey, or a label of `num_labels` or more.
    """
    mask = read_grey(path, root)
    if mask.max() >= num_labels:
        strays = np.unique(mask[mask >= num_labels])
        raise DataError(f"{_short(path, root)}: {listed(strays)} outside 0..{num_labels - 1}")
    return mask


def read_grey(path: Path, root: Path | None = None) -> npt.NDArray[np.uint8]:
    """The values of an 8-bit grey PNG file, uint8 (H, W).

    Raises:
        DataError: unreadable, damaged, or of another kind.
    """
    header = read_header(path, root)
    if header.colour != "grey" or header.depth != 8:
        raise DataError(
            f"{_short(path, root)}: {header} mask; expected 8-bit grey whose values are class "
            "numbers"
        )
    return _decode(path, header, np.array, root)


def read_labels(
    path: Path, root: Path | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """A mask as it is stored, and its palette (K, 3) if it has one.

    Returns:
        Grey values or palette indices, uint8 (H, W), or colours, uint8 (H, W, 3).

    Raises:
        DataError: unreadable, damaged, or neither 8-bit grey, palette nor 8-bit RGB.
    """
    header = read_header(path, root)
    accepted = {("grey", 8), ("RGB", 8), *(("palette", depth) for depth in (1, 2, 4, 8))}
    if (header.colour, header.depth) not in accepted or _is_jpeg(path):
        raise DataError(
            f"{_short(path, root)}: {header} mask; expected 8-bit grey, palette or 8-bit RGB"
        )

    def convert(
        image: Image.Image,
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
        palette = image.getpalette("RGB") if image.mode == "P" else None
        colours = None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)
        return np.array(image), colours

    return _decode(path, header, convert, root)


def listed(labels: npt.NDArray[np.integer]) -> str:
    """`label 7`, or `labels 7, 8 ...` with the first five."""
    values = labels.tolist()
    shown = ", ".join(str(label) for label in values[:5]) + (" ..." if len(values) > 5 else "")
    return f"label{'s' * (len(values) > 1)} {shown}"


def _png_header(path: Path, root: Path | None) -> Header:
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER.size)
    except OSError as error:
        raise DataError(f"{_short(path, root)}: cannot be read: {error.strerror}") from None
    if len(start) < _HEADER.size:
        problem = "truncated" if start else "empty file"
        raise DataError(f"{_short(path, root)}: no PNG image ({problem})")
    signature, _, chunk, width, height, depth, colour = _HEADER.unpack(start)
    if signature != _SIGNATURE or chunk != b"IHDR" or colour not in _COLOUR_TYPES:
        raise DataError(f"{_short(path, root)}: no PNG image")
    return Header(height, width, depth, _COLOUR_TYPES[colour])


def _jpeg_header(path: Path, root: Path | None) -> Header:
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            header = Header(image.height, image.width, 8, _JPEG_MODES.get(image.mode, image.mode))
    except Image.UnidentifiedImageError:
        raise DataError(f"{_short(path, root)}: no JPEG image") from None
    except DAMAGED as error:
        raise DataError(f"{_short(path, root)}: cannot be read: {_reason(error)}") from None
    if orientation != 1:
        raise DataError(
            f"{_short(path, root)}: turned by its EXIF orientation {orientation}; "
            "store it upright, as its mask is"
        )
    return header


def _decode(
    path: Path, header: Header, convert: Callable[[Image.Image], T], root: Path | None
) -> T:
    """Pixels of a file. The checksums of PNG are verified, which plain decoding does not do."""
    kind = "JPEG" if _is_jpeg(path) else "PNG"
    try:
        content = read_limited(path, MAX_BYTES)
        if kind == "PNG":
            if _END not in content:
                raise OSError("truncated PNG file")
            if header.colour == "palette" and b"PLTE" not in content:
                raise OSError("its palette is missing")
            with Image.open(io.BytesIO(content), formats=[kind]) as image:
                image.verify()
        with Image.open(io.BytesIO(content), formats=[kind]) as image:
            # A second header further on would pass by the limit.
            if image.size != (header.width, header.height):
                raise ValueError("two sizes in one file")
            image.load()
            return convert(image)
    except DAMAGED as error:
        raise DataError(f"{_short(path, root)}: damaged {kind} ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image could be decoded"
    return (" ".join(str(error).split()) or type(error).__name__)[:100]


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in JPEG_SUFFIXES


def _short(path: Path, root: Path | None) -> str:
    if root is None:
        return f"{path.parent.name}/{path.name}"
    return path.relative_to(root).as_posix()
