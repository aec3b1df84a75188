"""Odd data sets: what is made of them can be read, and nothing in them is left out in silence."""

from __future__ import annotations

import base64
import io
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas_core.data.folder import list_dataset
from nas_core.data.importing import Format
from nas_core.data.importing.importer import Imported, check_target, import_dataset, read_plan
from nas_core.data.importing.shapes import ShapeError, labelme_mask, labelme_polygon
from nas_core.data.layouts import find_kind
from tests.robustness.cases import refused
from tests.robustness.conftest import draw

pytestmark = pytest.mark.timeout(30)

SQUARE = [[1, 1], [20, 1], [20, 20], [1, 20]]


def pairs(root: Path, images: str, masks: str, *names: str, suffix: str = "") -> None:
    for number, name in enumerate(names):
        for folder, end in ((images, ""), (masks, suffix)):
            path = root / folder / f"{name}{end}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(path, seed=number)
            if path.parent == root / masks:
                Image.fromarray(np.zeros((24, 40), np.uint8)).save(path)


def coco(source: Path, names: list[str], categories: tuple[str, ...] = ("cat", "dog")) -> None:
    """Images, each with a square, and what says so."""
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        draw(source / name, seed=len(name))
    square = [[number for point in SQUARE for number in point]]
    content = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 0, "segmentation": square}
            for n in range(len(names))
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(categories)],
    }
    (source / "x.json").write_text(json.dumps(content))


def labelme(source: Path, names: list[str]) -> None:
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        draw(source / name)
        shape = {"label": "cat", "points": SQUARE}
        (source / name).with_suffix(".json").write_text(
            json.dumps({"shapes": [shape], "imagePath": Path(name).name})
        )


def imported(source: Path, out: Path, form: Format = "coco") -> Imported:
    check_target(out)
    return import_dataset(
        read_plan(source, form),
        out,
        unlabelled="background",
        skip_bad_shapes=False,
        copy=False,
        advance=lambda: None,
    )


