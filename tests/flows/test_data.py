from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli.main import app
from nas_core.base.errors import DataError, RunError, SettingsError
from nas_core.config import SyntheticSettings
from nas_core.data import lettering
from nas_core.data.folder import list_dataset
from nas_core.data.synthetic import draw_dataset
from nas_core.loading import load_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own, with a dataset of three classes in data/leaves."""
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(ROOT / "params.yaml", project)
    monkeypatch.setenv("NAS_PROJECT_DIR", str(project))
    monkeypatch.setenv("COLUMNS", "200")
    leaves = project / "data" / "leaves"
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (leaves / part).mkdir(parents=True)
    for number in range(10):
        size = (60, 80) if number else (90, 80)
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(leaves / "images" / f"{number}.jpg")
        labels = rng.integers(0, 2, size, dtype=np.uint8)
        Image.fromarray(labels).save(leaves / "masks" / f"{number}.png")
    description = {"classes": ["soil", "leaf", "stem"], "split": {"val": 0.2}}
    (leaves / "dataset.yaml").write_text(yaml.safe_dump(description))
    return project


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


def test_a_good_dataset_is_described_and_a_profile_written(project: Path) -> None:
    done = check(project / "data/leaves", "--profile", "leaves")
    assert done.exit_code == 0, done.output
    for part in ("leaves (folder)", "train (8)", "val (2)", "stem", "0.00%", "80x60 (9)",
                 "no test split", "never in train: stem"):  # fmt: skip
        assert part in done.output
    picture = Image.open(project / "artifacts/check/leaves.png")
    assert picture.width == 640
    settings = load_settings("leaves", root=project)
    assert settings.name == "leaves"
    assert (settings.dataset.kind, settings.dataset.path) == ("folder", "data/leaves")
    proxy = settings.search.proxy
    assert (proxy.height, proxy.width) == (88, 80)
    assert (settings.train.crop_height, settings.train.crop_width) == (72, 64)
    assert settings.train.epochs == 1350  # of one step each, as many as CamVid's 30 have
    assert (proxy.epochs_b, proxy.crops_per_image) == (40, 32)
    assert "estimated from a few steps on this machine" in done.output
    assert "a full training of 1350 epochs" in done.output


def test_tiles_are_counted_and_what_is_no_tile_is_refused(project: Path) -> None:
    leaves = project / "data/leaves"
    done = check(leaves, "--tile", 40, "--overlap", 10)
    assert done.exit_code == 0, done.output
    # 80x60 in 3 columns and 2 rows, and 80x90 in 3 and 3.
    assert "tiles of 40x40: " in done.output and "; 0 left out" in done.output
    assert "meta-val: " in done.output and "whole groups (1 of 8)" in done.output
    for options, message in (
        (("--tile", 40, "--overlap", 40), r"--tile: overlap \(40\) must not exceed half of size"),
        (("--tile", 8), "--tile: expected 32 or more"),
        (("--overlap", 8), "--overlap 8: give --tile, too"),
    ):
        refused = check(leaves, *options)
        assert isinstance(refused.exception, SettingsError)
        assert re.match(message, str(refused.exception))


def test_what_meta_val_will_be_is_said(project: Path) -> None:
    leaves = project / "data/leaves"
    for number in range(10):
        for part, suffix in (("images", "jpg"), ("masks", "png")):
            file = leaves / part / f"{number}.{suffix}"
            file.rename(file.with_stem(f"video{number // 5}_{number}"))
    split = {"val": 0.2, "group": r"^(video\d)_"}
    classes = ["soil", "leaf", "stem"]
    (leaves / "dataset.yaml").write_text(yaml.safe_dump({"classes": classes, "split": split}))
    done = check(leaves)
    assert "meta-val: 1 images, meta-train: 4; drawn one by one" in done.output
    assert "were not read" not in done.output
    assert "1 of them have others of their group in training" in done.output
    found = re.search("groups: 1 in train: (.*); 1 in val: (.*)", done.output)
    assert found and set(found.groups()) == {"video0", "video1"}
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("by: frames", "by: groups"))
    done = check(leaves)
    assert "a block of frames of each group with a gap around it (1 groups" in done.output
    assert "10 of 10 images have not changed since the last check and were not read" in done.output
    (seen,) = project.glob("artifacts/check/leaves-*.seen.json")
    assert f"remove {seen} to read them again" in done.output
    assert "have others of their group" not in done.output


def test_a_profile_is_not_overwritten_and_its_name_is_checked(project: Path) -> None:
    for name, message in (("camvid", "exists"), ("../x", "expected 1 to 41 of the letters")):
        done = check(project / "data/leaves", "--profile", name)
        assert isinstance(done.exception, SettingsError)
        assert message in str(done.exception)
        assert "params.yaml: name" not in str(done.exception)
    assert not (project / "artifacts").exists()


def test_a_file_where_the_check_writes_is_refused_before_images_are_read(project: Path) -> None:
    (project / "artifacts").mkdir()
    for place in (project / "profiles", project / "artifacts" / "check"):
        place.write_text("")
        done = check(project / "data/leaves", "--profile", "leaves")
        assert isinstance(done.exception, RunError) and str(place) in str(done.exception)
        assert "classes" not in done.output
        place.unlink()


def test_what_keeps_a_search_from_running_is_an_error(project: Path) -> None:
    leaves = project / "data/leaves"
    Image.fromarray(np.full((60, 80), 9, np.uint8)).save(leaves / "masks/3.png")
    (leaves / "masks/4.png").unlink()
    done = check(leaves, "--profile", "leaves", "--picture", project / "seen.png")
    assert done.exit_code != 0
    assert isinstance(done.exception, DataError)
    assert "masks/3.png: label 9 not in dataset.yaml" in str(done.exception)
    assert "images/4.jpg: no mask masks/4.png" in str(done.exception)
    assert (project / "seen.png").exists()
    assert not (project / "profiles").exists()


def test_the_kind_is_found_by_the_layout(project: Path) -> None:
    scenes = project / "data/scenes"
    draw_dataset(scenes, SyntheticSettings(num_train=3, num_val=1, num_test=1, height=32, width=40))
    done = check(scenes)
    assert done.exit_code == 0, done.output
    assert "scenes (camvid)" in done.output
    assert "bicyclist" in done.output
    for path, message in ((project / "nowhere", "is no folder"), (project, "no known layout")):
        done = check(path)
        assert isinstance(done.exception, DataError)
        assert message in str(done.exception)


def test_images_without_a_label_are_counted(project: Path) -> None:
    leaves = project / "data/leaves"
    val = [s.name for s in list_dataset(leaves).of_split("val")]
    assert len(val) == 2
    for name in (path.stem for path in (leaves / "masks").iterdir()):
        if name not in (*val, "1", "3"):
            path = leaves / "masks" / f"{name}.png"
            Image.new("L", Image.open(path).size, 255).save(path)
    (leaves / "dataset.yaml").write_text(
        "classes: [soil, leaf]\nignore_labels: [255]\nsplit: {val: 0.2}\n"
    )
    labelled = 2 - len({"1", "3"} & {*val})
    done = check(leaves, "--profile", "leaves")
    assert isinstance(done.exception, DataError)
    assert (
        f"train: 8 images, {labelled} of them with a labelled pixel; a search needs 3 at least"
        in str(done.exception)
    )
    assert f"images without a labelled pixel: {8 - labelled} of 8 in train" in done.output


def test_labels_that_the_proxy_does_not_see(project: Path) -> None:
    leaves = project / "data/leaves"
    (leaves / "dataset.yaml").write_text(
        "classes: [soil, leaf]\nignore_labels: [255]\nsplit: {val: 0.2}\n"
    )
    for path in (leaves / "masks").iterdir():
        mask = np.full((400, 500), 255, np.uint8)
        mask[0, :2] = 0, 1
        Image.fromarray(mask).save(path)
        pixels = np.random.default_rng(int(path.stem)).integers(0, 256, (400, 500, 3), np.uint8)
        Image.fromarray(pixels).save(leaves / "images" / f"{path.stem}.jpg")
    done = check(leaves)
    assert isinstance(done.exception, DataError)
    assert "train: 0 of 8 images have a labelled pixel once they are scaled" in str(done.exception)


def test_masks_that_cannot_be_read_have_no_shares(project: Path) -> None:
    leaves = project / "data/leaves"
    for path in (leaves / "masks").iterdir():
        path.write_bytes(b"no picture")
    done = check(leaves)
    assert isinstance(done.exception, DataError)
    assert "nan" not in done.output and "100" not in done.output
    assert "never in train" not in done.output
    (row,) = [line for line in done.output.splitlines() if "(ignored)" in line]
    assert row.count("-") == 2


def test_class_names_without_a_font_are_in_the_output(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lettering._font_with.cache_clear()
    monkeypatch.setattr(lettering, "findSystemFonts", list)
    (project / "data/leaves/dataset.yaml").write_text("classes: [土, 葉]\nsplit: {val: 0.2}\n")
    done = check(project / "data/leaves")
    lettering._font_with.cache_clear()
    assert done.exit_code == 0, done.output
    assert "class 0 is 土, class 1 is 葉" in done.output


def test_a_folder_whose_name_is_no_text_is_refused(project: Path) -> None:
    odd = project / "data" / "caf\udce9"
    (project / "data/leaves").rename(odd)
    done = check(odd, "--profile", "leaves")
    assert isinstance(done.exception, DataError)
    assert r"data/caf\udce9: has a character that is no text" in str(done.exception)
    assert not (project / "profiles").exists()


def test_images_in_no_list_are_named(project: Path) -> None:
    leaves = project / "data/leaves"
    (leaves / "dataset.yaml").write_text(yaml.safe_dump({"classes": ["soil", "leaf"]}))
    (leaves / "train.txt").write_text("0\n1\n2\n")
    (leaves / "val.txt").write_text("3\n")
    done = check(leaves)
    assert done.exit_code == 0, done.output
    assert "in no list, and not used: 6 images (4, 5, 6, 7, 8, ...)" in done.output


def test_the_picture_does_not_go_into_the_dataset(project: Path) -> None:
    leaves = project / "data/leaves"
    before = (leaves / "masks" / "0.png").read_bytes()
    done = check(leaves, "--picture", leaves / "masks" / "0.png")
    assert isinstance(done.exception, DataError)
    assert "--picture" in str(done.exception) and "lies in the dataset" in str(done.exception)
    assert (leaves / "masks" / "0.png").read_bytes() == before


@pytest.fixture
def annotated(project: Path) -> Path:
    """The images of data/leaves with polygons in COCO's form."""
    images = sorted((project / "data/leaves/images").iterdir())
    content = {
        "images": [{"id": n, "file_name": path.name} for n, path in enumerate(images)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": [[5, 5, 40, 5, 40, 40]]}
            for n in range(len(images))
        ],
        "categories": [{"id": 1, "name": "leaf"}],
    }
    path = project / "data/leaves/result.json"
    path.write_text(json.dumps(content))
    return path


