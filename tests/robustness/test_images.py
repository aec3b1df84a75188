"""Images and masks that are damaged, absurd or bombs, made here: bytes are plainer so."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_core.data import camvid, cityscapes
from nas_core.data.folder import Description, MaskReader
from nas_core.data.images import read_image, read_labels, read_mask
from nas_core.data.pictures import picture_size, read_picture
from tests.robustness.cases import accepted_or_refused, refused

pytestmark = pytest.mark.timeout(60)

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def header(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def pixels(width: int, height: int) -> bytes:
    return chunk(b"IDAT", zlib.compress(bytes((width + 1) * height)))


END = chunk(b"IEND", b"")
GOOD = SIGNATURE + header(4, 3) + pixels(4, 3) + END
ZEROS = zlib.compress(bytes(10_000_000))  # 10 MB in 10 KB


def picture(
    kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: object
) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 90).convert(mode).save(file, kind, **options)
    return file.getvalue()


JPEG = picture("JPEG")


def jpeg_of_size(width: int, height: int) -> bytes:
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + struct.pack(">HH", height, width) + JPEG[at + 4 :]


BAD_PNG: dict[str, bytes] = {
    "empty": b"",
    "signature only": SIGNATURE,
    "header only": SIGNATURE + header(4, 3),
    "no pixels": SIGNATURE + header(4, 3) + END,
    "no end": GOOD[: -len(END)],
    "cut": GOOD[:-20],
    "text": b"hello, I am a picture",
    "a JPEG": JPEG,
    "a GIF": picture("GIF", "P"),
    "zeros": bytes(1000),
    "wrong checksum": GOOD[:-16] + bytes([GOOD[-16] ^ 1]) + GOOD[-15:],
    "no width": SIGNATURE + header(0, 3) + pixels(0, 3) + END,
    "no height": SIGNATURE + header(4, 0) + pixels(4, 0) + END,
    "too few pixels": SIGNATURE + header(40, 30) + pixels(4, 3) + END,
    "pixels are no zlib": SIGNATURE + header(4, 3) + chunk(b"IDAT", b"no zlib at all") + END,
    "depth 3": SIGNATURE + header(4, 3, depth=3) + pixels(4, 3) + END,
    "colour 5": SIGNATURE + header(4, 3, colour=5) + pixels(4, 3) + END,
    "palette without colours": SIGNATURE + header(4, 3, colour=3) + pixels(4, 3) + END,
    "4 billion wide": SIGNATURE + header(2**32 - 1, 1) + pixels(4, 3) + END,
    "billions of pixels": SIGNATURE + header(100_000, 100_000) + pixels(4, 3) + END,
    "a bomb": SIGNATURE + header(10_000, 10_000) + chunk(b"IDAT", ZEROS) + END,
    "two headers": SIGNATURE + header(4, 3) + header(10_000, 9_000) + chunk(b"IDAT", ZEROS) + END,
    "two headers, one absurd": SIGNATURE
    + header(4, 3)
    + header(60_000, 60_000)
    + chunk(b"IDAT", ZEROS)
    + END,
    "a bomb of text": SIGNATURE
    + header(4, 3)
    + b"".join(chunk(b"zTXt", b"k%d\0\0" % i + ZEROS) for i in range(8))
    + pixels(4, 3)
    + END,
    "chunk of 4 GB": SIGNATURE + header(4, 3) + struct.pack(">I", 2**32 - 1) + b"IDAT" + END,
}
BAD_JPEG: dict[str, bytes] = {
    "empty": b"",
    "marker only": b"\xff\xd8",
    "header only": JPEG[:300],
    "half": JPEG[: len(JPEG) // 2],
    "text": b"hello",
    "a PNG": GOOD,
    "zeros": b"\xff\xd8" + bytes(500),
    "no width": jpeg_of_size(0, 30),
    "4 billion pixels": jpeg_of_size(65_535, 65_535),
    "100 million pixels": jpeg_of_size(10_000, 10_000),
    "CMYK": picture("JPEG", "CMYK"),
    "turned": picture(
        "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
}
BAD_PICTURES: dict[str, tuple[str, bytes]] = {
    "empty TIFF": ("tif", b""),
    "half a TIFF": ("tif", picture("TIFF")[:500]),
    "header of a TIFF": ("tif", b"II*\0\xff\xff\xff\x7f"),
    "a TIFF that leads to itself": ("tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0"),
    "half a WebP": ("webp", picture("WEBP")[:60]),
    "header of a BMP": ("bmp", picture("BMP")[:30]),
    "a BMP of billions": (
        "bmp",
        picture("BMP")[:18] + struct.pack("<ii", 60_000, 60_000) + bytes(40),
    ),
    "half a PPM": ("ppm", picture("PPM")[:60]),
    "a PPM of billions": ("ppm", b"P6 99999 99999 255\n" + bytes(100)),
    "a PPM without numbers": ("ppm", b"P6 a b c\n"),
    "PostScript": ("png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
    "a GIF": ("png", picture("GIF", "P")),
    "several": (
        "png",
        picture("PNG", "L", save_all=True, append_images=[Image.new("L", (40, 30))]),
    ),
}


@pytest.mark.parametrize("name", BAD_PNG)
def test_images_and_masks_that_are_no_png(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(BAD_PNG[name])
    for read in (read_image, read_labels, lambda path: read_mask(path, 3)):
        with refused("a.png"):
            read(path)
    if name != "a GIF" and not name.startswith("a JPEG"):
        # Whatever it makes of it, never more than the limit, and never a traceback.
        accepted_or_refused(lambda: read_picture(path))


@pytest.mark.parametrize("name", BAD_JPEG)
def test_images_that_are_no_jpeg(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(BAD_JPEG[name])
    with refused("a.jpg"):
        read_image(path)
    accepted_or_refused(lambda: read_picture(path))


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_pictures_of_other_kinds(tmp_path: Path, name: str) -> None:
    suffix, content = BAD_PICTURES[name]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with refused(path.name):
        read_picture(path)
    accepted_or_refused(lambda: picture_size(path))


def grey(path: Path, value: int, dtype: type[np.generic] = np.uint8) -> None:
    Image.fromarray(np.full((3, 4), value, dtype)).save(path)


TWO = Description.model_validate({"classes": ["road", {"name": "sky", "colour": [0, 0, 9]}]})
BAD_MASKS: dict[str, Callable[[Path], None]] = {
    "label 3": lambda path: grey(path, 3),
    "label 255": lambda path: grey(path, 255),
    "16 bits": lambda path: grey(path, 300, np.uint16),
    "1 bit": lambda path: Image.new("1", (4, 3)).save(path),
    "grey with alpha": lambda path: Image.new("LA", (4, 3)).save(path),
    "RGB with alpha": lambda path: Image.new("RGBA", (4, 3)).save(path),
    "unknown colour": lambda path: Image.new("RGB", (4, 3), (1, 2, 3)).save(path),
}


@pytest.mark.parametrize("name", BAD_MASKS)
@pytest.mark.parametrize("kind", ["folder", "camvid", "cityscapes"])
def test_masks_with_labels_that_nobody_knows(tmp_path: Path, name: str, kind: str) -> None:
    for folder in ("trainannot", "gtFine/train/x"):
        (tmp_path / folder).mkdir(parents=True)
    path = tmp_path / "trainannot" / "m.png"
    BAD_MASKS[name](path)
    readers = {
        "folder": MaskReader(tmp_path, TWO),
        "camvid": camvid.list_dataset(tmp_path).read_mask,
        "cityscapes": cityscapes.list_dataset(tmp_path).read_mask,
    }
    known = name == "label 3" and kind != "folder"
    if not known:
        with refused("m.png"):
            readers[kind](path)


def test_an_image_larger_than_any_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(GOOD)
    with path.open("r+b") as file:
        file.truncate(2**34)  # without a block on the disk
    with refused("a.png"):
        read_image(path)
