"""Kinds of masks whose meaning is beyond doubt, and those that are refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.data.images import read_labels
from nas_core.data.listing import report

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, (5, 7), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6  # a PNG's kinds of colour


def png(values: Array, colour: int, depth: int = 16) -> bytes:
    """A PNG of big-endian samples, which Pillow does not write; `values` are of its samples."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    height, width = values.shape[:2]
    flat = values.reshape(height, -1)
    if depth < 8:
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = [np.packbits(row).tobytes() for row in bits.reshape(height, -1)]
    else:
        rows = [row.astype(f">u{depth // 8}").tobytes() for row in flat]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def saved(values: Array | Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture = values if isinstance(values, Image.Image) else Image.fromarray(values)
    picture.save(file, kind, **options)
    return file.getvalue()


def tiff_of_16_bit_rgb(values: Array, order: str) -> bytes:
    """One strip, not compressed."""
    height, width = values.shape[:2]
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 2), (273, 200), (277, 3),
            (278, height), (279, values.size * 2)]  # fmt: skip
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    directory = struct.pack(order + "H", len(tags))
    for number, value in tags:
        if number == 258:
            directory += struct.pack(order + "HHII", number, 3, 3, 180)
        else:
            directory += struct.pack(order + "HHII", number, 4, 1, value)
    content = (head + directory + bytes(4)).ljust(180, b"\0") + struct.pack(
        order + "HHH", *[16] * 3
    )
    return content.ljust(200, b"\0") + values.astype(order + "u2").tobytes()


def with_alpha(values: Array, alpha: int) -> Array:
    values = values if values.ndim == 3 else values[..., None]
    return np.concatenate([values, np.full_like(values[..., :1], alpha)], axis=2)


