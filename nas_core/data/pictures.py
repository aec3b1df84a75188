"""Reading the pictures that people have: many formats and kinds, one result."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from nas_core.data.images import DAMAGED, MAX_PIXELS
from nas_core.errors import DataError
from nas_core.files import check_regular

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Not all that Pillow knows: some of its decoders start other programs.
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_COLOURS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_TURNED = (5, 6, 7, 8)


def find_pictures(places: Sequence[Path]) -> list[Path]:
    """The files among `places`, and the pictures that lie directly in the folders among them.

    Pictures in folders are known by `SUFFIXES`; hidden files are left out.

    Raises:
        DataError: a place does not exist, or a folder has no picture.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(
                path
                for path in place.iterdir()
                if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()
            )
            if not inside:
                raise DataError(f"{place}: no picture in this folder ({', '.join(SUFFIXES)})")
            found += inside
        elif place.exists():
            found.append(place)
        else:
            raise DataError(f"{place} does not exist: give files or folders of pictures")
    return found


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of the upright picture, read without decoding it.

    Raises:
        DataError: as `read_picture`, as far as the beginning of the file tells.
    """
    with _opened(path) as picture:
        turned = picture.getexif().get(ExifTags.Base.Orientation) in _TURNED
        return (picture.width, picture.height) if turned else (picture.height, picture.width)


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """A picture as uint8 (H, W, 3), RGB, turned upright as its EXIF orientation says.

    Grey, palette and CMYK become RGB, 16 bits become the upper 8, transparency is ignored.

    Raises:
        DataError: unreadable, damaged, of a kind that RGB of 8 bits cannot hold (32-bit values),
            several pictures in one file, or more than MAX_PIXELS. The message names the file.
    """
    with _opened(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I;16"):
            return (
                (np.asarray(upright).astype(np.uint16) >> 8)
                .astype(np.uint8)[..., None]
                .repeat(3, axis=2)
            )
        return np.array(upright.convert("RGB"))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture that is small enough and of a known kind; what fails inside is a DataError."""
    try:
        with warnings.catch_warnings():
            # MAX_PIXELS is lower than Pillow's own limits, and metadata may well be odd.
            warnings.simplefilter("ignore")
            check_regular(path)
            with Image.open(path, formats=_FORMATS) as picture:
                _check(path, picture)
                yield picture
    except Image.UnidentifiedImageError:
        raise DataError(f"{path}: no picture ({', '.join(_FORMATS)})") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: at most {MAX_PIXELS} pixels are accepted") from None
    except DAMAGED as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(f"{path}: cannot be read ({reason[:100]})") from None


def _check(path: Path, picture: Image.Image) -> None:
    if not 0 < picture.width * picture.height <= MAX_PIXELS:
        raise DataError(
            f"{path}: {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are accepted: "
            "scale it down or cut it up"
        )
    # MPO is a camera's JPEG with previews behind the picture.
    number = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
    if number > 1:
        raise DataError(f"{path}: {number} pictures in one file; save each as a file of its own")
    if picture.mode not in _COLOURS and not picture.mode.startswith("I;16"):
        raise DataError(
            f"{path}: values of kind {picture.mode} have no fixed range; save it with 8 or 16 bits"
        )
