"""Ways in which images and masks lie on a disk, each read where it lies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.config import DatasetKind, DatasetSettings, SyntheticSettings
from nas_core.data import layouts
from nas_core.data.description import VOC_VOID_COLOUR, read_description, undescribed
from nas_core.data.folder import has_layout, list_dataset
from nas_core.data.layouts import find_kind
from nas_core.data.listing import Listing
from nas_core.data.patterns import Patterns

COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
RNG = np.random.default_rng(0)


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(path)


def mask(path: Path, colours: bool = False) -> np.ndarray:
    """A mask of the classes 0 to 2, returned too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    classes = RNG.integers(0, 3, (6, 8), dtype=np.uint8)
    Image.fromarray(COLOURS[classes] if colours else classes).save(path)
    return classes


def both(root: Path, images: str, masks: str, *names: str, suffix: str = "") -> None:
    for name in names:
        image(root / images / f"{name}.jpg")
        mask(root / masks / f"{name}{suffix}.png")


def describe(root: Path, **more: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.yaml").write_text(yaml.safe_dump({"classes": ["a", "b", "c"], **more}))


def splits(listing: Listing) -> dict[str, list[str]]:
    assert listing.problems == ()
    return {split: [s.name for s in listing.of_split(split)] for split in listing.splits}


@pytest.mark.parametrize("kind", get_args(DatasetKind))
def test_every_kind_has_its_case(tmp_path: Path, kind: DatasetKind) -> None:
    """A folder that holds nothing of it is named, and none is taken for another."""
    (tmp_path / "set").mkdir()
    small = SyntheticSettings(num_train=2, num_val=1, num_test=1, height=32, width=32)
    try:
        found = layouts.list_dataset(
            DatasetSettings(kind=kind, path="set", synthetic=small), tmp_path
        )
    except DataError as error:
        assert kind != "synthetic" and str(tmp_path / "set") in str(error)
    else:
        assert bool(found.problems) == (kind != "synthetic")


def test_ade20k_and_mmsegmentation(tmp_path: Path) -> None:
    layouts = {
        "ade": ("images/{}", "annotations/{}", ("training", "validation", "test")),
        "mm": ("img_dir/{}", "ann_dir/{}", ("train", "val", "test")),
        "masks": ("images/{}", "masks/{}", ("train", "val", "test")),
        "labels": ("images/{}", "labels/{}", ("train", "valid", "test")),
    }
    for name, (images, masks, folders) in layouts.items():
        root = tmp_path / name
        describe(root)
        for folder, names in zip(folders, (("1", "2"), ("1",), ("3",)), strict=True):
            both(root, images.format(folder), masks.format(folder), *names)
        listing = list_dataset(root)
        assert splits(listing) == {"train": ["1", "2"], "val": ["1"], "test": ["3"]}
        first = f"{images.format(folders[0])}/ beside {masks.format(folders[0])}/"
        assert listing.layout == f"{first}, as of ADE20K and mmsegmentation"


def test_a_missing_split_is_taken_from_train_beside_those_that_are_there(tmp_path: Path) -> None:
    names = [f"v{number // 5}_{number}" for number in range(20)]
    both(tmp_path, "images/training", "annotations/training", *names)
    both(tmp_path, "images/test", "annotations/test", "z", "v0_0")
    describe(tmp_path)
    problems = list_dataset(tmp_path).problems
    assert problems == (
        "images/val/: folder is missing",
        "annotations/val/: folder is missing; split: {val: 0.15} in dataset.yaml takes val from "
        "train",
    )
    describe(tmp_path, split={"val": 0.25, "group": r"^v\d"})
    listing = list_dataset(tmp_path)
    found = splits(listing)
    assert {len(found["train"]), len(found["val"])} == {15, 5}
    assert len({name[:2] for name in found["val"]}) == 1
    assert found["test"] == ["v0_0", "z"]
    assert listing.layout.endswith("mmsegmentation, val by shares")
    describe(tmp_path, split={"val": 0.25, "test": 0.1})
    assert list_dataset(tmp_path).problems == (
        "test is given twice: it lies there, and is a share of split in dataset.yaml",
    )
    describe(tmp_path, split={"val": 0.9, "group": r"^v"})
    assert "leaves nothing to train on" in list_dataset(tmp_path).problems[0]


def test_folders_of_splits_lists_and_two_folders(tmp_path: Path) -> None:
    folders = tmp_path / "folders"
    describe(folders, split={"val": 0.3})
    both(folders, "train/images", "train/masks", "a", "b", "c")
    found = splits(list_dataset(folders))
    assert sorted(found["train"] + found["val"]) == ["a", "b", "c"]
    assert len(found["val"]) == 1
    both(folders, "training/images", "training/masks", "d")
    assert list_dataset(folders).problems[0] == (
        "train/images/ and training/images/ are both folders of train: leave one"
    )
    for masks in ("labels", "annotations"):
        other = tmp_path / masks
        describe(other)
        both(other, "train/images", f"train/{masks}", "a", "b")
        both(other, "val/images", f"val/{masks}", "a")
        listing = list_dataset(other)
        assert splits(listing) == {"train": ["a", "b"], "val": ["a"]}
        assert listing.layout == f"train/images/ beside train/{masks}/, folders of splits"
        mask(other / "val/masks/a.png")
        twice = f"val/images/ beside val/{masks}/: there are masks in val/masks/ too"
        assert any(problem.startswith(twice) for problem in list_dataset(other).problems)
        (other / "val/masks").rename(other / "val/more")
        image(other / "test/images/a.jpg")
        assert list_dataset(other).problems == (
            "test/masks/: folder is missing: without masks nothing can be scored; move "
            "test/images/ away",
        )
    unknown = tmp_path / "unknown"
    describe(unknown)
    both(unknown, "train/image", "train/mask", "a")
    listing = list_dataset(unknown)
    assert listing.layout == "none that is known"
    assert listing.problems[0].startswith("no known layout: expected images/ beside masks/, ")
    lists = tmp_path / "lists"
    describe(lists)
    both(lists, "images/train", "masks/train", "a", "b", "c")
    (lists / "train.txt").write_text("train/a\ntrain/b.jpg\n")
    (lists / "val.txt").write_text("train/c\n")
    listing = list_dataset(lists)
    assert splits(listing) == {"train": ["train_a", "train_b"], "val": ["train_c"]}
    assert listing.layout == "images/ beside masks/, divided by train.txt, val.txt"
    (lists / "val.txt").unlink()
    describe(lists, split={"val": 0.5})
    assert {len(names) for names in splits(list_dataset(lists)).values()} == {1}
    (lists / "train.txt").write_text("\n".join(f"gone{number}" for number in range(9)))
    assert list_dataset(lists).problems == (
        "train.txt: 9 images that are not in images/ with a mask, as line 1: gone0, "
        "line 2: gone1, line 3: gone2",
        "train.txt: names no image",
    )


def test_masks_of_other_names_need_patterns(tmp_path: Path) -> None:
    both(tmp_path, "images", "masks", "a", "b", suffix="_mask")
    describe(tmp_path, split={"val": 0.5})
    assert list_dataset(tmp_path).problems[-1].startswith("masks/: no mask has the name of its")
    describe(tmp_path, split={"val": 0.5}, images="images/*", masks="masks/{stem}_mask.png")
    for name in ("Thumbs.db", "desktop.ini", "__MACOSX/x.jpg", ".DS_Store"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"left behind")
    assert {len(names) for names in splits(list_dataset(tmp_path)).values()} == {1}


def test_a_folder_around_the_data_set_is_told(tmp_path: Path) -> None:
    both(tmp_path, "leaves/images", "leaves/masks", "a")
    (tmp_path / "__MACOSX").mkdir()
    with pytest.raises(DataError, match=f"no known layout, but {tmp_path / 'leaves'} has one"):
        find_kind(tmp_path)
    both(tmp_path, "stems/images", "stems/masks", "a")
    with pytest.raises(DataError, match=r"no known layout: expected dataset\.yaml"):
        find_kind(tmp_path)


def voc(root: Path, images: str = "JPEGImages") -> np.ndarray:
    """Four images with a mask, one without; the classes of `a`'s, whose first row is void."""
    both(root, images, "SegmentationClass", "a", "b c", "d", "e")
    image(root / images / "unlabelled.jpg")
    classes = mask(root / "SegmentationClass/a.png", colours=True)
    pixels = COLOURS[classes]
    pixels[0] = VOC_VOID_COLOUR
    Image.fromarray(pixels).save(root / "SegmentationClass/a.png")
    classes[0] = 255
    indexed = Image.fromarray(classes)
    indexed = Image.frombytes("P", indexed.size, indexed.tobytes())
    palette = np.zeros((256, 3), np.uint8)
    palette[:3], palette[255] = COLOURS, VOC_VOID_COLOUR
    indexed.putpalette(palette.tobytes())
    indexed.save(root / "SegmentationClass/d.png")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    return classes


LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nleaf:128,0,0::\nstem: 0,128,0 ::\n"


def test_pascal_voc_as_cvat_writes_it(tmp_path: Path) -> None:
    classes = voc(tmp_path)
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    lists = tmp_path / "ImageSets/Segmentation"
    (lists / "Train.txt").write_text('a\n"b c"\n')
    (lists / "Validation.txt").write_text("d\n")
    (lists / "trainval.txt").write_text("a\nd\n")
    assert find_kind(tmp_path) == "folder"
    listing = list_dataset(tmp_path)
    assert splits(listing) == {"train": ["a", "b c"], "val": ["d"]}
    assert listing.unused == ("e",)
    assert listing.classes == ("background", "leaf", "stem")
    assert listing.palette[1] == (128, 0, 0)
    assert listing.layout == (
        "Pascal VOC: JPEGImages/ beside SegmentationClass/, divided by "
        "ImageSets/Segmentation/Train.txt, ImageSets/Segmentation/Validation.txt"
    )
    for name in ("a", "d"):
        np.testing.assert_array_equal(
            listing.read_mask(tmp_path / f"SegmentationClass/{name}.png"), classes
        )
    assert listing.unmasked == ()
    (lists / "Train.txt").write_text("a\nunlabelled\n")
    listing = list_dataset(tmp_path)
    assert (listing.problems, listing.unmasked) == ((), ("unlabelled",))
    assert splits(listing)["train"] == ["a"]
    (lists / "Train.txt").write_text("a\nmissing\n")
    assert list_dataset(tmp_path).problems == (
        "Train.txt, line 2: missing: no such image with a mask in JPEGImages/",
    )


def test_pascal_voc_without_labelmap_or_with_one_list(tmp_path: Path) -> None:
    classes = voc(tmp_path, "images")
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("b c\nd\ne\n")
    describe(tmp_path, split={"val": 0.3})
    listing = list_dataset(tmp_path)
    found = splits(listing)
    assert sorted(found["train"] + found["val"]) == ["b c", "d", "e"]
    np.testing.assert_array_equal(listing.read_mask(tmp_path / "SegmentationClass/d.png"), classes)
    describe(tmp_path)
    missing = "val.txt: is missing; split: {val: 0.15} in dataset.yaml takes val from train"
    assert missing in list_dataset(tmp_path).problems
    (tmp_path / "images").rename(tmp_path / "pictures")
    assert "JPEGImages/: folder is missing" in list_dataset(tmp_path).problems
    (tmp_path / "pictures").rename(tmp_path / "images")
    (tmp_path / "dataset.yaml").unlink()
    assert has_layout(tmp_path)
    with pytest.raises(DataError, match=r"dataset\.yaml does not exist.* `nas data check` writes"):
        list_dataset(tmp_path)


def test_a_labelmap_beside_a_description_without_classes(tmp_path: Path) -> None:
    classes = voc(tmp_path)
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text('"b c"\nd\ne\n')
    (tmp_path / "dataset.yaml").write_text("split: {val: 0.3}\n")
    assert undescribed(tmp_path) is None
    listing = list_dataset(tmp_path)
    assert {split: len(names) for split, names in splits(listing).items()} == {"train": 2, "val": 1}
    assert listing.classes == ("background", "leaf", "stem")
    np.testing.assert_array_equal(listing.read_mask(tmp_path / "SegmentationClass/d.png"), classes)
    (tmp_path / "labelmap.txt").write_text(LABELMAP.replace("stem", "stalk"))
    assert list_dataset(tmp_path).data_hash != listing.data_hash
    (tmp_path / "dataset.yaml").write_text("split: {val: 0.4}\n")
    (tmp_path / "labelmap.txt").write_text(LABELMAP)
    assert list_dataset(tmp_path).data_hash != listing.data_hash
    (tmp_path / "dataset.yaml").write_text("split: {val: 2}\n")
    (tmp_path / "labelmap.txt").write_text("a:0,0,0::\nb:0,0,300::\n")
    with pytest.raises(DataError, match=r"dataset\.yaml: split\.val: .*") as error:
        read_description(tmp_path)
    assert "labelmap.txt: classes.1.colour" in str(error.value)
    describe(tmp_path)
    assert read_description(tmp_path).labels == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names no class"),
        ("a:0,0,0::\nb:::\n", r"labelmap\.txt, line 2: expected NAME:RED,GREEN,BLUE::"),
        ("a:0,0,0::\nb:1,2::\nc\n", r"2 problems:\n  labelmap.txt, line 2.*\n  .*line 3"),
        ("a:0,0,0::\nb:0,0,300::\n", r"labelmap\.txt: classes\.1\.colour"),
        ("a:0,0,0::\nb:0,0,0::\n", r"labelmap\.txt: colour \(0, 0, 0\) is given 2 times"),
        ("a:0,0,0::\na:0,0,9::\n", r"labelmap\.txt: class a is given 2 times"),
    ],
)
def test_a_labelmap_that_is_not_valid(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "SegmentationClass").mkdir()
    (tmp_path / "labelmap.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        read_description(tmp_path)


def test_image_and_mask_side_by_side(tmp_path: Path) -> None:
    roboflow = tmp_path / "roboflow"
    describe(roboflow)
    both(roboflow, "train", "train", "x", "y", suffix="_mask")
    both(roboflow, "valid", "valid", "x", suffix="_mask")
    listing = list_dataset(roboflow)
    assert splits(listing) == {"train": ["x", "y"], "val": ["x"]}
    assert listing.layout == "image and mask side by side, as NAME.jpg and NAME_mask.png"
    one = tmp_path / "one"
    describe(one, mask_suffix="-gt", split={"val": 0.3})
    both(one, "", "", "x", "night/y", "z", suffix="-gt")
    found = splits(list_dataset(one))
    assert sorted(found["train"] + found["val"]) == ["night_y", "x", "z"]
    image(one / "lonely.png")
    mask(one / "other-gt.png")
    assert list_dataset(one).problems == (
        "lonely.png: no mask lonely-gt.png",
        "other-gt.png: no image other beside it",
    )


def tiles(root: Path) -> None:
    for tile in (1, 2, 3):
        both(root, f"Tile {tile}/images", f"Tile {tile}/masks", "part_1", "part_2")


TILES = {"images": "Tile */images/*.jpg", "masks": "Tile */masks/{stem}.png"}


def test_patterns(tmp_path: Path) -> None:
    tiles(tmp_path)
    describe(tmp_path, **TILES, group="{1}", split={"val": 0.3})
    listing = list_dataset(tmp_path)
    found = splits(listing)
    assert {len(found["train"]), len(found["val"])} == {4, 2}
    assert len({name[:6] for name in found["val"]}) == 1
    for sample in listing.samples:
        assert sample.mask == sample.image.parents[1] / "masks" / f"{sample.image.stem}.png"
    assert listing.layout == (
        "patterns in dataset.yaml: Tile */images/*.jpg with Tile */masks/{stem}.png, val by shares"
    )
    (tmp_path / "train.txt").write_text("Tile 1/images/part_1\nTile 1/images/part_2.jpg\n")
    (tmp_path / "val.txt").write_text("Tile 2/images/part_1\n")
    describe(tmp_path, **TILES)
    assert len(splits(list_dataset(tmp_path))["train"]) == 2


def test_suffixes_in_capitals_match_patterns(tmp_path: Path) -> None:
    both(tmp_path, "rgb", "gt", "a", "b", "c")
    (tmp_path / "rgb/b.jpg").rename(tmp_path / "rgb/b.JPG")
    (tmp_path / "gt/c.png").rename(tmp_path / "gt/c.PNG")
    patterns = {"images": "rgb/*.jpg", "masks": "gt/{stem}.png"}
    describe(tmp_path, **patterns, split={"val": 0.3})
    listing = list_dataset(tmp_path)
    found = splits(listing)
    assert sorted(found["train"] + found["val"]) == ["rgb_a", "rgb_b", "rgb_c"]
    assert {sample.mask.name for sample in listing.samples} == {"a.png", "b.png", "c.PNG"}
    image(tmp_path / "rgb/a.JPG")
    assert list_dataset(tmp_path).problems == ("rgb/a.jpg: gt/a.png is the mask of rgb/a.JPG too",)


def test_patterns_that_name_splits(tmp_path: Path) -> None:
    for split, name in (("Train", "1"), ("Train", "2"), ("validation", "1")):
        both(tmp_path, f"{split}/deep/rgb", f"{split}/deep/gt", name)
    patterns = {"images": "{split}/**/rgb/*.jpg", "masks": "{split}/{1}/gt/{2}.png"}
    describe(tmp_path, **patterns)
    assert {split: len(names) for split, names in splits(list_dataset(tmp_path)).items()} == {
        "train": 2, "val": 1,
    }  # fmt: skip
    patterns["images"] = "{split}/**/rgb/1.jpg"
    describe(tmp_path, images=patterns["images"], masks="{split}/{1}/gt/{stem}.png")
    assert len(splits(list_dataset(tmp_path))["train"]) == 1
    (tmp_path / "validation").rename(tmp_path / "other")
    (problem,) = list_dataset(tmp_path).problems
    assert problem.startswith("val: no image: name some, or take them from train by split")


@pytest.mark.parametrize(
    ("pattern", "path", "stars"),
    [
        ("*.jpg", "a.jpg", ["a"]),
        ("*.jpg", "b/a.jpg", None),
        ("**/*.jpg", "a.jpg", ["", "a"]),
        ("**/*.jpg", "b/c/a.jpg", ["b/c", "a"]),
        ("a?/[1].*", "ab/[1].png", ["png"]),
        ("a?/*", "a/b", None),
        ("A/*.jpg", "A/b.JPG", ["b"]),
        ("A/*.jpg", "a/b.jpg", None),
        ("a.b/*", "A.B/c", None),
        ("a.*", "a.JPG", ["JPG"]),
    ],
)
def test_what_stars_stand_for(pattern: str, path: str, stars: list[str] | None) -> None:
    count = len(re.findall(r"\*\*|\*", pattern))
    group = "|".join(f"{{{number}}}" for number in range(1, count + 1))
    found = Patterns(pattern, "m/{stem}", group).match(path)
    assert (found and found.group) == (stars and "|".join(stars))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": None}, "yaml: the patterns images and masks go together"),
        ({"images": "/etc/*"}, "images: expected a path in the folder of the dataset"),
        ({"masks": "../{stem}.png"}, "masks: expected a path in the folder of the dataset"),
        ({"masks": "Tile {3}/{stem}.png"}, r"masks: \{3\}: there are \{1\}, \{2\}, \{stem\}"),
        ({"masks": "*/*/*.png"}, r"masks: \{3\}: there are"),
        ({"group": "{name}"}, r"group: \{name\}: there are"),
        ({"images": "{city}/*.jpg"}, r"images: \{city\}: there are \*, \*\*, \?"),
        ({"group": "{1}", "split": {"val": 0.1, "group": "x"}}, "group and split.group are given"),
        ({"mask_suffix": "_m"}, "mask_suffix and the patterns images and masks are two ways"),
        ({"images": None, "masks": None, "group": "{1}"}, "use split.group"),
        ({"split": {}}, "split: give the share of val or of test"),
    ],
)
def test_patterns_that_are_not_valid(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    tiles(tmp_path)
    values = {key: value for key, value in {**TILES, **changes}.items() if value is not None}
    describe(tmp_path, **values)
    with pytest.raises(DataError, match=message) as error:
        list_dataset(tmp_path)
    assert str(error.value).count("\n") == 1


def test_patterns_that_find_nothing_or_one_mask_twice(tmp_path: Path) -> None:
    tiles(tmp_path)
    describe(tmp_path, images="Tile */images/*.tif", masks="{stem}.png", split={"val": 0.3})
    assert list_dataset(tmp_path).problems == (
        "dataset.yaml: images: Tile */images/*.tif is no file's path; there are "
        "Tile 1/images/part_1.jpg, Tile 1/images/part_2.jpg, Tile 1/masks/part_1.png and 10 more",
    )
    describe(
        tmp_path, images="**/images/*.jpg", masks="Tile 1/masks/{stem}.png", split={"val": 0.3}
    )
    assert list_dataset(tmp_path).problems[0] == (
        "Tile 2/images/part_1.jpg: Tile 1/masks/part_1.png is the mask of "
        "Tile 1/images/part_1.jpg too"
    )
    describe(tmp_path, images="**/*.png", masks="{1}/{stem}.png", split={"val": 0.3})
    assert "names the image itself" in list_dataset(tmp_path).problems[0]
    describe(tmp_path, **{**TILES, "masks": "Tile */gt/{stem}.png"}, split={"val": 0.3})
    assert list_dataset(tmp_path).problems[0] == (
        "Tile 1/images/part_1.jpg: no mask Tile 1/gt/part_1.png"
    )


@pytest.mark.parametrize("name", ["dataset.yml", "Dataset.yaml", "DATASET.YML"])
def test_a_description_of_nearly_the_right_name(tmp_path: Path, name: str) -> None:
    both(tmp_path, "images", "masks", "a", "b")
    (tmp_path / name).write_text("classes: [a, b, c]")
    for read in (read_description, undescribed):
        with pytest.raises(DataError, match=f"{name}: rename it to dataset.yaml"):
            read(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / name).write_text("classes: [a, b, c]")
    with pytest.raises(DataError, match=f"{name}: rename it to dataset.yaml"):
        find_kind(tmp_path / "elsewhere")


def test_images_beside_the_folder_of_images_are_named(tmp_path: Path) -> None:
    describe(tmp_path)
    for split in ("train", "val"):
        both(tmp_path, f"{split}/images", f"{split}/masks", "a")
    image(tmp_path / "train/b.jpg")
    assert list_dataset(tmp_path).problems == (
        "train/b.jpg: lies beside train/images/: move it there, or away",
    )


def test_two_layouts_in_one_folder_are_named(tmp_path: Path) -> None:
    describe(tmp_path)
    for split in ("train", "val"):
        both(tmp_path, f"images/{split}", f"masks/{split}", "a")
        both(tmp_path, f"img_dir/{split}", f"ann_dir/{split}", "b")
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "a.txt").touch()  # boxes of a detector: no masks
    assert list_dataset(tmp_path).problems == (
        "img_dir/ beside ann_dir/: there are masks in masks/ too: move away those that are not "
        "meant",
    )
    mask(tmp_path / "labels" / "train" / "a.png")
    assert len(list_dataset(tmp_path).problems) == 2
    other = tmp_path / "two"
    describe(other, split={"val": 0.5})
    both(other, "images", "masks", "a", "b")
    mask(other / "labels" / "a.png")
    assert list_dataset(other).problems == (
        "images/ beside labels/: there are masks in masks/ too: move away those that are not meant",
    )


