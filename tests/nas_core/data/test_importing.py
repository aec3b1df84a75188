"""Polygons and masks of annotation tools become the pixels that these tools mean."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask
import pytest
from PIL import Image

from nas_core.base.errors import DataError, SettingsError
from nas_core.data.folder import list_dataset
from nas_core.data.importing import shapes
from nas_core.data.importing.importer import (
    Format,
    Imported,
    Unlabelled,
    check_target,
    import_dataset,
    read_plan,
)
from nas_core.data.importing.plan import split_of

HEIGHT, WIDTH = 6, 8
SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]
"""Pixels 1 to 3 in both directions."""


def rows(*lines: str) -> list[list[int]]:
    """A mask as it is drawn here: a digit a pixel, `.` for 255."""
    return [[255 if char == "." else int(char) for char in line] for line in lines]


def photo(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH), **options: Any) -> Path:
    """A picture that differs from all others."""
    pixels = np.random.default_rng(zlib.crc32(os.fsencode(path))).integers(
        0, 256, (*size, 3), np.uint8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def annotation(segmentation: Any, image: Any = 1, category: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": 7, "image_id": image, "category_id": category, "bbox": [1, 1, 3, 3],
            "segmentation": segmentation, **more}  # fmt: skip


def coco(path: Path, annotations: list[Any], images: Any = ("a.jpg",), **more: Any) -> Path:
    """A file with images 1, 2 ... and the categories leaf and stem."""
    content = {
        "images": [
            {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(images, 1)
        ],
        "annotations": annotations,
        "categories": [{"id": 2, "name": "stem"}, {"id": 1, "name": "leaf"}],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def imported(
    source: Path,
    form: Format = "coco",
    *,
    unlabelled: Unlabelled = "background",
    skip_bad_shapes: bool = False,
    copy: bool = False,
) -> tuple[Path, Imported]:
    out = source.with_name(f"{source.name}-out")
    done = import_dataset(
        read_plan(source, form),
        out,
        unlabelled=unlabelled,
        skip_bad_shapes=skip_bad_shapes,
        copy=copy,
        advance=lambda: None,
    )
    return out, done


def mask(out: Path, name: str = "a") -> list[list[int]]:
    with Image.open(out / "masks" / f"{name}.png") as picture:
        assert picture.mode == "L"
        return np.asarray(picture).tolist()


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refused(source: Path, form: Format = "coco", **options: Any) -> str:
    """The message; nothing was written."""
    before = files(source.parent)
    with pytest.raises(DataError) as error:
        imported(source, form, **options)
    assert files(source.parent) == before
    assert not source.with_name(f"{source.name}-out").exists()
    return str(error.value)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the picture a.jpg."""
    photo(tmp_path / "tool" / "a.jpg")
    return tmp_path / "tool"


# ---- pixels


def test_later_shapes_lie_above_earlier_ones_and_crowds_below_all(place: Path) -> None:
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, 12, 36]}
    annotations = [
        annotation([SQUARE]),
        annotation([[3, 2, 6, 2, 6, 5, 3, 5]], category=2),
        annotation(crowd, iscrowd=1),
    ]
    out, done = imported(coco(place / "x.json", annotations))
    assert mask(out) == rows("..000000", ".1110000", ".1122200", ".1122200", "..022200", "..000000")
    assert done.classes == ("background", "leaf", "stem")
    assert done.left_out == [
        "1 crowd regions, whose pixels count for nothing (x.json, annotation 7)"
    ]


def test_what_has_no_label_is_ignored_by_choice(place: Path) -> None:
    out, done = imported(coco(place / "x.json", [annotation([SQUARE])]), unlabelled="ignore")
    assert mask(out) == rows("........", ".000....", ".000....", ".000....", "........", "........")
    assert done.classes == ("leaf", "stem")


