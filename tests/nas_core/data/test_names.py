"""Files in folders of folders, and names that are not what they seem."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.config import DatasetSettings
from nas_core.data import camvid, cityscapes, folder
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare

RNG = np.random.default_rng(0)
NFC = "café"
NFD = unicodedata.normalize("NFD", NFC)
LATIN_1 = "caf\udce9"  # what Python makes of the byte E9


def save(path: Path, kind: str = "") -> None:
    """A mask of labels 0 and 1 if its folder is one of masks, else an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = any(part.endswith(("masks", "annot")) for part in path.parts)
    shape = (8, 8) if mask else (8, 8, 3)
    picture = Image.fromarray(RNG.integers(0, 2 if mask else 256, shape, dtype=np.uint8))
    picture.save(path, kind or None)


def add(root: Path, split: str, name: str) -> None:
    save(root / split / "images" / f"{name}.png")
    save(root / split / "masks" / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "own"
    for name in ("train/a", "train/b", "train/c", "val/a"):
        add(root, *name.split("/"))
    (root / "dataset.yaml").write_text("classes: [road, sky]\n")
    return root


@pytest.fixture
def flat(root: Path) -> Path:
    """The images of train in one folder."""
    (root / "train" / "images").rename(root / "images")
    (root / "train" / "masks").rename(root / "masks")
    for split in ("train", "val"):
        for path in sorted((root / split).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (root / split).rmdir()
    return root


def prepare_it(root: Path) -> PreparedData:
    dataset = DatasetSettings(kind="folder", path=root.name)
    return prepare(dataset, root.parent, root.parent / "prepared" / "own")


def problems(root: Path) -> tuple[str, ...]:
    return folder.list_dataset(root).problems


def test_folders_of_folders_are_taken(root: Path) -> None:
    for name in ("night/a", "night/rain/b"):
        add(root, "train", name)
    save(root / "train/images/.ipynb_checkpoints/a.png")
    data = prepare_it(root)
    assert data.split("train").names == ("a", "b", "c", "night_a", "night_rain_b")
    (root / "train/masks/night/rain/b.png").unlink()
    assert problems(root) == (
        "train/images/night/rain/b.png: no mask train/masks/night/rain/b.png",
    )


def test_linked_folders_are_taken_and_a_link_back_has_an_end(root: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        save(tmp_path / "elsewhere" / part / "d.png")
        (root / "train" / part / "more").symlink_to(tmp_path / "elsewhere" / part)
        (root / "train" / part / "back").symlink_to(root / "train" / part)
    listing = folder.list_dataset(root)
    assert listing.problems == ()
    assert [sample.name for sample in listing.of_split("train")] == ["a", "b", "c", "more_d"]


def test_lists_and_groups_name_paths_below_images(flat: Path) -> None:
    for part in ("images", "masks"):
        save(flat / part / "night" / "a.png")
    (flat / "train.txt").write_text("a\nb.png\nc\n")
    (flat / "val.txt").write_text("night/a\n")
    listing = folder.list_dataset(flat)
    assert listing.problems == ()
    assert [sample.image for sample in listing.of_split("val")] == [flat / "images/night/a.png"]
    for name in ("train.txt", "val.txt"):
        (flat / name).unlink()
    (flat / "dataset.yaml").write_text(
        "classes: [road, sky]\nsplit: {val: 0.3, group: '^(night/|[abc])'}\n"
    )
    assert problems(flat) == ()


def test_other_layouts_take_folders_of_folders_too(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for part in (split, f"{split}annot"):
            save(tmp_path / "camvid" / part / "night" / "a.png")
    listing = camvid.list_dataset(tmp_path / "camvid")
    assert listing.problems == ()
    assert [sample.name for sample in listing.samples] == ["night_a"] * 3
    for name in ("a_1_2", "inner/a_1_3"):
        for split in ("train", "val"):
            save(tmp_path / f"city/leftImg8bit/{split}/{name}_leftImg8bit.png")
            save(tmp_path / f"city/gtFine/{split}/{name}_gtFine_labelIds.png")
    cities = cityscapes.list_dataset(tmp_path / "city")
    assert cities.problems == ()
    assert [sample.name for sample in cities.of_split("train")] == ["a_1_2", "a_1_3"]


def test_pictures_of_other_formats_are_named_as_what_they_are(root: Path) -> None:
    (root / "train/masks/a.png").unlink()
    save(root / "train/masks/a.jpg")
    (root / "train/images/b.png").unlink()
    save(root / "train/images/b.gif")
    save(root / "train/masks/c.webp")
    (root / "train/masks/c.png").unlink()
    assert problems(root) == (
        "train/images/b.gif: a GIF image; expected BMP, JPEG, PNG, PNM, TIFF or WebP: convert it",
        "train/masks/a.jpg: a JPEG mask; expected PNG, TIFF or BMP, which keeps every label as it "
        "is: save it anew from its source",
        "train/masks/c.webp: a WebP mask; expected PNG, TIFF or BMP, which keeps every label as it "
        "is: save it anew from its source",
    )


def test_names_are_matched_whatever_their_composition(flat: Path) -> None:
    save(flat / "images" / f"{NFC}.png")
    save(flat / "masks" / f"{NFD}.png")
    (flat / "train.txt").write_text("a\nb\nc\n")
    (flat / "val.txt").write_text(f"{NFD}\n")
    assert prepare_it(flat).split("val").names == (NFC,)
    save(flat / "images" / f"{NFD}.png")
    (problem,) = problems(flat)
    assert problem == f"images/{NFC}.png: is there twice, with accents composed in two ways"


def test_lists_and_descriptions_with_a_byte_order_mark(flat: Path) -> None:
    (flat / "train.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    (flat / "val.txt").write_bytes(b"\xef\xbb\xbfc\r\n")
    (flat / "dataset.yaml").write_bytes(b"\xef\xbb\xbfclasses: [road, sky]\r\n")
    assert folder.list_dataset(flat).problems == ()
    (flat / "val.txt").write_bytes("c".encode("utf-16"))
    assert problems(flat)[0] == "val.txt: cannot be read: not UTF-8 at byte 0: save it as UTF-8"


@pytest.mark.parametrize(
    ("name", "shown"), [(LATIN_1, r"caf\udce9"), ("a\nb", r"a\nb"), ("\x1b[31m", r"\x1b[31m")]
)
def test_names_that_are_no_text_are_taken_and_shown_as_escapes(
    root: Path, name: str, shown: str
) -> None:
    add(root, "train", name)
    data = prepare_it(root)
    assert shown.replace("\\", "%") in data.split("train").names
    (root / "train" / "masks" / f"{name}.png").unlink()
    with pytest.raises(DataError) as error:
        prepare_it(root)
    assert str(error.value).splitlines()[1:] == [
        f"  train/images/{shown}.png: no mask train/masks/{shown}.png"
    ]


def test_a_backslash_in_a_name(root: Path) -> None:
    add(root, "train", "a\\b")
    assert prepare_it(root).split("train").names == ("a", "a%b", "b", "c")


def test_names_that_are_no_text_can_be_divided(flat: Path) -> None:
    for part in ("images", "masks"):
        save(flat / part / f"{LATIN_1}.png")
    (flat / "dataset.yaml").write_text("classes: [road, sky]\nsplit: {val: 0.2}\n")
    assert sum(len(split) for split in prepare_it(flat).splits.values()) == 4


def test_the_name_of_a_file_goes_before_one_without_suffix(flat: Path) -> None:
    for part in ("images", "masks"):
        save(flat / part / "a.png.png")
    (flat / "train.txt").write_text("a.png\nb\n")
    (flat / "val.txt").write_text("a.png.png\nc\n")
    listing = folder.list_dataset(flat)
    assert {sample.image.name for sample in listing.of_split("train")} == {"a.png", "b.png"}
    assert {sample.image.name for sample in listing.of_split("val")} == {"a.png.png", "c.png"}


def test_a_list_of_another_name_is_not_left_out(flat: Path) -> None:
    (flat / "train.txt").write_text("a\n")
    (flat / "val.txt").write_text("b\n")
    (flat / "readme.txt").write_text("Leaves of 2019\n")
    (flat / "trainval.txt").write_text("a\nb\n")
    assert problems(flat) == ()
    (flat / "Test.txt").write_text("b\nc.png\n")
    (problem,) = problems(flat)
    assert problem.startswith("Test.txt: names c.png, which no list has")


@pytest.mark.parametrize("name", ["night", "."])
def test_images_beside_the_splits_are_not_left_out(root: Path, name: str) -> None:
    save(root / name / "images" / "d.png")
    (problem,) = problems(root)
    assert problem.startswith(f"{'images' if name == '.' else name}/: lies beside the splits")


def test_lists_beside_folders_of_splits_are_two_ways(root: Path) -> None:
    (root / "val.txt").write_text("a\n")
    assert problems(root)[0].startswith("divided in 2 ways (folders of splits, list files)")


def test_classes_are_the_same_whatever_their_composition(root: Path) -> None:
    (root / "dataset.yaml").write_text(f"classes: [{NFD}, sky]\n")
    assert folder.list_dataset(root).classes == (NFC, "sky")


def test_classes_in_two_alphabets_that_look_the_same_are_refused(root: Path) -> None:
    (root / "dataset.yaml").write_text("classes: [road, r\u043ead]\n")
    with pytest.raises(DataError, match=r"classes 'road' and 'r.u043ead' look the same: rename"):
        prepare_it(root)


def test_a_split_in_another_alphabet_is_spelt_out(root: Path) -> None:
    (root / "train").rename(root / "tr\u0430in")
    with pytest.raises(DataError) as raised:
        prepare_it(root)
    assert "tr\\u0430in" in str(raised.value) and "tr\u0430in" not in str(raised.value)
