from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.data.containers import MAX_PIXELS
from nas_core.data.images import image_size, read_image, read_mask

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 12, (9, 7), dtype=np.uint8)

many = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


IMAGE_PNG = png(Image.fromarray(PIXELS))
MASK_PNG = png(Image.fromarray(LABELS))


def write(folder: Path, content: bytes) -> Path:
    path = folder / "train" / "a.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_reads_what_was_written(tmp_path: Path) -> None:
    path = write(tmp_path, IMAGE_PNG)
    np.testing.assert_array_equal(read_image(path), PIXELS)
    assert image_size(path) == (9, 7)
    np.testing.assert_array_equal(read_mask(write(tmp_path, MASK_PNG), 12), LABELS)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_every_8_bit_kind_of_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    converted = Image.fromarray(PIXELS).convert(mode)
    image = read_image(write(tmp_path, png(converted)))
    np.testing.assert_array_equal(image, np.array(converted.convert("RGB")))


def test_16_bit_grey_keeps_the_upper_8(tmp_path: Path) -> None:
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256 + 255)
    image = read_image(write(tmp_path, png(deep)))
    np.testing.assert_array_equal(image, PIXELS[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.fromarray(PIXELS), "8-bit RGB"),
        (Image.fromarray(PIXELS).convert("RGBA"), "8-bit RGB with alpha"),
        (Image.fromarray(LABELS).convert("P"), "8-bit palette"),
        (Image.fromarray(LABELS).convert("LA"), "8-bit grey with alpha"),
        (Image.fromarray(LABELS.astype(np.uint16)), "16-bit grey"),
        (Image.fromarray(LABELS > 0), "1-bit grey"),
    ],
)
def test_masks_that_are_not_8_bit_grey_are_refused(
    tmp_path: Path, image: Image.Image, kind: str
) -> None:
    with pytest.raises(DataError, match=rf"train/a\.png: {kind} mask; expected 8-bit grey"):
        read_mask(write(tmp_path, png(image)), 12)


def test_stray_labels_are_named(tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[0, :2] = 12, 255
    with pytest.raises(DataError, match=r"train/a\.png: labels 12, 255 outside 0\.\.11"):
        read_mask(write(tmp_path, png(Image.fromarray(labels))), 12)
    labels[0] = range(20, 27)
    with pytest.raises(DataError, match=r"labels 20, 21, 22, 23, 24 \.\.\. outside"):
        read_mask(write(tmp_path, png(Image.fromarray(labels))), 12)


def test_a_tiny_file_that_claims_to_be_huge_is_refused_before_decoding(tmp_path: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = IMAGE_PNG[:12] + header + struct.pack(">I", zlib.crc32(header)) + IMAGE_PNG[33:]
    with pytest.raises(DataError, match=rf"60000x60000 pixels; at most {MAX_PIXELS}"):
        read_image(write(tmp_path, bomb))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"no image", "no image that can be read"),
        (png(Image.fromarray(PIXELS))[:40], r"damaged PNG .truncated"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "no image that can be read"),
    ],
)
def test_no_image(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"train/a\.png: {message}"):
        read_image(write(tmp_path, content))


def test_a_preview_of_a_raw_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    Image.new("RGB", (16, 12)).save(path, "TIFF", tiffinfo={254: 1})
    with pytest.raises(DataError, match=r"a\.dng: a small preview alone .* convert the picture"):
        read_image(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train/a\.png: cannot be read: No such file"):
        read_image(tmp_path / "train" / "a.png")


@many
@given(cut=st.integers(0, len(MASK_PNG) - 1))
def test_any_truncated_mask_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(DataError, match=r"train/a\.png: "):
        read_mask(write(tmp_path, MASK_PNG[:cut]), 12)


@many
@given(cut=st.integers(0, len(IMAGE_PNG) - 1))
def test_any_truncated_image_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(DataError, match=r"train/a\.png: "):
        read_image(write(tmp_path, IMAGE_PNG[:cut]))


@many
@given(place=st.integers(0, len(MASK_PNG) - 1), flip=st.integers(1, 255))
def test_a_changed_byte_never_changes_a_label_unnoticed(
    tmp_path: Path, place: int, flip: int
) -> None:
    damaged = bytearray(MASK_PNG)
    damaged[place] ^= flip
    try:
        mask = read_mask(write(tmp_path, bytes(damaged)), 12)
    except DataError:
        return
    np.testing.assert_array_equal(mask, LABELS)


@many
@given(noise=st.binary(max_size=200))
def test_noise_after_a_valid_start_is_refused(tmp_path: Path, noise: bytes) -> None:
    with pytest.raises(DataError, match=r"train/a\.png: "):
        read_image(write(tmp_path, IMAGE_PNG[:33] + noise))