def test_a_polygon_is_cut_off_at_the_edges_and_may_have_parts(place: Path) -> None:
    parts = [[-3, -9, 2, -9, 2, 2, -3, 2], [6, 4, 99, 4, 99, 99, 6, 99]]
    out, _ = imported(coco(place / "x.json", [annotation(parts)]))
    assert mask(out) == rows("11000000", "11000000", "00000000", "00000000", "00000011", "00000011")


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths(place: Path, compressed: bool) -> None:
    runs: Any = {"size": [HEIGHT, WIDTH], "counts": [7, 2, 3, 3, 33]}
    if compressed:
        runs = pycocotools.mask.frPyObjects(runs, HEIGHT, WIDTH)
        runs["counts"] = runs["counts"].decode()
    out, _ = imported(coco(place / "x.json", [annotation(runs)]))
    assert mask(out) == rows("00100000", "01100000", "01100000", "00000000", "00000000", "00000000")


def test_pixels_are_those_of_the_coco_tools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        size = tuple(rng.integers(1, 60, 2).tolist())
        drawn = rng.random(size) < rng.random()
        encoded = pycocotools.mask.encode(np.asfortranarray(drawn.astype(np.uint8)))
        value = {"size": list(size), "counts": encoded["counts"].decode()}
        assert (whole(shapes.run_lengths(value, size), size) == drawn).all()
        polygon = rng.uniform(-0.3, 1.3, (rng.integers(3, 9), 2)) * size[::-1]
        flat = polygon.round(1).ravel().tolist()
        expected = pycocotools.mask.decode(pycocotools.mask.frPyObjects([flat], *size))[..., 0]
        try:
            found = whole(shapes.coco_polygon(flat, size), size)
        except shapes.ShapeError:
            found = np.zeros(size, bool)
        assert (found == expected).all(), flat