def run_import(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "import", *map(str, arguments)])


def test_what_was_imported_is_taken_by_the_check_as_it_is(project: Path, annotated: Path) -> None:
    out = project / "data/mine"
    done = run_import(annotated, out, "--format", "coco")
    assert done.exit_code == 0, done.output
    for part in ("mine: 10 images (divided by dataset.yaml)", "2 classes: background, leaf",
                 f"nas data check {out}"):  # fmt: skip
        assert part in done.output
    checked = check(out, "--profile", "mine")
    assert checked.exit_code == 0, checked.output
    assert "mine (folder)" in checked.output
    again = run_import(annotated, out, "--format", "coco")
    assert isinstance(again.exception, DataError)
    assert "nothing is overwritten" in str(again.exception)


def test_what_cannot_be_imported_leaves_nothing(project: Path, annotated: Path) -> None:
    for arguments in (["--format", "labelme"], ["--format", "coco"]):
        (project / "data/leaves/images/3.jpg").write_bytes(b"no picture")
        done = run_import(annotated.parent, project / "deep/mine", *arguments)
        assert isinstance(done.exception, DataError)
        assert "result.json" in str(done.exception) or "3.jpg" in str(done.exception)
        assert not (project / "deep").exists()
    for arguments in ([], ["--format", "voc"]):
        assert run_import(annotated, project / "mine", *arguments).exit_code == 2


