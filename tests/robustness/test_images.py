"""Images and masks that are damaged, absurd or bombs, made here: bytes are plainer so."""

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from nas_core.base.errors import DataError
from nas_core.data import camvid, cityscapes
from nas_core.data.containers import MAX_BYTES
from nas_core.data.description import Description
from nas_core.data.images import decode_image, image_size, read_image, read_labels, read_mask
from nas_core.data.listing import hash_files
from nas_core.data.masks import MaskReader
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
# Of 4x3 pixels: the passes have rows of 1; none; none; 1; 2; 2 and 2; 4, each after a filter.
INTERLACED = bytes(2 + 2 + 3 + 2 * 3 + 5)


def picture(
    kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: object
) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 90).convert(mode).save(file, kind, **options)
    return file.getvalue()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


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
    "a GIF": picture("GIF", "P"),
    "zeros": bytes(1000),
    "wrong checksum": GOOD[:-16] + bytes([GOOD[-16] ^ 1]) + GOOD[-15:],
    "no width": SIGNATURE + header(0, 3) + pixels(0, 3) + END,
    "no height": SIGNATURE + header(4, 0) + pixels(4, 0) + END,
    "too few pixels": SIGNATURE + header(40, 30) + pixels(4, 3) + END,
    "whole rows too few": SIGNATURE + header(4, 3) + pixels(4, 2) + END,
    "interlaced, a row of the last pass too few": SIGNATURE
    + header(4, 3, interlace=1)
    + chunk(b"IDAT", zlib.compress(INTERLACED[:-5]))
    + END,
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
END_OF_JPEG = b"\xff\xd9"
# Ways to write the pixels; the options are libjpeg's.
JPEG_FORMS: dict[str, dict[str, object]] = {
    "in one scan": {},
    "in intervals": {"restart_marker_blocks": 3},
    "in passes": {"progressive": True},
    "in passes and intervals": {"progressive": True, "restart_marker_blocks": 3},
}


def cut(content: bytes, share: float) -> bytes:
    """A JPEG whose pixels end early, with the end of a whole one."""
    begin = content.index(b"\xff\xda") + 20
    return content[: begin + int(share * (len(content) - begin))] + END_OF_JPEG


