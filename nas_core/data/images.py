"""The one reader of image files: what is damaged or of another kind raises, and is never guessed.

A file is what its content says, whatever its name. Every reader of a picture gets the same array or
the same message; the one difference is `upright`. Masks are stored without loss: PNG, TIFF or BMP.
Messages begin with the file's path, relative to `root` if there is one.
"""

from __future__ import annotations

import io
import struct
import sys
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
from nas_core.data.jpeg import refuse_partial

# MAX_PIXELS is lower than the sizes that Pillow warns of, and metadata may well be odd.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")

# Not all that Pillow knows: some of its decoders start other programs.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MASK_FORMATS = ("PNG", "TIFF", "BMP")
_LOSSY = ("JPEG", "MPO", "WEBP")
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
# TIFF 6.0 (https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf), sections 2 and 8.
_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC = 254, 258, 262
_REDUCED, _WHITE_IS_ZERO = 1, 0
_MASK_KINDS = {
    **dict.fromkeys(("1", "L", "I;16", "I;16B", "I;16L", "I;16N"), "grey"),
    "P": "palette",
    **dict.fromkeys(("RGB", "RGBX"), "RGB"),
    "LA": "grey with alpha",
    "RGBA": "RGB with alpha",
}
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
    """The values of an 8-bit grey file, uint8 (H, W).

    Raises:
        DataError: unreadable, damaged, or of another kind.
    """
    kind, values, _ = _decode_mask(path, root)
    if kind != "8-bit grey":
        raise DataError(
            f"{_short(path, root)}: {kind} mask; expected 8-bit grey whose values are class numbers"
        )
    return values