def test_choices_of_an_import(project: Path, annotated: Path) -> None:
    content = json.loads(annotated.read_text())
    content["categories"].append({"id": 2, "name": "stem"})
    content["annotations"].append({"image_id": 0, "category_id": 2, "segmentation": [[1, 1, 2, 2]]})
    annotated.write_text(json.dumps(content))
    out = project / "mine"
    done = run_import(annotated, out, "--format", "coco", "--unlabelled", "ignore", "--copy",
                      "--skip-bad-shapes")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "2 classes: leaf, stem" in done.output
    assert "left out: 1 polygons of fewer than 3 points (result.json, annotation 10)" in done.output
    assert not (out / "images/0.jpg").samefile(project / "data/leaves/images/0.jpg")
    assert set(np.unique(np.asarray(Image.open(out / "masks/0.png")))) == {0, 255}


def test_without_a_description_a_draft_is_written_that_can_be_used(project: Path) -> None:
    leaves = project / "data/leaves"
    (leaves / "dataset.yaml").unlink()
    done = check(leaves, "--profile", "leaves")
    place = project / "artifacts/check/leaves.dataset.yaml"
    assert isinstance(done.exception, DataError)
    assert "do so on lines 4 to 5 of the draft" in str(done.exception)
    assert f"{place}, and copy it to {leaves}/dataset.yaml" in str(done.exception)
    assert done.output.splitlines()[0] == "layout: images/ beside masks/"
    assert "- {name: class1, label: 1}" in done.output
    assert not (project / "profiles").exists()
    again = check(leaves)
    assert f"is there: edit it and copy it to {leaves}/dataset.yaml, or" in str(again.exception)
    shutil.copy(place, leaves / "dataset.yaml")
    done = check(leaves)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == "layout: images/ beside masks/, test and val by shares"
    assert "named as in a draft: class1: give them names, or ignore them" in done.output