BAD_JPEG: dict[str, bytes] = {
    **{f"half, {form}": cut(picture("JPEG", **JPEG_FORMS[form]), 0.5) for form in JPEG_FORMS},
    "empty": b"",
    "marker only": b"\xff\xd8",
    "header only": JPEG[:300],
    "half": JPEG[: len(JPEG) // 2],
    "text": b"hello",
    "zeros": b"\xff\xd8" + bytes(500),
    "no width": jpeg_of_size(0, 30),
    "4 billion pixels": jpeg_of_size(65_535, 65_535),
    "100 million pixels": jpeg_of_size(10_000, 10_000),
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
    "a PPM with a value above its greatest": ("ppm", b"P6 1 1 100\n" + bytes([0, 100, 101])),
    "a PGM with a value of 16 bits above it": ("ppm", b"P5 2 1 1023\n\x03\xff\x04\x00"),
    "PostScript": ("png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
    "a GIF": ("png", picture("GIF", "P")),
    "several": (
        "png",
        picture("PNG", "L", save_all=True, append_images=[Image.new("L", (40, 30))]),
    ),
}


def test_an_image_without_pixels_is_not_too_large() -> None:
    for name in ("no width", "no height"):
        with pytest.raises(DataError, match="an image without pixels"):
            decode_image(BAD_PNG[name], "a.png")


@pytest.mark.parametrize("name", BAD_PNG)
def test_images_and_masks_that_are_no_png(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(BAD_PNG[name])
    for read in (read_image, read_labels, lambda path: read_mask(path, 3)):
        with refused("a.png"):
            read(path)
    accepted_or_refused(lambda: image_size(path))


def test_an_interlaced_png_that_is_whole(tmp_path: Path) -> None:
    content = chunk(b"IDAT", zlib.compress(INTERLACED))
    (tmp_path / "a.png").write_bytes(SIGNATURE + header(4, 3, interlace=1) + content + END)
    assert read_image(tmp_path / "a.png").shape == (3, 4, 3)


@pytest.mark.parametrize("name", BAD_JPEG)
def test_images_that_are_no_jpeg(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(BAD_JPEG[name])
    with refused("a.jpg"):
        read_image(path)
    accepted_or_refused(lambda: image_size(path))


@pytest.mark.parametrize("form", JPEG_FORMS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_was_cut_and_ended_is_told_from_a_whole_one(form: str, mode: str) -> None:
    content = picture("JPEG", mode, (150, 130), **JPEG_FORMS[form])
    with Image.open(io.BytesIO(content)) as whole:
        np.testing.assert_array_equal(decode_image(content, "a.jpg"), whole.convert("RGB"))
    ends = [found.start() for found in re.finditer(rb"\xff[\xc4\xda\xd9]", content)]
    for share in np.linspace(0, 0.99, 60):
        partial = cut(content, share)
        if all(abs(len(partial) - len(END_OF_JPEG) - end) > 50 for end in ends):
            with refused("a.jpg: damaged JPEG"):
                decode_image(partial, "a.jpg")


def jpeg_of_three_scans(num_bytes: int) -> bytes:
    """A grey JPEG of 80x80 pixels with a scan for each component, the second of `num_bytes`.

    libjpeg's own writer has no option for it. A block is a difference of 0 and the end of the
    block, each the code 0, which is the only one of its table.
    """
    tables = b"".join(
        b"\xff\xc4\0\x14" + bytes([kind, 1]) + bytes(15) + b"\0" for kind in (0x00, 0x10)
    )
    scans = b"".join(
        b"\xff\xda\0\x08\1" + bytes([component]) + b"\0\0\x3f\0" + bytes(length)
        for component, length in ((1, 25), (2, num_bytes), (3, 25))
    )
    return (
        b"\xff\xd8\xff\xdb\0\x43\0"
        + bytes([1] * 64)
        + b"\xff\xc0\0\x11\x08\0\x50\0\x50\3\1\x11\0\2\x11\0\3\x11\0"
        + tables
        + scans
        + END_OF_JPEG
    )


def test_a_jpeg_with_a_scan_for_each_component() -> None:
    grey = np.full((80, 80, 3), 128)
    np.testing.assert_array_equal(decode_image(jpeg_of_three_scans(25), "a.jpg"), grey)
    with refused("a.jpg: damaged JPEG (its pixels end before the image does)"):
        decode_image(jpeg_of_three_scans(15), "a.jpg")


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_pictures_of_other_kinds(tmp_path: Path, name: str) -> None:
    suffix, content = BAD_PICTURES[name]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with refused(path.name):
        read_image(path)
    accepted_or_refused(lambda: image_size(path))


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
    "a JPEG": lambda path: Image.new("L", (4, 3)).save(path, "JPEG"),
    "turned": lambda path: Image.new("L", (4, 3)).save(path, exif=orientation(3)),
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
    known = {"folder": "1 bit"}.get(kind, "label 3")
    if name != known:
        with refused("m.png"):
            readers[kind](path)


def test_an_image_larger_than_any_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(GOOD)
    with path.open("r+b") as file:
        file.truncate(2**43)  # without a block on the disk
    with refused("a.png"):
        read_image(path)
    assert hash_files(tmp_path, [path])[1] == [
        f"a.png: cannot be read: more than {MAX_BYTES} bytes"
    ]


def test_a_file_of_the_kernel_does_not_keep_us_waiting(tmp_path: Path) -> None:
    for name in ("cpuinfo", "kmsg", "sys/kernel/random/uuid"):
        path = tmp_path / "a.png"
        path.symlink_to(f"/proc/{name}")
        with refused("a.png"):
            read_image(path)
        assert len(hash_files(tmp_path, [path])[1]) == 1
        path.unlink()


def scans(number: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A progressive JPEG whose last scan comes again, `number` scans in all."""
    content = picture("JPEG", "L", size, progressive=True)
    last, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    return content[:end] + content[last:end] * (number - content.count(b"\xff\xda")) + b"\xff\xd9"


def tiff(*tags: tuple[int, int, int, int | bytes]) -> bytes:
    """A TIFF of one directory: number, type, count and value of each tag, in a word or beside."""
    start, beside = 8 + 2 + 12 * len(tags) + 4, b""
    directory = struct.pack("<H", len(tags))
    for tag, kind, count, value in tags:
        if isinstance(value, bytes):
            directory += struct.pack("<HHII", tag, kind, count, start + len(beside))
            beside += value
        else:
            directory += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + beside


def strips(count: int, num_bytes: int) -> bytes:
    """Rows of 8 grey pixels; every strip is the same bytes."""
    sizes = struct.pack("<I", num_bytes) * count
    return tiff(
        (256, 3, 1, 8), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1),
        (273, 4, count, struct.pack("<I", 8) * count), (277, 3, 1, 1), (278, 4, 1, 1),
        (279, 4, count, sizes),
    )  # fmt: skip


# They took from half a minute to hours, or gigabytes.
COSTLY: dict[str, tuple[str, bytes]] = {
    "scans": ("of more than 64 scans", scans(3000)),
    "JPEG segments": ("too many segments", JPEG[:2] + b"\xff\xfe\0\2" * 2**17 + JPEG[2:]),
    "JPEG padding": ("too many segments", JPEG[:2] + b"\xff" * 2**20 + JPEG[2:]),
    "JPEG junk": ("too many segments", JPEG[:2] + bytes(2**20) + JPEG[2:]),
    "JPEG metadata": (
        "too many segments",
        JPEG[:2] + (b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527)) * 300 + JPEG[2:],
    ),
    "JPEG without an image": ("no pixels in it", JPEG[:2] + bytes(2**20)),
    "PNG chunks": (
        "too many chunks",
        SIGNATURE + header(400, 300) + chunk(b"IDAT", b"") * 2**17 + END,
    ),
    "PNG profiles": (
        "too many chunks",
        SIGNATURE + header(4, 3) + chunk(b"iCCP", b"a\0\0" + ZEROS[:2000]) * 300 + END,
    ),
    "blocks without pixels": (
        "more compressed bytes than pixels",
        SIGNATURE + header(40, 30) + chunk(b"IDAT", b"\x78\x9c" + b"\0\0\0\xff\xff" * 2**16) + END,
    ),
    "TIFF strips": ("131072 strips or tiles", strips(2**17, 1)),
    "TIFF strips that are the same": ("strips overlap", strips(1000, 2000)),
    "TIFF tags": ("of 1000 tags", tiff(*[(300 + n, 3, 1, 0) for n in range(1000)])),
    "TIFF of LZMA": ("compressed by lzma", picture("TIFF", compression="lzma")),
    "compressed BMP": (
        "takes too long",
        b"BM"
        + struct.pack("<IHHI", 0, 0, 0, 1078)
        + struct.pack("<IiiHHIIiiII", 40, 900, 900, 1, 8, 1, 0, 0, 0, 256, 0)
        + bytes(1024)
        + b"\1\0" * 2**20,
    ),
    "PPM of another range": ("takes too long", b"P5 2000 2000 254\n" + bytes(4_000_000)),
    "PPM of text": ("takes too long", b"P1 2000 2000\n" + b"1" * 4_000_000),
    "PPM of a comment": ("no header", b"P5 #" + bytes(2**20)),
    "WebP of another size": (
        "pixels that are accepted",
        picture("WEBP")[:26] + struct.pack("<HH", 16383, 16383) + picture("WEBP")[30:],
    ),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", COSTLY)
def test_what_would_take_minutes_is_refused(name: str) -> None:
    reason, content = COSTLY[name]
    with refused("a picture") as raised:
        decode_image(content, "a picture")
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        scans(64),
        JPEG[:2] + b"\xff\xfe\0\2" * 1000 + JPEG[2:],
        JPEG + scans(3000) * 3,  # what follows the picture is not looked at
        JPEG[:2] + b"\xff\xe1\xff\xff" + (b"\xff\xda" * 2**15)[:65_533] + JPEG[2:],
        SIGNATURE + header(4, 3) + chunk(b"IDAT", b"") * 1000 + GOOD[33:],
        picture("TIFF", size=(30, 4000), compression="tiff_lzw"),
    ],
    ids=["scans", "segments", "behind", "bytes like scans", "chunks", "strips"],
)
def test_what_is_only_odd_is_read(content: bytes) -> None:
    decode_image(content, "a picture")
