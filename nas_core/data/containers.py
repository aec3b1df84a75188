"""Image files whose structure is sound and whose decoding takes seconds, told before decoding them.

A small file can ask for minutes of work: thousands of scans over one picture, millions of empty
parts, pixels that a decoder in Python takes one by one. Each format has limits of its own here;
they are far above what cameras and programs write.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from nas_core.base.errors import DataError
from nas_core.data.jpeg import END_OF_IMAGE, START_OF_SCAN, segments

MAX_PIXELS = 2**25
"""More (about 33 megapixels) is refused before decoding: a small file can claim any size."""

MAX_BYTES = 2**28
"""No image of MAX_PIXELS needs more, even if it is not compressed at all."""

MAX_SCANS = 64
"""Of a JPEG. A progressive one has about 10; each is a pass over all of its pixels."""

MAX_PARTS = 2**16
"""Chunks of pixels of a PNG (8 KiB each, as a rule), strips or tiles of a TIFF, and segments and
stray bytes before the pixels of a JPEG: Pillow reads them one by one, in Python."""

MAX_EXTRAS = 2**8
"""Chunks of a PNG without pixels, and tags of a TIFF."""

MAX_JPEG_METADATA = 2**24

PNG = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_BETWEEN = rb"\s(?:\s|#[^\r\n]*[\r\n])*"
_PPM_HEADER = re.compile(
    rb"P(?:[14](?:%b\d+){2}|[2356](?:%b\d+){2}%b(\d+))\s" % (_BETWEEN, _BETWEEN, _BETWEEN)
)
_PPM_HEADER_BYTES = 2**16
# Of interlaced PNGs: the first column and row of a pass, and the distance of its columns and rows
# (https://www.w3.org/TR/png-3/#8Interlace).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
           (0, 1, 1, 2))  # fmt: skip
_PIECE = 2**16
_TIFF_PARTS = (273, 324)  # StripOffsets, TileOffsets
_TIFF_SIZES = {279: "strips", 325: "tiles"}  # StripByteCounts, TileByteCounts
_TIFF_TYPES = {3: "u2", 4: "u4", 16: "u8"}


def check_container(content: bytes, name: str) -> None:
    """Refuse a file that is damaged as a container, or costly to decode.

    Of formats that are not known here nothing is said.

    Raises:
        DataError: the message begins with `name`.
    """
    if not content:
        raise DataError(f"{name}: empty file")
    if len(content) > MAX_BYTES:
        raise DataError(f"{name}: more than {MAX_BYTES} bytes")
    for magic, check in _CHECKS.items():
        if content.startswith(magic):
            check(content, name)


def check_pixels(width: int, height: int, name: str) -> None:
    """Raise a DataError unless a picture of this size has pixels, and few enough to be decoded."""
    if not width * height:
        raise DataError(f"{name}: {width}x{height}: an image without pixels")
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name}: {width}x{height} pixels; at most {MAX_PIXELS} are accepted: "
            "scale it down or cut it up"
        )


def png_kind(content: bytes) -> tuple[int, str]:
    """Bits of a channel and kind of colour of a PNG (https://www.w3.org/TR/png-3/#11IHDR)."""
    return content[24], _COLOUR_TYPES[content[25]]


def _check_png(content: bytes, name: str) -> None:
    """What the chunks say together; Pillow would ask for none of it."""
    place, kind = len(PNG), b""
    num_chunks: Counter[bytes] = Counter()
    pixels: list[memoryview] = []
    while kind != b"IEND":
        kind, end = _png_chunk(content, place, name)
        if (kind == b"IHDR") == bool(num_chunks) or (kind == b"IHDR" and end - place != 25):
            raise _damaged(name, "PNG", "not one header at its beginning")
        num_chunks[kind] += 1
        if kind == b"IDAT":
            pixels.append(memoryview(content)[place + 8 : end - 4])
        num_others = num_chunks.total() - num_chunks[b"IDAT"]
        if num_chunks[b"IDAT"] > MAX_PARTS or num_others > MAX_EXTRAS:
            raise _costly(name, "PNG of too many chunks")
        place = end
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBBxxB", content, 16)
    check_pixels(width, height, name)
    if colour not in _COLOUR_TYPES:
        raise _damaged(name, "PNG", f"unknown kind of colour {colour}")
    if colour == 3 and b"PLTE" not in num_chunks:
        raise _damaged(name, "PNG", "its palette is missing")
    # A row has a byte for its filter; interlaced rows of a pixel each have one as well.
    bits = depth * _CHANNELS[colour]
    num_compressed = sum(12 + len(part) for part in pixels)
    if num_compressed > 2 * (width * bits // 8 + 2) * height + 2**16:
        raise _costly(name, "PNG of more compressed bytes than pixels")
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    expected = sum(_num_bytes(width, height, bits, *one) for one in passes)
    if _ends_early(pixels, expected):
        raise _damaged(name, "PNG", f"it has pixels for a part of its {height} rows")


def _num_bytes(width: int, height: int, bits: int, x: int, y: int, dx: int, dy: int) -> int:
    """Of a pass over a PNG, whose rows have a byte for their filter each."""
    columns, rows = (width - x + dx - 1) // dx, (height - y + dy - 1) // dy
    return rows * (1 + (columns * bits + 7) // 8) if columns else 0


def _ends_early(parts: Sequence[memoryview], expected: int) -> bool:
    """Whether compressed pixels end before there are `expected` bytes: Pillow calls the rest 0.

    What cannot be decompressed is left to Pillow, which says so.
    """
    stream = zlib.decompressobj()
    for piece in (part[at : at + _PIECE] for part in parts for at in range(0, len(part), _PIECE)):
        rest: bytes | memoryview = piece
        while rest and expected > 0:
            try:
                expected -= len(stream.decompress(rest, 16 * _PIECE))
            except zlib.error:
                return False
            rest = stream.unconsumed_tail
    return expected > 0 and stream.eof


def _png_chunk(content: bytes, place: int, name: str) -> tuple[bytes, int]:
    """Kind and end of the chunk that begins at `place`, whose checksum is right."""
    length, kind = struct.unpack(">I4s", content[place : place + 8].ljust(8, b"\xff"))
    end = place + 12 + length
    if end > len(content):
        raise _damaged(name, "PNG", "truncated")
    checksum = zlib.crc32(memoryview(content)[place + 4 : end - 4])
    if checksum != int.from_bytes(content[end - 4 : end], "big"):
        raise _damaged(name, "PNG", f"wrong checksum of its chunk {ascii(kind)[1:]}")
    return kind, end


def _check_jpeg(content: bytes, name: str) -> None:
    """Walks from marker to marker, as libjpeg does, to the end of the image."""
    place, num_parts, num_scans = 2, 0, 0
    for marker, start, end in segments(content):
        if marker == END_OF_IMAGE:
            return
        num_scans += marker == START_OF_SCAN
        if not num_scans:
            num_parts += 1 + start - place
        if num_parts > MAX_PARTS or (not num_scans and place > MAX_JPEG_METADATA):
            raise _costly(name, "JPEG of too many segments before its pixels")
        if num_scans > MAX_SCANS:
            raise _costly(name, f"JPEG of more than {MAX_SCANS} scans")
        place = end
    if not num_scans and len(content) - place > MAX_PARTS:
        raise _damaged(name, "JPEG", "no pixels in it")


def _check_ppm(content: bytes, name: str) -> None:
    header = _PPM_HEADER.match(content[:_PPM_HEADER_BYTES])
    if not header:
        raise _damaged(name, "PPM", "no header of width, height and greatest value")
    if content[:2] not in (b"P5", b"P6"):
        return  # of values in digits Pillow sees to it
    greatest = int(header[1][:6])
    dtype = np.dtype(">u2" if greatest > 255 else "u1")
    raster = memoryview(content)[header.end() :]
    values = np.frombuffer(raster[: len(raster) // dtype.itemsize * dtype.itemsize], dtype)
    if values.size and values.max() > greatest:
        raise _damaged(name, "PPM", f"a value above {greatest}, its greatest one")


def _check_tiff(content: bytes, name: str) -> None:
    """The first directory: one picture, of few parts that do not overlap."""
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    word, entry = (order + "Q", order + "HHQ8s") if big else (order + "I", order + "HHI4s")
    entries = order + ("Q" if big else "H")
    try:
        (offset,) = struct.unpack_from(word, content, 8 if big else 4)
        (num_tags,) = struct.unpack_from(entries, content, offset)
        if num_tags > MAX_EXTRAS:
            raise _costly(name, f"TIFF of {num_tags} tags")
        place = offset + struct.calcsize(entries)
        for _ in range(num_tags):
            tag, kind, count, value = struct.unpack_from(entry, content, place)
            if tag in _TIFF_PARTS and count > MAX_PARTS:
                raise _costly(name, f"TIFF of {count} strips or tiles")
            if tag in _TIFF_SIZES and kind in _TIFF_TYPES:
                dtype = np.dtype(order + _TIFF_TYPES[kind])
                inline = count * dtype.itemsize <= len(value)
                (at,) = struct.unpack(word, value)
                sizes = np.frombuffer(
                    value if inline else content, dtype, count, 0 if inline else at
                )
                if sizes.sum(dtype=np.float64) > len(content):
                    raise _costly(name, f"TIFF whose {_TIFF_SIZES[tag]} overlap")
            place += struct.calcsize(entry)
        (following,) = struct.unpack_from(word, content, place)
    except (struct.error, ValueError, OverflowError) as error:
        raise _damaged(name, "TIFF", str(error)) from None
    if following:
        raise DataError(f"{name}: several pictures in one file; save each as a file of its own")


def _damaged(name: str, kind: str, reason: str) -> DataError:
    return DataError(f"{name}: damaged {kind} ({reason})")


def _costly(name: str, what: str) -> DataError:
    return DataError(f"{name}: a {what}, which takes too long to read: save it anew as PNG")


_CHECKS: dict[bytes, Callable[[bytes, str], None]] = {
    PNG: _check_png,
    b"\xff\xd8": _check_jpeg,
    **{b"P%d" % number: _check_ppm for number in range(1, 7)},
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _check_tiff),
}