def test_masks_of_one_value_or_photos_are_not_drafted(project: Path) -> None:
    leaves = project / "data/leaves"
    (leaves / "dataset.yaml").unlink()
    for path in (leaves / "masks").iterdir():
        Image.new("L", (80, 60)).save(path)
    done = check(leaves)
    assert isinstance(done.exception, DataError)
    assert "masks hold one and the same value" in str(done.exception)
    assert not (project / "artifacts/check").exists()
    rng = np.random.default_rng(0)
    for path in (leaves / "masks").iterdir():
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    assert "colours, hardly one of them often, as photos have" in str(check(leaves).exception)
    assert not (project / "artifacts/check").exists()


def test_what_splits_have_alike_and_alone_is_told(project: Path) -> None:
    leaves = project / "data/leaves"
    (leaves / "dataset.yaml").write_text("classes: [soil, leaf, stem]\n")
    (leaves / "train.txt").write_text("\n".join("12345"))
    (leaves / "val.txt").write_text("0\n9\n")
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8))
    for name, size in (("1", (80, 60)), ("0", (80, 90))):
        scene = coarse.resize((160, 120), Image.Resampling.BICUBIC)
        scene.resize(size).save(leaves / f"images/{name}.jpg")
    Image.new("L", (80, 60), 2).save(leaves / "masks/9.png")
    done = check(leaves)
    assert done.exit_code == 0, done.output
    assert "only in one split: stem (val)" in done.output
    assert (
        "nearly equal images in different splits, which flatter the scores: 1 pairs, as "
        "images/1.jpg (train) and images/0.jpg (val)" in done.output
    )


