from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_core.data.pictures import find_pictures, picture_size, read_picture
from nas_core.errors import DataError

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_other_kinds_become_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(COLOURS).convert(mode)
    path = tmp_path / ("a.png" if mode not in ("CMYK", "YCbCr") else "a.tif")
    picture.save(path)
    found = read_picture(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.array(picture.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_keeps_the_upper_8(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    np.testing.assert_array_equal(read_picture(path), RAMP[..., None].repeat(3, axis=2))


def test_a_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 8), (0, 0, 0, 0)).save(tmp_path / "a.jpg")
    assert (read_picture(tmp_path / "a.jpg") > 250).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(path, exif=exif)
    # What each value of the tag asks for, by numpy's means.
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }
    wanted = turns[orientation](COLOURS)
    np.testing.assert_array_equal(read_picture(path), wanted)
    assert picture_size(path) == wanted.shape[:2]


def _huge(path: Path) -> None:
    Image.new("1", (8192, 4097)).save(path)


def _bomb(path: Path) -> None:
    Image.new("1", (20000, 10000)).save(path)


def _animated(path: Path) -> None:
    Image.new("L", (4, 4)).save(path, save_all=True, append_images=[Image.new("L", (4, 4), 9)])


def _float(path: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32)).save(path)


def _truncated(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
        path
    )
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (_huge, "a.png", "8192x4097 pixels; at most 33554432"),
        (_bomb, "a.png", "at most 33554432"),
        (_animated, "a.png", "2 pictures in one file"),
        (_float, "a.tif", "kind F"),
        (_truncated, "a.png", "cannot be read"),
        (lambda path: path.write_bytes(b""), "a.png", "no picture"),
        (lambda path: path.write_text("hello"), "a.jpg", "no picture"),
        (lambda path: path.mkdir(), "a.png", "cannot be read"),
        (lambda path: None, "a.png", "cannot be read"),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path: Path, make, name: str, message: str) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(DataError, match=message) as raised:
        read_picture(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_folders_give_their_pictures(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "inner.png").mkdir()
    assert [path.name for path in find_pictures([tmp_path])] == ["a.png", "b.JPG"]
    assert find_pictures([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    with pytest.raises(DataError, match="no picture in this folder"):
        find_pictures([tmp_path / "inner.png"])
    with pytest.raises(DataError, match="does not exist"):
        find_pictures([tmp_path / "gone"])