DEEP, DEEP_COLOURS = LABELS.astype(np.uint16), COLOURS.astype(np.uint16)
KINDS: dict[str, tuple[bytes, Array]] = {
    **{
        f"{depth}-bit grey": (png(LABELS % most, GREY, depth), LABELS % most)
        for depth, most in ((1, 2), (2, 4), (4, 4), (8, 4))
    },
    "16-bit grey": (png(DEEP, GREY), LABELS),
    "16-bit grey, a byte twice": (png(DEEP * 257, GREY), LABELS),
    "16-bit RGB": (png(DEEP_COLOURS, RGB), COLOURS),
    "16-bit RGB, a byte twice": (png(DEEP_COLOURS * 257, RGB), COLOURS),
    "16-bit RGB, upper byte": (png(DEEP_COLOURS * 256, RGB), COLOURS),
    "16-bit RGB, on another scale": (
        png(np.clip(COLOURS.astype(int) * 257 - 100, 0, None), RGB), COLOURS),
    "grey with alpha": (saved(with_alpha(LABELS, 255), "PNG"), LABELS),
    "RGB with alpha": (saved(with_alpha(COLOURS, 255), "PNG"), COLOURS),
    "16-bit grey with alpha": (png(with_alpha(DEEP, 65535), GREY_ALPHA), LABELS),
    "16-bit RGB with alpha": (
        png(with_alpha(DEEP_COLOURS * 257, 65535), RGB_ALPHA), COLOURS),
    "TIFF": (saved(LABELS, "TIFF", compression="tiff_lzw"), LABELS),
    "1-bit TIFF": (saved(LABELS > 1, "TIFF"), LABELS > 1),
    "16-bit TIFF": (saved(DEEP, "TIFF", compression="tiff_adobe_deflate"), LABELS),
    "RGB TIFF": (saved(COLOURS, "TIFF", compression="packbits"), COLOURS),
    "RGB TIFF with alpha": (saved(with_alpha(COLOURS, 255), "TIFF"), COLOURS),
    "16-bit RGB TIFF": (tiff_of_16_bit_rgb(DEEP_COLOURS, "<"), COLOURS),
    "16-bit RGB TIFF, big-endian": (tiff_of_16_bit_rgb(DEEP_COLOURS * 257, ">"), COLOURS),
    "BMP": (saved(LABELS, "BMP"), LABELS),
    "RGB BMP": (saved(COLOURS, "BMP"), COLOURS),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_masks_beyond_doubt(tmp_path: Path, kind: str) -> None:
    content, expected = KINDS[kind]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    values, palette = read_labels(path)
    assert values.dtype == np.uint8
    assert palette is None
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_palette_masks(tmp_path: Path, kind: str, depth: int) -> None:
    indices = LABELS % min(4, 2**depth)
    picture = Image.frombytes("P", (7, 5), indices.tobytes())
    colours = [[9, 9, 9], [250, 0, 0], [0, 250, 0], [0, 0, 250]]
    picture.putpalette([channel for colour in colours for channel in colour])
    options = {"bits": depth} if kind == "PNG" else {}
    (tmp_path / "a.png").write_bytes(saved(picture, kind, **options))
    values, palette = read_labels(tmp_path / "a.png")
    np.testing.assert_array_equal(values, indices)
    assert palette is not None
    np.testing.assert_array_equal(palette[values], np.array(colours)[indices])


REFUSED: dict[str, tuple[bytes, str]] = {
    "JPEG": (saved(COLOURS, "JPEG"), "a mask stored as JPEG, .* save it anew from its source"),
    "WebP": (saved(COLOURS, "WEBP", lossless=True), "a mask stored as WEBP"),
    "JPEG in a TIFF": (saved(COLOURS, "TIFF", compression="jpeg"), "a mask stored as JPEG"),
    "alpha": (
        png(with_alpha(DEEP_COLOURS * 257, 65534), RGB_ALPHA),
        "16-bit RGB with alpha mask, not opaque everywhere: save it without alpha",
    ),
    "grey alpha": (saved(with_alpha(LABELS, 0), "PNG"), "8-bit grey with alpha mask, not opaque"),
    "16 bits": (png(DEEP + 254, GREY), r"16-bit grey mask with labels 256, 257; a label is 0 to"),
    "white is zero": (
        saved(LABELS > 1, "TIFF", tiffinfo={262: 0}), "a TIFF mask whose white is zero"),
    "32 bits": (saved(LABELS.astype(np.int32), "TIFF"), "values of kind I: save it as PNG"),
    "float": (saved(LABELS.astype(np.float32), "TIFF"), "values of kind F: save it as PNG"),
    "PPM": (saved(COLOURS, "PPM"), "a PPM file; masks are PNG, TIFF or BMP files"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_masks_that_are_refused(tmp_path: Path, kind: str) -> None:
    content, message = REFUSED[kind]
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_labels(tmp_path / "a.png", tmp_path)
    assert str(error.value).startswith("a.png: ")
    assert "\n" not in str(error.value)


def test_many_files_with_one_fault_are_one_line(tmp_path: Path) -> None:
    names = [f"{number:03}" for number in range(940)]
    alpha = [f"masks/{name}.png: an alpha" for name in names]
    unpaired = [f"images/{name}.jpg: no mask masks/{name}.png" for name in names[:4]]
    sizes = [f"masks/{name}.png: {name}x4; its image is 8x6" for name in names[:5]]
    few = [f"masks/{name}.bmp: empty file" for name in names[:3]]
    lines = str(report(tmp_path, [*alpha, *unpaired, *sizes, *few, "train: empty"])).split("\n  ")
    assert lines == [
        f"dataset {tmp_path} has 953 problems:",
        "940 files, as masks/000.png, masks/001.png, masks/002.png: an alpha",
        "4 files, as images/000.jpg, images/001.jpg, images/002.jpg: no mask masks/*.png",
        "5 files, as masks/000.png, masks/001.png, masks/002.png: 000x4, or 001x4, or "
        "002x4, ...; its image is 8x6",
        *few,
        "train: empty",
    ]