def test_palettes_that_do_not_agree_are_told(project: Path) -> None:
    leaves = project / "data/leaves"
    for path in (leaves / "masks").iterdir():
        mask = Image.fromarray(np.asarray(Image.open(path)), "P")
        mask.putpalette([9, 9, 9, 0, 200, 0])
        mask.save(path)
    assert "palettes that do not agree" not in check(leaves).output
    other = Image.open(leaves / "masks/5.png")
    other.putpalette([0, 200, 0, 9, 9, 9])
    other.save(leaves / "masks/5.png")
    for _ in range(2):  # the second tells what the first saw
        output = check(leaves).output
        assert re.search(
            r"label 0 is \[9, 9, 9\] in masks/\d.png and \[0, 200, 0\] in masks/5.png, label 1 is ",
            output,
        )
    assert "10 of 10 images have not changed" in output
    entries = [{"name": "soil", "colour": [9, 9, 9]}, {"name": "leaf", "colour": [0, 200, 0]}]
    description = {"classes": entries, "split": {"val": 0.2}}
    (leaves / "dataset.yaml").write_text(yaml.safe_dump(description))
    done = check(leaves)
    assert done.exit_code == 0 and "palettes that do not agree" not in done.output


def test_colours_near_declared_ones_are_told(project: Path) -> None:
    leaves = project / "data/leaves"
    (leaves / "dataset.yaml").write_text(
        "classes: [{name: soil, colour: [0, 0, 0]}, {name: leaf, colour: [0, 200, 0]}]\n"
        "split: {val: 0.2}\n"
    )
    for path in (leaves / "masks").iterdir():
        size = Image.open(path).size
        mask = Image.new("RGB", size)
        mask.putpixel((0, int(path.stem)), (0, 190, int(path.stem)))
        mask.save(path)
    done = check(leaves)
    assert isinstance(done.exception, DataError)
    assert re.search(
        r"10 files, as (masks/\d\.png(, )?){3}: (colour \[0, 190, \d\],( or)? ){3}\.\.\. not in "
        r"dataset\.yaml, near \[0, 200, 0\]: as JPEG and smoothing leave them at edges; save it ",
        str(done.exception),
    )


@pytest.mark.parametrize("kind", ["JPEG", "scaled"])
def test_masks_that_were_once_stored_with_loss_are_told(project: Path, kind: str) -> None:
    leaves = project / "data/leaves"
    colours = np.array([[0, 0, 0], [0, 160, 0], [200, 30, 30]], np.uint8)
    classes = [{"name": f"c{number}", "colour": rgb} for number, rgb in enumerate(colours.tolist())]
    description = {"classes": classes, "split": {"val": 0.2}}
    (leaves / "dataset.yaml").write_text(yaml.safe_dump(description))
    for path in (leaves / "masks").iterdir():
        size = Image.open(path).size
        labels = np.zeros(size[::-1], np.uint8)
        labels[9:31, 5:40], labels[25:50, 35:70] = 1, 2
        mask = Image.fromarray(colours[labels])
        if kind == "JPEG":
            mask.save(path, "JPEG")
            mask = Image.open(path).copy()
        else:
            mask = mask.resize((84, 64), Image.Resampling.BILINEAR)
            mask = mask.resize(size, Image.Resampling.BILINEAR)
        mask.save(path, "PNG")
    assert re.search(
        r"10 files, as masks.* more not in dataset\.yaml, many near known ones: as JPEG and "
        r"smoothing leave them at edges; save it anew from its source",
        str(check(leaves).exception),
    )
