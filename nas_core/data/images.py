"""The one reader of image files: what is damaged or of another kind raises, and is never guessed.

A file is what its content says, whatever its name. Every reader of a picture gets the same array or
the same message; the one difference is `upright`. Masks are stored without loss, as PNG. Messages
begin with the file's path, relative to `root` if there is one.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from nas_core.base.errors import DataError
from nas_core.base.files import read_limited
from nas_core.data.containers import (
    MAX_BYTES,
    MAX_PIXELS,
    check_container,
    check_pixels,
    png_kind,
)

# MAX_PIXELS is lower than the sizes that Pillow warns of, and metadata may well be odd.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

JPEG_SUFFIXES = (".jpg", ".jpeg")

# Not all that Pillow knows: some of its decoders start other programs.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MASK_FORMATS = ("PNG",)
_TIFF_COMPRESSIONS = (
    "raw",
    "tiff_lzw",
    "tiff_adobe_deflate",
    "tiff_deflate",
    "packbits",
    "jpeg",
    "zstd",
    "group3",
    "group4",
)
# Decoders in Python, a pixel or a run at a time.
_SLOW_DECODERS = ("bmp_rle", "ppm", "ppm_plain")
_MAX_SLOW_BYTES = 2**20
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises for damaged files.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    RuntimeError,
    MemoryError,
    AssertionError,
    struct.error,
    zlib.error,
)


def _plain(picture: Image.Image) -> npt.NDArray[np.uint8]:
    return np.array(picture.convert("RGB"))


def _upper_8_bits(picture: Image.Image) -> npt.NDArray[np.uint8]:
    grey = (np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)
    return grey[..., None].repeat(3, axis=2)


# How a kind of Pillow's becomes RGB. Of 16 bits a channel Pillow itself keeps the upper 8;
# transparency is ignored.
_TO_RGB: dict[str, Callable[[Image.Image], npt.NDArray[np.uint8]]] = {
    **dict.fromkeys(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"), _plain),
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N"), _upper_8_bits),
}


def read_image(
    path: Path, root: Path | None = None, *, upright: bool = False
) -> npt.NDArray[np.uint8]:
    """An image's file as uint8 (H, W, 3), RGB; see `decode_image`."""
    name = _short(path, root)
    return decode_image(_content(path, name), name, upright=upright)


def decode_image(content: bytes, name: str, *, upright: bool = False) -> npt.NDArray[np.uint8]:
    """The content of an image's file as uint8 (H, W, 3), RGB.

    Grey, palette and CMYK become RGB, 16 bits become the upper 8, transparency is ignored.

    Args:
        name: what messages call the file.
        upright: turn an image as its EXIF orientation says. Else such an image is refused: whether
            its mask is turned too, nobody can tell.

    Raises:
        DataError: unreadable, damaged, too costly, of values without a fixed range (32-bit), or
            several pictures in one file.
    """
    with _opened(content, name) as picture:
        # Pillow has no 16-bit mode for PPM.
        mode = "I;16" if (picture.format, picture.mode) == ("PPM", "I") else picture.mode
        if mode not in _TO_RGB:
            raise DataError(
                f"{name}: values of kind {mode} have no fixed range; save it with 8 or 16 bits"
            )
        orientation = _orientation(picture)
        if orientation != 1 and not upright:
            raise DataError(
                f"{name}: turned by its EXIF orientation {orientation}; "
                "store it upright, as its mask is"
            )
        picture.load()
        # Pillow turns TIFF files by itself.
        turn = orientation != 1 and picture.format != "TIFF"
        return _TO_RGB[mode](picture.transpose(_TURNS[orientation]) if turn else picture)


def image_size(path: Path, root: Path | None = None) -> tuple[int, int]:
    """Height and width of an image as it is stored, whose pixels are not decoded.

    Raises:
        DataError: as `read_image`, as far as the file's structure tells.
    """
    name = _short(path, root)
    with _opened(_content(path, name), name) as picture:
        return picture.height, picture.width


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
    expected = "8-bit grey whose values are class numbers"
    return _decode_mask(path, root, {("grey", 8)}, expected)[0]