@pytest.mark.parametrize(
    ("categories", "shown"),
    [
        (("cat", "\uff43at"), r"'cat' and '\uff43at'"),
        (("fir", "\ufb01r"), r"'fir' and '\ufb01r'"),
        (("cat", "ca\u200dt"), r"'cat' and 'ca\u200dt'"),
        (("a b", "a  b"), "'a b' and 'a  b'"),
        (("\xe9", "e\u0301"), r"'\xe9' and 'e\u0301'"),
        (("road", "r\u043ead"), r"'road' and 'r\u043ead'"),
        (("cop", "\u0441\u043e\u0440"), r"'cop' and '\u0441\u043e\u0440'"),
    ],
)
def test_categories_that_look_alike_are_refused_by_the_import(
    tmp_path: Path, categories: tuple[str, ...], shown: str
) -> None:
    coco(tmp_path / "tool", ["a.png"], categories)
    with refused(f"categories {shown} look the same: rename one", of_dataset=True):
        imported(tmp_path / "tool", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_category_that_looks_like_background_is_that(tmp_path: Path) -> None:
    coco(tmp_path / "tool", ["a.png", "b.png"], ("\uff42ackground", "cat"))
    assert imported(tmp_path / "tool", tmp_path / "out").classes == ("\uff42ackground", "cat")
    list_dataset(tmp_path / "out")


@pytest.mark.parametrize("write", [coco, labelme])
@pytest.mark.parametrize("images", ["", "images/"])
def test_folders_of_splits_are_kept(
    tmp_path: Path, images: str, write: Callable[[Path, list[str]], None]
) -> None:
    write(tmp_path / "tool", [f"{images}{name}.png" for name in ("train/a", "train/b", "val/c")])
    form: Format = "coco" if write is coco else "labelme"
    assert imported(tmp_path / "tool", tmp_path / "out", form).counts == {"train": 2, "val": 1}
    assert list_dataset(tmp_path / "out").problems == ()


@pytest.mark.parametrize("write", [coco, labelme])
@pytest.mark.parametrize("other", ["d", "test/d"])
def test_folders_of_splits_that_are_not_kept_can_be_read(
    tmp_path: Path, other: str, write: Callable[[Path, list[str]], None]
) -> None:
    names = ["val/a.png", "val/b.png", "val/c.png", f"{other}.png"]
    write(tmp_path / "tool", names)
    done = imported(tmp_path / "tool", tmp_path / "out", "coco" if write is coco else "labelme")
    assert "folders of splits do not divide the images" in done.notes[0]
    listing = list_dataset(tmp_path / "out")
    assert listing.problems == () and len(listing.samples) == 4


def test_a_file_name_of_thousands_of_folders(tmp_path: Path) -> None:
    coco(tmp_path / "tool", ["a.png"])
    path = tmp_path / "tool" / "x.json"
    path.write_text(path.read_text().replace("a.png", "a/" * 20000 + "a.png"))
    began = time.monotonic()
    with refused("images that are not there: a/a/", of_dataset=True):
        imported(tmp_path / "tool", tmp_path / "out")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("form", ["coco", "labelme"])
@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\ud800", "/dev/zero"])
def test_sources_and_targets_that_cannot_be(tmp_path: Path, form: Format, name: str) -> None:
    with refused("give"):
        read_plan(tmp_path / name, form)
    if len(name) == 3 or name == "\ud800":
        with refused("no name of a folder"):
            check_target(tmp_path / name)


def test_a_mask_of_labelme_that_is_stored_with_loss() -> None:
    def content(kind: str) -> str:
        file = io.BytesIO()
        Image.fromarray(np.eye(5, dtype=np.uint8) * 255).save(file, kind)
        return base64.b64encode(file.getvalue()).decode()

    points = [[1, 1], [5, 5]]
    assert labelme_mask(points, content("PNG"), (24, 40)).pixels.sum() == 5
    with pytest.raises(ShapeError, match="no PNG in base64"):
        labelme_mask(points, content("JPEG"), (24, 40))


def test_points_at_the_end_of_the_numbers_give_no_warning() -> None:
    with warnings.catch_warnings(), pytest.raises(ShapeError, match="outline is longer"):
        warnings.simplefilter("error")
        labelme_polygon([[1e308, 1], [-1e308, 2], [3, 3]], (24, 40))


def describe(root: Path, **more: Any) -> None:
    (root / "dataset.yaml").write_text(json.dumps({"classes": ["road", "sky"], **more}))


def by_kind(root: Path) -> None:
    for split in ("train", "val"):
        pairs(root, f"images/{split}", f"masks/{split}", f"{split}1", f"{split}2")


def side_by_side(root: Path) -> None:
    for split in ("train", "val"):
        pairs(root, split, split, f"{split}1", f"{split}2", suffix="_mask")


def pascal_voc(root: Path) -> None:
    pairs(root, "JPEGImages", "SegmentationClass", "a", "b", "c", "d")
    lists(root / "ImageSets/Segmentation", train="a b", val="c d")


def by_split(root: Path) -> None:
    for split in ("train", "val"):
        pairs(root, f"{split}/images", f"{split}/masks", f"{split}1", f"{split}2")


def in_two(root: Path) -> None:
    pairs(root, "images", "masks", "a", "b", "c", "d")


def in_two_with_lists(root: Path) -> None:
    in_two(root)
    lists(root, train="a b", val="c d")


def lists(folder: Path, **names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, images in names.items():
        (folder / f"{name}.txt").write_text("\n".join(images.split()))


@pytest.mark.parametrize(
    ("layout", "more", "problem"),
    [
        (by_split, lambda root: pairs(root, "", "", "x", suffix="_mask"),
         "x_mask.png: lies beside"),
        (by_kind, lambda root: pairs(root, "images/night", "masks/night", "x"),
         "images/night/: lies beside the splits and is none of train, val, test"),
        (by_kind, lambda root: pairs(root, "images", "masks", "x"),
         "images/x.png: lies beside the folders of splits"),
        (side_by_side, lambda root: pairs(root, "night", "night", "x", suffix="_mask"),
         "night/: lies beside the splits and is none of train, val, test"),
        (side_by_side, lambda root: pairs(root, "", "", "x", suffix="_mask"),
         "x_mask.png: lies beside the folders of splits"),
        (side_by_side, lambda root: lists(root, train="train1", val="val1"),
         "divided in 2 ways"),
        (pascal_voc, lambda root: lists(root, train="a b", val="c d"), "divided in 2 ways"),
        (pascal_voc, lambda root: pairs(root, "train/images", "train/masks", "x"),
         "divided in 2 ways"),
        *(
            (layout, lambda root: pairs(root, "", "", "x", suffix="_mask"), "x")
            for layout in (in_two_with_lists, pascal_voc, by_kind)
        ),
        (pascal_voc, lambda root: pairs(root, "images", "masks", "x"),
         "images/x.png: lies there as"),
        (pascal_voc, lambda root: pairs(root, "images/train", "masks/train", "x"),
         "images/train/x.png: lies there as"),
        *(
            (layout, lambda root: pairs(root, "train", "trainannot", "x"), "trainannot/: lies")
            for layout in (in_two_with_lists, pascal_voc)
        ),
        (in_two_with_lists, lambda root: lists(root, valid="a"),
         "val.txt and valid.txt are both lists of val: leave one"),
        (pascal_voc, lambda root: lists(root / "ImageSets/Segmentation", valid="d"),
         "val.txt and valid.txt are both lists of val: leave one"),
        (pascal_voc, lambda root: lists(root / "ImageSets/Segmentation", TRAIN="d"),
         "TRAIN.txt and train.txt are both lists of train: leave one"),
    ],
)  # fmt: skip
def test_what_a_layout_would_leave_out_is_named(
    tmp_path: Path, layout: Callable[[Path], None], more: Callable[[Path], None], problem: str
) -> None:
    layout(tmp_path)
    describe(tmp_path)
    assert list_dataset(tmp_path).problems == ()
    more(tmp_path)
    found = list_dataset(tmp_path).problems
    assert any(line.startswith(problem) for line in found), found


def test_two_descriptions(tmp_path: Path) -> None:
    in_two_with_lists(tmp_path)
    describe(tmp_path)
    (tmp_path / "dataset.yml").write_text("classes: [road, car]")
    with refused("dataset.yml: only dataset.yaml is read: leave one", of_dataset=True):
        list_dataset(tmp_path)


def test_camvid_and_a_dataset_of_ones_own_in_one_folder(tmp_path: Path) -> None:
    pairs(tmp_path, "train", "trainannot", "x")
    assert find_kind(tmp_path) == "camvid"
    in_two_with_lists(tmp_path)
    with refused("trainannot/ of CamVid: leave one", of_dataset=True):
        find_kind(tmp_path)


def test_lists_beside_patterns_that_name_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        pairs(tmp_path, f"{split}/rgb", f"{split}/gt", "a", "b")
    describe(tmp_path, images="{split}/rgb/*.png", masks="{split}/gt/{stem}.png")
    assert list_dataset(tmp_path).problems == ()
    lists(tmp_path, train="train/rgb/a.png")
    assert list_dataset(tmp_path).problems[0].startswith("divided in 2 ways")


@pytest.mark.parametrize("name", ["Train", "training", "valid", "VAL"])
def test_lists_of_another_name_beside_shares(tmp_path: Path, name: str) -> None:
    in_two(tmp_path)
    describe(tmp_path, split={"val": 0.3})
    lists(tmp_path, names="a b c d")
    assert list_dataset(tmp_path).problems == ()
    lists(tmp_path, **{name: "a b"})
    (problem,) = list_dataset(tmp_path).problems
    assert problem.startswith(f"{name}.txt: names a, which no list has; the lists are train.txt")


def test_lists_beside_the_folders_of_pascal_voc(tmp_path: Path) -> None:
    pairs(tmp_path, "JPEGImages", "SegmentationClass", "a", "b", "c", "d")
    lists(tmp_path, train="a b", val="c d")
    describe(tmp_path)
    listing = list_dataset(tmp_path)
    assert listing.problems == () and len(listing.of_split("train")) == 2


@pytest.mark.parametrize("name", ["te\u017ft", "TRA\u0130N"])
def test_a_split_whose_letters_only_resemble_one(tmp_path: Path, name: str) -> None:
    for split in ("train", "val", name):
        pairs(tmp_path, f"{split}/rgb", f"{split}/gt", "a", "b")
    describe(tmp_path, images="{split}/rgb/*.png", masks="{split}/gt/{stem}.png")
    assert list_dataset(tmp_path).splits == ("train", "val")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"group": ""}, "group: expected 1 to 500 characters"),
        ({"images": "*" * 61 + ".png"}, r"masks: {split}: there are {1}, {10}"),
    ],
)
def test_patterns_that_say_nothing_or_too_much(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    patterns = {"images": "{split}/rgb/*.png", "masks": "{split}/gt/{stem}.png"}
    describe(tmp_path, **{**patterns, **more})
    with refused(message, of_dataset=True) as raised:
        list_dataset(tmp_path)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"road:0,0,%s::\n" % (b"1" * 5000), "labelmap.txt, line 1: expected NAME:RED,GREEN,BLUE"),
        (b"road:0,0,0::\nsk\xffy:1,1,1::\n", "labelmap.txt: not UTF-8 at byte 15"),
    ],
)
def test_a_labelmap_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    pascal_voc(tmp_path)
    (tmp_path / "labelmap.txt").write_bytes(content)
    with refused(message, of_dataset=True):
        list_dataset(tmp_path)