def whole(region: shapes.Region, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    pixels = np.zeros(size, bool)
    pixels[region.window] = region.pixels
    return pixels


LABELME: list[tuple[str, Any, list[list[int]]]] = [
    ("polygon", [[1, 1], [3, 1], [3, 3], [1, 3]],
     rows("00000000", "01110000", "01110000", "01110000", "00000000", "00000000")),
    ("rectangle", [[3, 3], [1, 1]],
     rows("00000000", "01110000", "01110000", "01110000", "00000000", "00000000")),
    ("circle", [[3, 3], [3, 5]],
     rows("00000000", "00111000", "01111100", "01111100", "01111100", "00111000")),
    ("polygon", [[-5, -5], [1, -5], [1, 1], [-5, 1]],
     rows("11000000", "11000000", "00000000", "00000000", "00000000", "00000000")),
]  # fmt: skip


def labelme(path: Path, given: list[Any], **more: Any) -> Path:
    content = {
        "version": "5.5.0", "flags": {}, "imagePath": "a.jpg", "imageData": None,
        "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": given, **more,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def shape(points: Any, label: str = "leaf", kind: str | None = "polygon", **more: Any) -> Any:
    return {"label": label, "points": points, "group_id": 3, "description": "", "flags": {},
            "shape_type": kind, **more}  # fmt: skip


@pytest.mark.parametrize(("kind", "points", "expected"), LABELME)
def test_shapes_of_labelme(place: Path, kind: str, points: Any, expected: Any) -> None:
    labelme(place / "a.json", [shape(points, kind=kind)])
    out, _ = imported(place, "labelme")
    assert mask(out) == expected


def png(pixels: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.array(pixels, bool)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_mask_of_labelme_lies_between_its_points(place: Path) -> None:
    drawn = png([[1, 0, 1], [0, 1, 0]])
    labelme(place / "a.json", [shape([[2, 1], [4, 2]], kind="mask", mask=drawn)])
    out, _ = imported(place, "labelme")
    assert mask(out) == rows("00000000", "00101000", "00010000", "00000000", "00000000", "00000000")


def test_labels_of_labelme_with_a_meaning(place: Path) -> None:
    big, small = [[0, 0], [3, 3]], [[1, 1], [2, 2]]
    given = [shape(big, "b leaf", "rectangle"), shape(small, "_background_", "rectangle"),
             shape([[6, 0], [7, 1]], "__ignore__", "rectangle"),
             shape([[6, 4], [7, 5]], "a leaf", "rectangle")]  # fmt: skip
    labelme(place / "a.json", given)
    out, done = imported(place, "labelme")
    assert done.classes == ("_background_", "a leaf", "b leaf")
    assert mask(out) == rows("222200..", "200200..", "20020000", "22220000", "00000011", "00000011")


# ---- files as tools write them


def test_cvat(tmp_path: Path) -> None:
    """annotations/instances_default.json, images in images/."""
    root = tmp_path / "cvat"
    photo(root / "images" / "night" / "a.jpg")
    photo(root / "images" / "b.jpg")
    annotations = [
        annotation([SQUARE], attributes={"occluded": False}),
        # It calls a crowd whatever was painted.
        annotation({"size": [HEIGHT, WIDTH], "counts": [0, 2, 46]}, image=2, category=2,
                   iscrowd=1, attributes={"occluded": False}),
    ]  # fmt: skip
    coco(root / "annotations/instances_default.json", annotations, ["night/a.jpg", "b.jpg"],
         licenses=[{"name": "", "id": 0, "url": ""}], info={})  # fmt: skip
    out, done = imported(root)
    assert files(out) == {"dataset.yaml", "images/night/a.jpg", "images/b.jpg",
                          "masks/night/a.png", "masks/b.png"}  # fmt: skip
    assert mask(out, "night/a")[1] == [0, 1, 1, 1, 0, 0, 0, 0]
    assert mask(out, "b")[0][:3] == [2, 0, 0]
    assert (done.counts, done.left_out) == ({None: 2}, [])
    (root / "annotations/._instances_default.json").write_bytes(b"of macOS")
    assert len(read_plan(root, "coco").pictures) == 2
    alone, _ = imported(root / "annotations/instances_default.json")
    assert files(alone) == files(out)


@pytest.mark.parametrize(
    "name",
    [
        "images/a.jpg",
        "images\\a.jpg",
        "/label-studio/data/upload/1/a.jpg",
        "../../label-studio/data/media/upload/1/a.jpg",
        "C:\\x\\a.jpg",
    ],
)
def test_label_studio(tmp_path: Path, name: str) -> None:
    """result.json and images/, whose names may be those of another machine."""
    photo(tmp_path / "ls/images/a.jpg")
    annotations = [annotation([SQUARE], image=0, category=0, ignore=0, iscrowd=0, area=9)]
    image = {"width": WIDTH, "height": HEIGHT, "id": 0, "file_name": name}
    categories = [{"id": 0, "name": "leaf"}, {"id": 1, "name": "stem"}]
    coco(tmp_path / "ls/result.json", annotations, images=[image])
    content = json.loads((tmp_path / "ls/result.json").read_text())
    content |= {"images": [image], "categories": categories}
    (tmp_path / "ls/result.json").write_text(json.dumps(content))
    out, done = imported(tmp_path / "ls")
    assert files(out) == {"dataset.yaml", "images/a.jpg", "masks/a.png"}
    assert done.classes == ("background", "leaf", "stem")
    assert mask(out)[1] == [0, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("group", ["leaves-x1y2", "leaf"])
def test_roboflow(tmp_path: Path, group: str) -> None:
    """Folders of splits; a category without annotations names the data set."""
    categories = [
        {"id": 0, "name": group, "supercategory": "none"},
        {"id": 1, "name": "leaf", "supercategory": group},
    ]
    for split in ("train", "valid", "test"):
        photo(tmp_path / "rf" / split / "a_jpg.rf.0123.jpg")
        coco(tmp_path / "rf" / split / "_annotations.coco.json", [annotation([SQUARE])],
             ["a_jpg.rf.0123.jpg"], categories=categories)  # fmt: skip
    out, done = imported(tmp_path / "rf")
    assert done.classes == ("background", "leaf")
    assert done.counts == {"train": 1, "val": 1, "test": 1}
    assert "val/masks/a_jpg.rf.0123.png" in files(out)
    assert any(line.startswith("3 categories that only group others") for line in done.left_out)
    listing = list_dataset(out)
    assert [s.split for s in listing.samples] == ["train", "val", "test"]
    assert not listing.problems


def test_splits_by_the_names_of_files_and_a_val_from_train(tmp_path: Path) -> None:
    root = tmp_path / "coco"
    for split, count in (("train", 10), ("test", 1)):
        names = [f"{number}.jpg" for number in range(count)]
        for name in names:
            photo(root / f"{split}2017" / name)
        annotations = [annotation([SQUARE], image=n + 1) for n in range(count)]
        coco(root / "annotations" / f"instances_{split}2017.json", annotations, names)
        (root / "annotations" / f"captions_{split}2017.json").write_text("{}")
    out, done = imported(root)
    assert done.counts == {"train": 8, "val": 2, "test": 1}
    assert any("there was no val" in note for note in done.notes)
    assert {"test/images/0.jpg", "test/masks/0.png"} < files(out)
    assert not list_dataset(out).problems


def test_files_without_a_split_beside_others_with_one(tmp_path: Path) -> None:
    for name in ("train", "more"):
        coco(tmp_path / "x" / f"{name}.json", [])
    assert "no split in the name of more.json" in refused(tmp_path / "x")
    (tmp_path / "x/more.json").rename(tmp_path / "x/test.json")
    (tmp_path / "x/train.json").rename(tmp_path / "x/val.json")
    assert "no file of train" in refused(tmp_path / "x")


def test_labelme_with_its_image_inside(place: Path) -> None:
    content = base64.b64encode((place / "a.jpg").read_bytes()).decode()
    given = [shape([[1, 1], [3, 1], [3, 3], [1, 3]])]
    labelme(place / "b.json", given, imagePath="..\\..\\b.jpg", imageData=content)
    labelme(place / "sub/c.json", given, imagePath="../c.jpg")
    photo(place / "c.jpg")
    labelme(place / "d.json", given, imagePath="..\\..\\photos\\d.jpg")
    photo(place / "d.jpg")
    out, done = imported(place, "labelme")
    assert files(out) == {
        "dataset.yaml",
        *(place for name in "bcd" for place in (f"images/{name}.jpg", f"masks/{name}.png")),
    }
    assert (out / "images/b.jpg").read_bytes() == (place / "a.jpg").read_bytes()
    assert done.left_out == ["1 images without a .json file (a.jpg)"]


def test_labelme_keeps_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        photo(tmp_path / "lm" / split / "a.jpg")
        labelme(tmp_path / "lm" / split / "a.json", [shape([[0, 0], [3, 3]], kind="rectangle")])
    out, done = imported(tmp_path / "lm", "labelme")
    assert done.counts == {"train": 1, "val": 1}
    assert not list_dataset(out).problems


def test_shares_where_nothing_divides_the_images(tmp_path: Path) -> None:
    """A name of a file is not that of a folder."""
    names = [f"train_{number}.jpg" for number in range(20)]
    for name in names:
        photo(tmp_path / "x" / name)
    annotations = [annotation([SQUARE], image=number) for number in range(1, 21)]
    out, _ = imported(coco(tmp_path / "x/train.json", annotations, names))
    listing = list_dataset(out)
    assert not listing.problems
    assert {split: len(listing.of_split(split)) for split in listing.splits} == {
        "train": 14, "val": 3, "test": 3}  # fmt: skip


# ---- images


def test_images_of_one_name_in_two_folders(tmp_path: Path) -> None:
    names = ["images/a.jpg", "a.jpg", "day/a.jpg", "day/a.png"]
    for name in names:
        photo(tmp_path / "x" / name)
    annotations = [annotation([SQUARE], image=number) for number in (1, 2, 3, 4)]
    coco(tmp_path / "x/x.json", annotations, names)
    out, _ = imported(tmp_path / "x")
    assert files(out) == {"dataset.yaml"} | {
        f"{kind}/{stem}{suffix if kind == 'images' else '.png'}"
        for kind in ("images", "masks")
        for stem, suffix in (("a", ".jpg"), ("a_jpg", ".jpg"), ("day/a", ".jpg"),
                             ("day/a_png", ".png"))
    }  # fmt: skip
    for old, new in zip(names, ["a.jpg", "a_jpg.jpg", "day/a.jpg", "day/a_png.png"], strict=True):
        assert (out / "images" / new).samefile(tmp_path / "x" / old)


def test_images_are_copied_by_choice_or_where_links_cannot_be(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = coco(place / "x.json", [annotation([SQUARE])])
    out, done = imported(source, copy=True)
    assert not (out / "images/a.jpg").samefile(place / "a.jpg")
    assert (out / "images/a.jpg").read_bytes() == (place / "a.jpg").read_bytes()
    assert not done.notes

    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    other, done = imported(source.rename(place / "y.json"))
    assert files(other) == files(out)
    assert any(note.startswith("1 images are copies") for note in done.notes)


def test_a_picture_of_another_kind_becomes_png(place: Path) -> None:
    photo(place / "b.pnm")
    photo(place / "c.PNG")
    (place / "a.jpg").rename(place / "a.jfif")
    annotations = [annotation([SQUARE], image=number) for number in (1, 2, 3)]
    out, _ = imported(coco(place / "x.json", annotations, ["a.jfif", "b.pnm", "c.PNG"]))
    assert files(out / "images") == {"a.jpg", "b.png", "c.PNG"}
    assert files(out / "masks") == {"a.png", "b.png", "c.png"}
    with Image.open(place / "b.pnm") as old, Image.open(out / "images/b.png") as new:
        assert (np.asarray(old) == np.asarray(new)).all()
    assert not list_dataset(out).problems


# ---- what is left out


def test_what_was_left_out_is_said(place: Path) -> None:
    for name in ("b.jpg", "c.jpg"):
        photo(place / name)
    annotations = [
        annotation([SQUARE]),
        annotation([], id=11),
        annotation(None, id=12),
        annotation([[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]], id=13),
        annotation([SQUARE], image=2, id=14),
        annotation([[0, 0, 8, 0, 8, 6, 0, 6]], image=2, category=2, id=15),
    ]
    source = coco(place / "x.json", annotations, ["a.jpg", "b.jpg", "c.jpg"])
    _, done = imported(source)
    assert done.left_out == [
        "2 annotations without a shape (x.json, annotation 11, x.json, annotation 12)",
        "1 shapes smaller than a pixel (x.json, annotation 13)",
        "1 shapes that lie below others (x.json, annotation 14)",
        "1 images without a shape, which are all background (c.jpg)",
    ]
    out, done = imported(source.rename(place / "y.json"), unlabelled="ignore")
    assert "1 images without a pixel of a class (c.jpg)" in done.left_out
    assert "images/c.jpg" not in files(out)


def test_kinds_of_labelme_without_an_area(place: Path) -> None:
    kinds = ("line", "linestrip", "point", "points")
    given = [shape([[1, 1], [3, 3]], kind=kind) for kind in (*kinds, "rectangle")]
    labelme(place / "a.json", given)
    _, done = imported(place, "labelme")
    assert done.left_out == [
        f"1 shapes of the kind {kind} (a.json, shape {number})" for number, kind in enumerate(kinds)
    ]


def test_boxes_alone_are_no_shapes(place: Path) -> None:
    source = coco(place / "x.json", [annotation([]), annotation([])])
    assert "nothing that can be drawn; 2 annotations without a shape" in refused(source)


# ---- bad input

HUGE = [[0, 0, 1e7, 0, 1e7, 1e7]]
BAD_SHAPES: list[tuple[Any, str]] = [
    ([[1, 1, 4, 4]], "polygons of fewer than 3 points"),
    ([[0.1, 0.1, 0.9, 0.1, 0.9, 0.8]], "shares of the size in place of pixels"),
    ([[1, 1, 4, 4, 5]], "polygons that are no list x, y, x, y"),
    ([[20, 1, 30, 1, 30, 4]], "shapes outside of their image"),
    ([[1, -9, 3, -9, 3, -2]], "shapes outside of their image"),
    ([[1, 1, math.nan, 1, 4, 4]], "not finite"),
    ([[1, 1, math.inf, 1, 4, 4]], "not finite"),
    ([[1, 1, "4", 1, 4, 4]], "something else than numbers"),
    ([[1, 1, None, 1, 4, 4]], "something else than numbers"),
    ([[1, 1, True, 1, 4, 4]], "something else than numbers"),
    ([[[1, 1], [4], [4, 4]]], "not all pairs of numbers"),
    ("text", "something else than numbers"),
    (HUGE, "outline is longer than"),
    ([[0, 0, 8, 0] * 200_000], "outline is longer than"),
    ({"size": [3, 4], "counts": [12]}, "of another size"),
    ({"size": [WIDTH, HEIGHT], "counts": [48]}, "of another size"),
    ({"counts": [48]}, "something else than numbers"),
    ({"size": [HEIGHT, WIDTH], "counts": [47]}, "do not fill"),
    ({"size": [HEIGHT, WIDTH], "counts": [50, -2]}, "do not fill"),
    ({"size": [HEIGHT, WIDTH], "counts": [10**30]}, "do not fill"),
    ({"size": [HEIGHT, WIDTH], "counts": None}, "do not fill"),
    ({"size": [HEIGHT, WIDTH]}, "do not fill"),
    ({"size": [HEIGHT, WIDTH], "counts": "1"}, "do not fill"),
    ({"size": [HEIGHT, WIDTH], "counts": ""}, "text is damaged"),
    ({"size": [HEIGHT, WIDTH], "counts": "P"}, "text is damaged"),
    ({"size": [HEIGHT, WIDTH], "counts": "oooooooooo0"}, "text is damaged"),
    ({"size": [HEIGHT, WIDTH], "counts": "ä"}, "text is damaged"),
]


@pytest.mark.parametrize(("segmentation", "message"), BAD_SHAPES)
def test_bad_shapes_are_refused_or_left_out(place: Path, segmentation: Any, message: str) -> None:
    source = coco(place / "x.json", [annotation([SQUARE]), annotation(segmentation, id=8)])
    found = refused(source)
    assert message in found
    assert "x.json, annotation 8" in found
    assert len(found.splitlines()) == 2
    out, done = imported(source, skip_bad_shapes=True)
    assert sum(map(sum, mask(out))) == 9
    assert any(message in line for line in done.left_out)


BAD_LABELME: list[tuple[dict[str, Any], str]] = [
    ({"points": [[1, 1], [3, 3]]}, "fewer than 3 points"),
    ({"points": []}, "fewer than 3 points"),
    ({"points": [[1, 1, 1], [3, 3, 1], [4, 4, 1]]}, "not all pairs"),
    ({"points": [[90, 1], [93, 3], [94, 9]]}, "outside of their image"),
    ({"points": [[1, 1]], "kind": "rectangle"}, "rectangles that have not two points"),
    ({"points": [[1, 1], [1e9, 1]], "kind": "circle"}, "outline is longer"),
    ({"points": [[90, 90], [91, 90]], "kind": "circle"}, "outside of their image"),
    ({"points": [[1, 1], [2, 2]], "kind": "mask", "mask": None}, "no PNG in base64"),
    ({"points": [[1, 1], [2, 2]], "kind": "mask", "mask": "####"}, "no PNG in base64"),
    ({"points": [[1, 1], [2, 2]], "kind": "mask", "mask": png([[1, 1, 1]])}, "another size"),
    ({"points": [[7, 1], [8, 1]], "kind": "mask", "mask": png([[1, 1]])}, "partly outside"),
    ({"points": [[1, 1], [3, 3], [1, 3]], "label": " "}, "shapes without a label"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_LABELME)
def test_bad_shapes_of_labelme(place: Path, bad: dict[str, Any], message: str) -> None:
    labelme(place / "a.json", [shape([[0, 0], [1, 1]], kind="rectangle"), shape(**bad)])
    found = refused(place, "labelme")
    assert f"{message}" in found
    assert "a.json, shape 1" in found


def test_all_problems_at_once_and_many_of_a_kind_in_a_line(place: Path) -> None:
    annotations = [
        *(annotation([[1, 1, 2, 2]], id=number) for number in range(9)),
        annotation([SQUARE], image=99),
        annotation([SQUARE], category=99),
    ]
    images = ["a.jpg", "no.jpg", "../../etc/passwd", "a.jpg", "/", "x\0y", "y" * 300]
    categories = [{"id": 1, "name": "leaf"}, {"id": 2, "name": "leaf"}, {"id": 3, "name": " "},
                  {"id": 4}, {"id": 5, "name": "a/b"}, {"id": 6, "name": "a:b"}]  # fmt: skip
    found = refused(coco(place / "x.json", annotations, images, categories=categories))
    assert [line.strip() for line in found.splitlines()][1:] == [
        "x.json: categories without a name: id 3, id 4",
        "x.json: two categories of one name: rename one: leaf",
        "categories whose names would be one class 'a_b', since others than letters, digits, '_', "
        "'-', '.' and spaces become '_': rename them: a/b, a:b",
        "x.json: annotations of an image that it does not list: x.json, annotation 7",
        "x.json: annotations of a category that it does not list: x.json, annotation 7",
        "x.json: images that are not there: no.jpg, /, x\\x00y and 1 more",
        f"x.json: file_name leads out of {place}: ../../etc/passwd",
        "images that are listed twice (a.jpg): x.json, image 1, x.json, image 4",
        "polygons of fewer than 3 points: x.json, annotation 0, x.json, annotation 1, x.json, "
        "annotation 2 and 6 more",
    ]


BAD_FILES: list[tuple[str, str]] = [
    ("", "x.json: not JSON"),
    ("{", "x.json: not JSON"),
    ("\xff", "x.json: not JSON"),
    ("[" * 5000, "x.json: not JSON: recursion limit exceeded"),
    ("[]", "no COCO files"),
    ("{}", "no COCO files"),
    ('{"shapes": []}', "labelme has another format): x.json"),
    ('{"images": {}, "annotations": [], "categories": []}', "x.json: images: expected a list"),
    ('{"images": [{"id": 1}, {"id": 2}], "annotations": [], "categories": []}',
     "x.json: images.file_name: is missing: entry 0, entry 1"),
    ('{"images": [{"id": true, "file_name": ""}], "annotations": [], "categories": []}',
     "x.json: images.id: expected a whole number or a text: entry 0"),
    ('{"images": [{"id": 1, "file_name": "a.jpg", "width": NaN}], "annotations": [], '
     '"categories": []}',
     "x.json: images.width: expected a number that is neither infinite nor NaN: entry 0"),
    ('{"images": [], "annotations": [], "categories": []}', "it names no image"),
    ('{"images": [], "annotations": [], "annotations": [], "categories": []}',
     "x.json: key 'annotations' is given twice"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_files_that_are_none_of_coco(place: Path, content: str, message: str) -> None:
    (place / "x.json").write_bytes(content.encode("latin-1"))
    found = refused(place / "x.json")
    assert message in found
    assert len(found.splitlines()) <= 3
    assert found.count("x.json") <= 1


def test_files_that_are_none_of_labelme(place: Path) -> None:
    (place / "x.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert "no labelme files" in refused(place, "labelme")
    assert "give their folder" in refused(place / "x.json", "labelme")
    (place / "x.json").unlink()
    assert "no .json file in it" in refused(place, "labelme")
    assert "no .json file in it" in refused(place)
    assert "does not exist" in refused(place / "nowhere")


def test_images_of_labelme_that_are_not_there(place: Path) -> None:
    given = [shape([[0, 0], [1, 1]], kind="rectangle")]
    labelme(place / "a.json", given, imagePath="no.jpg")
    labelme(place / "b.json", given, imagePath="../../etc/passwd")
    labelme(place / "c.json", given, imagePath="d.jpg", imageData="#")
    labelme(place / "e.json", given)
    labelme(place / "f.json", given)
    found = refused(place, "labelme")
    for line in ("images that are not there: no.jpg of a.json",
                 f"imagePath leads out of {place}: ../../etc/passwd of b.json",
                 "c.json: imageData is no picture in base64",
                 "files whose image another file has too: f.json (a.jpg)"):  # fmt: skip
        assert line in found


def test_images_that_cannot_be_used(place: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(place / "turned.jpg", exif=exif)
    photo(place / "large.jpg", (9, 9))
    (place / "damaged.jpg").write_bytes((place / "a.jpg").read_bytes()[:100])
    names = ["a.jpg", "turned.jpg", "large.jpg", "damaged.jpg"]
    found = refused(coco(place / "x.json", [annotation([SQUARE])], names))
    assert len(found.splitlines()) == 4
    for line in ("turned.jpg: turned by its EXIF orientation 6", "damaged.jpg: damaged",
                 "another size than their annotations say: large.jpg is 9x9, not 8x6"):  # fmt: skip
        assert line in found


@pytest.mark.parametrize(("number", "unlabelled"), [(255, "background"), (256, "ignore")])
def test_more_classes_than_there_may_be(place: Path, number: int, unlabelled: Unlabelled) -> None:
    categories = [{"id": n, "name": f"class {n}"} for n in range(number)]
    source = coco(place / "x.json", [annotation([SQUARE])], categories=categories)
    assert "number of classes: 256, expected 2 to 255" in refused(source, unlabelled=unlabelled)
    other: Unlabelled = "ignore" if unlabelled == "background" else "background"
    if number < 256:
        _, done = imported(source, unlabelled=other)
        assert len(done.classes) == 255


def test_one_class_is_too_few(place: Path) -> None:
    source = coco(place / "x.json", [annotation([SQUARE])], categories=[{"id": 1, "name": "leaf"}])
    assert "number of classes: 1" in refused(source, unlabelled="ignore")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    for name, make in {
        "file": lambda path: path.write_text("x"),
        "full": lambda path: (path / "x").mkdir(parents=True),
        "link": lambda path: path.symlink_to("nowhere"),
    }.items():
        make(tmp_path / name)
        with pytest.raises(DataError, match="nothing is overwritten"):
            check_target(tmp_path / name)
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")


def test_nothing_is_half_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what a person stops nor what comes into being at its place meanwhile."""
    source = coco(place / "x.json", [annotation([SQUARE])])
    out = place / "out"
    calls = 0

    def stop_in_writing() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    before = files(place)
    with pytest.raises(KeyboardInterrupt):
        write(source, out, stop_in_writing)
    assert files(place) == before
    with pytest.raises(Exception, match="cannot be written: Directory not empty"):
        write(source, out, lambda: (out / "mine").mkdir(parents=True, exist_ok=True))
    assert files(place) == before
    assert [path.name for path in out.iterdir()] == ["mine"]


def write(source: Path, out: Path, advance: Callable[[], None]) -> None:
    plan = read_plan(source, "coco")
    import_dataset(
        plan, out, unlabelled="background", skip_bad_shapes=False, copy=False, advance=advance
    )


def test_without_the_package_a_line_says_what_to_install(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(SettingsError, match=re.escape("install nas-seg[import]")):
        read_plan(coco(place / "x.json", []), "coco")


# ---- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("instances_val2017", "val"), ("train", "train"), ("Validation", "val"), ("valid", "val"),
        ("testing-set", "test"), ("train_val", None), ("interval", None), ("latest", None),
    ],
)  # fmt: skip
def test_splits_in_names(name: str, expected: str | None) -> None:
    assert split_of(name) == expected


def test_names_of_classes_are_taken_by_the_data_set(place: Path) -> None:
    given = ["no", "7", "1e3", "a/b", " Strauß ", "-x", "हिन्दी", "(rot)", "x" * 70, "1:30", "a: b"]
    categories = [{"id": number, "name": name} for number, name in enumerate(given)]
    out, done = imported(coco(place / "x.json", [annotation([SQUARE])], categories=categories))
    expected = ["no", "7", "1e3", "a_b", "Strauß", "_x", "हिन्दी", "_rot_", "x" * 60, "1_30", "a_ b"]
    assert list_dataset(out).classes == ("background", *expected)
    (note,) = done.notes
    assert note.startswith("names of classes: a/b is a_b, -x is _x, (rot) is _rot_, xxx")
    assert note.endswith(", 1:30 is 1_30, a: b is a_ b")