def read_labels(
    path: Path, root: Path | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """A mask as it is stored, and its palette (K, 3) if it has one.

    Returns:
        Grey values or palette indices, uint8 (H, W), or colours, uint8 (H, W, 3).

    Raises:
        DataError: unreadable, damaged, or neither 8-bit grey, palette nor 8-bit RGB.
    """
    kinds = {("grey", 8), ("RGB", 8), *(("palette", depth) for depth in (1, 2, 4, 8))}
    return _decode_mask(path, root, kinds, "8-bit grey, palette or 8-bit RGB")


def listed(labels: npt.NDArray[np.integer]) -> str:
    """`label 7`, or `labels 7, 8 ...` with the first five."""
    values = labels.tolist()
    shown = ", ".join(str(label) for label in values[:5]) + (" ..." if len(values) > 5 else "")
    return f"label{'s' * (len(values) > 1)} {shown}"


def _decode_mask(
    path: Path, root: Path | None, kinds: set[tuple[str, int]], expected: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    name = _short(path, root)
    content = _content(path, name)
    with _opened(content, name) as picture:
        if picture.format not in _MASK_FORMATS:
            raise DataError(f"{name}: a {picture.format} file; masks are PNG files")
        depth, colour = png_kind(content)
        if (colour, depth) not in kinds:
            raise DataError(f"{name}: {depth}-bit {colour} mask; expected {expected}")
        orientation = _orientation(picture)
        if orientation != 1:
            raise DataError(
                f"{name}: turned by its EXIF orientation {orientation}; "
                "store it upright, as its image is"
            )
        picture.load()
        palette = picture.getpalette("RGB") if colour == "palette" else None
        colours = None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)
        return np.array(picture), colours


@contextmanager
def _opened(content: bytes, name: str) -> Iterator[ImageFile]:
    """A picture that is small enough and of a known format; what fails inside is a DataError."""
    kind = "file"
    try:
        check_container(content, name)
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            kind = str(picture.format)
            _check(picture, len(content), name)
            yield picture
    except UnidentifiedImageError:
        raise DataError(f"{name}: no image that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{name}: more than the {MAX_PIXELS} pixels that are accepted: "
            "scale it down or cut it up"
        ) from None
    except _DAMAGED as error:
        reason = (" ".join(str(error).split()) or type(error).__name__)[:100]
        raise DataError(f"{name}: damaged {kind} ({reason})") from None


def _check(picture: ImageFile, num_bytes: int, name: str) -> None:
    check_pixels(picture.width, picture.height, name)
    # MPO is a camera's JPEG with previews behind the picture; a TIFF's number was seen before.
    if picture.format not in ("MPO", "TIFF") and getattr(picture, "n_frames", 1) > 1:
        raise DataError(f"{name}: several pictures in one file; save each as a file of its own")
    compression = picture.info.get("compression")
    if picture.format == "TIFF" and compression not in _TIFF_COMPRESSIONS:
        raise DataError(f"{name}: a TIFF compressed by {compression}: save it with LZW or deflate")
    if num_bytes > _MAX_SLOW_BYTES and picture.tile and picture.tile[0][0] in _SLOW_DECODERS:
        raise DataError(
            f"{name}: {num_bytes} bytes of a kind of {picture.format} that takes too long to "
            "read: save it as PNG"
        )


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where it is not there or says nothing."""
    if picture.format == "PNG":
        picture.load()  # it may stand behind the pixels
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGED:
        return 1
    return next((turn for turn in _TURNS if turn == orientation), 1)


def _content(path: Path, name: str) -> bytes:
    try:
        return read_limited(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None


def _short(path: Path, root: Path | None) -> str:
    return str(path) if root is None else path.relative_to(root).as_posix()