@pytest.fixture
def recordings(tmp_path: Path) -> DatasetSettings:
    """CamVid's layout with two recordings in train."""
    for split, names in (
        ("train", ("0001TP_000010", "0001TP_000020", "0006R0_000010")),
        ("val", ("0016E5_000010",)),
        ("test", ("0001TP_000030",)),
    ):
        both(tmp_path, split, f"{split}annot", *names)
        for path in (tmp_path / split).iterdir():
            path.rename(path.with_suffix(".png"))
    return DatasetSettings(path=str(tmp_path))


def test_held_out_recordings_take_the_place_of_test(
    recordings: DatasetSettings, tmp_path: Path
) -> None:
    whole = layouts.list_dataset(recordings, tmp_path)
    held_out = recordings.model_copy(update={"held_out": ("0006R0",)})
    found = layouts.list_dataset(held_out, tmp_path)
    assert splits(found) == {
        "train": ["0001TP_000010", "0001TP_000020"],
        "val": ["0016E5_000010"],
        "test": ["0006R0_000010"],
    }
    assert len(found.data_hash) == 64 and found.data_hash != whole.data_hash


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (("0006r0",), "has no group '0006r0'; it has 0001TP, 0006R0"),
        (("0016E5",), "has no group '0016E5'"),
        (("0006R0", "0001TP"), "these are all groups of the training split: leave one"),
    ],
)
def test_what_cannot_be_held_out_is_refused(
    recordings: DatasetSettings, tmp_path: Path, groups: tuple[str, ...], message: str
) -> None:
    held_out = recordings.model_copy(update={"held_out": groups})
    with pytest.raises(DataError, match=f"dataset.held_out: .*{message}"):
        layouts.list_dataset(held_out, tmp_path)