def read_labels(
    path: Path, root: Path | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """A mask as it is stored, and its palette (K, 3) if it has one.

    Grey has 1, 2, 4, 8 or 16 bits, RGB 8 or 16. 16 bits hold 8 in one of their forms: as they are,
    each twice, or RGB on any other scale, to the nearest. Alpha that is opaque everywhere is left
    out.

    Returns:
        Grey values or palette indices, uint8 (H, W), or colours, uint8 (H, W, 3).

    Raises:
        DataError: unreadable, damaged, stored with loss, of values that are no labels, or not
            opaque everywhere.
    """
    _, values, palette = _decode_mask(path, root)
    return values, palette


def listed(labels: npt.NDArray[np.integer]) -> str:
    """`label 7`, or `labels 7, 8 ...` with the first five."""
    values = labels.tolist()
    shown = ", ".join(str(label) for label in values[:5]) + (" ..." if len(values) > 5 else "")
    return f"label{'s' * (len(values) > 1)} {shown}"


def _decode_mask(
    path: Path, root: Path | None
) -> tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Kind, values and palette of a mask."""
    name = _short(path, root)
    content = _content(path, name)
    with _opened(content, name) as picture:
        _check_mask_file(picture, name)
        depth, colours = _mask_kind(picture, content, name)
        kind = f"{depth}-bit {colours}"
        if colours == "palette":
            palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
            return kind, np.array(picture), palette
        values = np.array(picture)
        if depth == 16 and colours != "grey":
            values = _all_16_bits(content, colours, values, name)
    if colours.endswith("alpha"):
        alpha = np.unique(values[..., -1])
        if alpha.size > 1 or alpha[0] not in ((255, 65280, 65535) if depth == 16 else (255,)):
            raise DataError(
                f"{name}: {kind} mask, not opaque everywhere: save it without alpha, with a label "
                "or a colour of their own for the pixels that do not count"
            )
    if values.ndim == 3:
        values = values[..., 0] if colours == "grey with alpha" else values[..., :3]
    if depth == 16:
        values = _8_of_16_bits(values.astype(np.uint16), name, colours)
    elif depth < 8:
        values = values.astype(np.uint8) // (1 if depth == 1 else 255 // (2**depth - 1))
    return kind, np.ascontiguousarray(values), None


def _check_mask_file(picture: ImageFile, name: str) -> None:
    """Refuse a mask in whose file labels are not what was drawn, or not to be told."""
    lossy_tiff = picture.format == "TIFF" and picture.info.get("compression") == "jpeg"
    if picture.format in _LOSSY or lossy_tiff:
        raise DataError(
            f"{name}: a mask stored as {'JPEG' if lossy_tiff else picture.format}, which does not "
            "keep labels as they are: save it anew from its source, as PNG"
        )
    if picture.format not in _MASK_FORMATS:
        raise DataError(f"{name}: a {picture.format} file; masks are PNG, TIFF or BMP files")
    if picture.format == "TIFF" and _tag(picture, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise DataError(f"{name}: a TIFF mask whose white is zero: save it as PNG")
    orientation = _orientation(picture)
    if orientation != 1:
        raise DataError(
            f"{name}: turned by its EXIF orientation {orientation}; store it upright, as its "
            "image is"
        )


def _mask_kind(picture: ImageFile, content: bytes, name: str) -> tuple[int, str]:
    """Bits of a channel and kind of colour of a mask, decoded once this is known."""
    if picture.format == "PNG":
        depth, colours = png_kind(content)
    else:
        colours = _MASK_KINDS.get(picture.mode, "")
        bits = _tag(picture, _BITS_PER_SAMPLE) if picture.format == "TIFF" else 8
        depth = 1 if picture.mode == "1" else bits
    if not colours or depth not in (1, 2, 4, 8, 16):
        raise DataError(
            f"{name}: a mask with values of kind {picture.mode}: save it as PNG, 8-bit grey, "
            "palette or RGB"
        )
    picture.load()
    return depth, colours


def _tag(picture: ImageFile, number: int) -> int:
    """The value of a TIFF's tag, the first of several; 1 where it is left out."""
    value = getattr(picture, "tag_v2", {}).get(number, 1)
    return int(value[0] if isinstance(value, tuple) else value)


def _all_16_bits(
    content: bytes, colours: str, upper: npt.NDArray[np.uint8], name: str
) -> npt.NDArray[np.uint16]:
    """Channels of 16 bits (H, W, C), of which Pillow keeps the upper 8.

    Read in the other order of bytes, the file gives the lower ones.
    """
    other = {"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGBA;16B": "RGBA;16L",
             "RGBA;16L": "RGBA;16B", "LA;16B": "RGBA"}  # fmt: skip
    foreign = "B" if sys.byteorder == "little" else "L"
    other |= {f"{mode};16N": f"{mode};16{foreign}" for mode in ("RGB", "RGBA")}
    with _opened(content, name) as picture:
        tiles = []
        for tile in picture.tile:
            mode, *more = tile.args if isinstance(tile.args, tuple) else (tile.args,)
            if mode not in other:
                raise DataError(f"{name}: a 16-bit {colours} mask of kind {mode}: save it as PNG")
            tiles.append(tile._replace(args=(other[mode], *more)))
        picture.tile = tiles
        picture.load()
        lower = np.array(picture)
    if colours == "grey with alpha":
        lower, upper = lower[..., [1, 3]], upper[..., [0, 3]]
    together: npt.NDArray[np.uint16] = upper.astype(np.uint16) << 8 | lower
    return together


def _8_of_16_bits(values: npt.NDArray[np.uint16], name: str, colours: str) -> npt.NDArray[np.uint8]:
    """The 8-bit values that 16 bits hold, of all channels in the same form."""
    if values.max() <= 255:
        return values.astype(np.uint8)
    if colours.startswith("grey") and (values % 257).any():
        strays = np.unique(values[values > 255])
        raise DataError(f"{name}: 16-bit grey mask with {listed(strays)}; a label is 0 to 255")
    if not (values & 255).any():
        return (values >> 8).astype(np.uint8)
    # https://www.w3.org/TR/png-3/#13Sample-depth-rescaling
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


@contextmanager
def _opened(content: bytes, name: str) -> Iterator[ImageFile]:
    """A picture that is small enough and of a known format; what fails inside is a DataError."""
    kind = "file"
    try:
        check_container(content, name)
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            kind = str(picture.format)
            _check(picture, len(content), name)
            if picture.format in ("JPEG", "MPO"):
                refuse_partial(picture)
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
    if getattr(picture, "tag_v2", {}).get(_SUBFILE_TYPE, 0) == _REDUCED:
        raise DataError(
            f"{name}: a small preview alone can be read, as in a camera's raw file: convert the "
            "picture itself"
        )
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
