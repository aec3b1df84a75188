from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import ExifTags, Image

from nas_core.base.errors import DataError
from nas_core.config import DatasetSettings, SyntheticSettings
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare

HEIGHT, WIDTH = 6, 8
DATASET = DatasetSettings(kind="camvid", path="data")


def folder_of(root: Path) -> Path:
    return root.parent / "artifacts" / "prepared" / "tiny"


def prepare_tiny(root: Path) -> PreparedData:
    return prepare(DATASET, root.parent, folder_of(root))


def modification_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_arrays_hold_what_the_files_hold(make_dataset: Callable[[], Path]) -> None:
    root = make_dataset()
    data = prepare_tiny(root)
    assert (data.height, data.width, data.num_classes, data.ignore_index) == (HEIGHT, WIDTH, 11, 11)
    assert data.palette.shape == (11, 3)
    for name, count in (("train", 3), ("val", 2), ("test", 2)):
        split = data.split(name)
        assert len(split) == count
        assert split.images.shape == (count, HEIGHT, WIDTH, 3)
        assert split.masks.shape == (count, HEIGHT, WIDTH)
        for index, stem in enumerate(split.names):
            image, mask = root / name / f"{stem}.png", root / f"{name}annot" / f"{stem}.png"
            np.testing.assert_array_equal(split.images[index], pixels(image))
            np.testing.assert_array_equal(split.masks[index], pixels(mask))


def test_label_shares_are_those_of_train_without_void(make_dataset: Callable[[], Path]) -> None:
    data = prepare_tiny(make_dataset())
    masks = data.split("train").masks
    labelled = masks[masks != 11]
    expected = [(labelled == label).sum() / labelled.size for label in range(11)]
    np.testing.assert_allclose(data.label_shares, expected)


def test_arrays_are_mapped_and_writing_to_them_does_not_reach_the_disk(
    make_dataset: Callable[[], Path],
) -> None:
    data = prepare_tiny(make_dataset())
    images = data.split("val").images
    assert isinstance(images, np.memmap)
    original = images[0, 0, 0, 0]
    images[0, 0, 0, 0] = ~original
    assert PreparedData.open(data.folder).split("val").images[0, 0, 0, 0] == original


def test_a_second_prepare_writes_nothing(make_dataset: Callable[[], Path]) -> None:
    root = make_dataset()
    first = prepare_tiny(root)
    before = modification_times(first.folder)
    second = prepare_tiny(root)
    assert modification_times(first.folder) == before
    assert second.data_hash == first.data_hash


def test_a_changed_file_is_seen_even_with_the_same_size_and_time(
    make_dataset: Callable[[], Path],
) -> None:
    root = make_dataset()
    first = prepare_tiny(root)
    path = root / "trainannot" / "train_0.png"
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    Image.fromarray(np.full((HEIGHT, WIDTH), 4, np.uint8)).save(path)
    os.utime(path, ns=times)
    second = prepare_tiny(root)
    assert second.data_hash != first.data_hash
    assert (second.split("train").masks[0] == 4).all()
    assert not (first.split("train").masks[0] == 4).all(), "an open cache must not change"


@pytest.mark.parametrize("damage", ["manifest", "array", "missing", "format"])
def test_a_damaged_cache_is_refused_and_made_anew(
    make_dataset: Callable[[], Path], damage: str
) -> None:
    root = make_dataset()
    folder = prepare_tiny(root).folder
    manifest = folder / "manifest.json"
    if damage == "manifest":
        manifest.write_text(manifest.read_text()[:40])
    elif damage == "array":
        array = folder / "val_images.npy"
        array.write_bytes(array.read_bytes()[:-1])
    elif damage == "missing":
        (folder / "test_masks.npy").unlink()
    else:
        manifest.write_text(manifest.read_text().replace('"format": 3', '"format": 2'))
    expected = r"prepared/tiny has (no|a damaged|a manifest).*`nas search --stage prepare`"
    with pytest.raises(DataError, match=expected):
        PreparedData.open(folder)
    prepare_tiny(root)
    assert len(PreparedData.open(folder).split("train")) == 3


def test_what_is_made_anew_says_why(
    make_dataset: Callable[[], Path], caplog: pytest.LogCaptureFixture
) -> None:
    root = make_dataset()
    with caplog.at_level("INFO"):
        manifest = prepare_tiny(root).folder / "manifest.json"
        prepare_tiny(root)
        assert not caplog.messages
        manifest.write_text(manifest.read_text().replace('"format": 3', '"format": 2'))
        prepare_tiny(root)
        (root / "train" / "train_0.png").write_bytes((root / "val" / "val_0.png").read_bytes())
        (root / "val" / "val_0.png").unlink()
        (root / "valannot" / "val_0.png").unlink()
        prepare_tiny(root)
        said = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**said, "code": "another"}))
        prepare_tiny(root)
    start = "the dataset is prepared anew: "
    assert caplog.messages == [
        start + "what was prepared is damaged, or of another version of the program",
        start + "its files have changed",
        start + "another version of the program prepared it",
    ]


def test_places_that_do_not_fit_are_damage(make_dataset: Callable[[], Path]) -> None:
    folder = prepare_tiny(make_dataset()).folder
    manifest = folder / "manifest.json"
    said = json.loads(manifest.read_text())
    for places in ([[0, 6, 8]], [[0, 6, 8], [-1, 6, 8]], [[0, 6, 8], [48, 60, 8]]):
        said["places"]["val"] = places
        manifest.write_text(json.dumps(said))
        with pytest.raises(DataError, match=r"has a (damaged |)(manifest\.json|val_images\.npy)"):
            PreparedData.open(folder)


def test_arrays_of_another_shape_or_type_are_refused(make_dataset: Callable[[], Path]) -> None:
    folder = prepare_tiny(make_dataset()).folder
    np.save(folder / "val_masks.npy", np.zeros((2, HEIGHT, WIDTH + 1), np.uint8))
    with pytest.raises(DataError, match=r"damaged val_masks\.npy \(uint8 \(2, 6, 9\), not"):
        PreparedData.open(folder)
    np.save(folder / "val_masks.npy", np.zeros((2, HEIGHT, WIDTH), np.int64))
    with pytest.raises(DataError, match=r"damaged val_masks\.npy \(int64"):
        PreparedData.open(folder)
    (folder / "val_masks.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"damaged val_masks\.npy"):
        PreparedData.open(folder)
    (folder / "val_masks.npy").unlink()
    os.mkfifo(folder / "val_masks.npy")
    with pytest.raises(DataError, match=r"has no readable val_masks\.npy"):
        PreparedData.open(folder)


def test_nothing_prepared_says_what_to_do(tmp_path: Path) -> None:
    expected = r"prepared/x has no readable manifest\.json: .*`nas search --stage prepare`"
    with pytest.raises(DataError, match=expected):
        PreparedData.open(tmp_path / "prepared" / "x")


def test_manifest_is_plain_json(make_dataset: Callable[[], Path]) -> None:
    folder = prepare_tiny(make_dataset()).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["names"]["val"] == manifest["groups"]["val"] == ["val_0", "val_1"]
    assert manifest["classes"][0] == "sky"
    assert len(manifest["data_hash"]) == 64


class Breakage(NamedTuple):
    """A way to spoil a dataset, and the line that must report it."""

    apply: Callable[[Path], object]
    line: str


def save(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


def resize(path: Path, height: int, width: int) -> None:
    with Image.open(path) as image:
        image.resize((width, height), Image.Resampling.NEAREST).save(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def turn(path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    with Image.open(path) as image:
        image.save(path, exif=exif)


def labels(*first: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[0, : len(first)] = first
    return mask


BREAKAGES = {
    "image without a mask": Breakage(
        lambda root: (root / "valannot/val_0.png").unlink(),
        "val/val_0.png: no mask valannot/val_0.png",
    ),
    "mask without an image": Breakage(
        lambda root: (root / "test/test_0.png").unlink(),
        "testannot/test_0.png: no image test_0 in test/",
    ),
    "missing folder": Breakage(
        lambda root: shutil.rmtree(root / "valannot"), "valannot/: folder is missing"
    ),
    "empty split": Breakage(
        lambda root: [path.unlink() for path in [*root.glob("val/*"), *root.glob("valannot/*")]],
        "val/: no PNG image in it",
    ),
    "mask of another size": Breakage(
        lambda root: resize(root / "trainannot/train_1.png", 3, 4),
        "trainannot/train_1.png: 4x3; its image is 8x6",
    ),
    "image of another size": Breakage(
        lambda root: [resize(root / f / "val_1.png", 5, 7) for f in ("val", "valannot")],
        "val/val_1.png: 7x5; most images are 8x6",
    ),
    "stray label": Breakage(
        lambda root: save(root / "trainannot/train_2.png", labels(12, 200)),
        "trainannot/train_2.png: labels 12, 200 outside 0..11",
    ),
    "colour mask": Breakage(
        lambda root: shutil.copy(root / "val/val_0.png", root / "valannot/val_0.png"),
        "valannot/val_0.png: 8-bit RGB mask; expected 8-bit grey whose values are class numbers",
    ),
    "palette mask": Breakage(
        lambda root: Image.fromarray(labels(1)).convert("P").save(root / "valannot/val_0.png"),
        "valannot/val_0.png: 8-bit palette mask; expected 8-bit grey whose values are class "
        "numbers",
    ),
    "16-bit mask": Breakage(
        lambda root: save(root / "valannot/val_0.png", labels(1).astype(np.uint16)),
        "valannot/val_0.png: 16-bit grey mask; expected 8-bit grey whose values are class numbers",
    ),
    "turned image": Breakage(
        lambda root: turn(root / "val/val_0.png"),
        "val/val_0.png: turned by its EXIF orientation 3; store it upright, as its mask is",
    ),
    "truncated image": Breakage(
        lambda root: truncate(root / "train/train_0.png"),
        "train/train_0.png: damaged PNG (truncated)",
    ),
    "truncated mask": Breakage(
        lambda root: truncate(root / "testannot/test_1.png"),
        "testannot/test_1.png: damaged PNG (truncated)",
    ),
    "empty file": Breakage(
        lambda root: (root / "train/train_0.png").write_bytes(b""),
        "train/train_0.png: empty file",
    ),
    "no image at all": Breakage(
        lambda root: (root / "train/train_0.png").write_text("a note, not an image. " * 9),
        "train/train_0.png: no image that can be read (BMP, JPEG, PNG, PPM, TIFF, WEBP)",
    ),
    "same image in two splits": Breakage(
        lambda root: shutil.copy(root / "train/train_1.png", root / "test/test_1.png"),
        "test/test_1.png: same image as train/train_1.png",
    ),
    "same pixels in another file": Breakage(
        lambda root: Image.open(root / "train/train_1.png").save(
            root / "val/val_1.png", compress_level=0
        ),
        "val/val_1.png: same image as train/train_1.png",
    ),
    "nothing labelled": Breakage(
        lambda root: [
            save(root / f"valannot/val_{i}.png", np.full((HEIGHT, WIDTH), 11, np.uint8))
            for i in (0, 1)
        ],
        "val: no pixel of any mask has a class, all are ignored",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_bad_input_is_named_and_nothing_is_written(
    make_dataset: Callable[[], Path], name: str
) -> None:
    root = make_dataset()
    BREAKAGES[name].apply(root)
    with pytest.raises(DataError) as error:
        prepare_tiny(root)
    assert str(error.value) == f"dataset {root} has 1 problem:\n  {BREAKAGES[name].line}"
    assert list((root.parent / "artifacts").rglob("*")) == [root.parent / "artifacts" / "prepared"]


def test_all_problems_come_in_one_message(make_dataset: Callable[[], Path]) -> None:
    root = make_dataset()
    several = [
        "image without a mask",
        "mask of another size",
        "stray label",
        "truncated image",
        "mask without an image",
    ]
    for name in several:
        BREAKAGES[name].apply(root)
    with pytest.raises(DataError) as error:
        prepare_tiny(root)
    lines = str(error.value).split("\n  ")
    assert lines[0] == f"dataset {root} has 5 problems:"
    assert sorted(lines[1:]) == sorted(BREAKAGES[name].line for name in several)


def test_many_files_with_one_fault_are_a_line(make_dataset: Callable[[], Path]) -> None:
    root = make_dataset()
    for index in range(30):
        shutil.copy(root / "train/train_0.png", root / "train" / f"more_{index:02}.png")
        save(root / "trainannot" / f"more_{index:02}.png", labels(99))
    with pytest.raises(DataError) as error:
        prepare_tiny(root)
    (line,) = str(error.value).split("\n  ")[1:]
    names = ", ".join(f"trainannot/more_{index:02}.png" for index in range(3))
    assert line == f"30 files, as {names}: label 99 outside 0..11"


def test_a_dataset_without_one_readable_image_is_reported(make_dataset: Callable[[], Path]) -> None:
    root = make_dataset()
    for path in root.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="has 14 problems"):
        prepare_tiny(root)


def test_an_error_leaves_the_former_cache(make_dataset: Callable[[], Path]) -> None:
    root = make_dataset()
    folder = prepare_tiny(root).folder
    before = modification_times(folder)
    BREAKAGES["stray label"].apply(root)
    with pytest.raises(DataError, match="labels 12, 200"):
        prepare_tiny(root)
    assert modification_times(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_full_disk_is_found_before_anything_is_written(
    make_dataset: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_dataset()
    full = shutil.disk_usage(root)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(DataError, match=r"artifacts/prepared: .* needs 0 MB and 0 MB are free"):
        prepare_tiny(root)
    assert not list(folder_of(root).parent.iterdir())


def test_a_disk_that_fills_up_meanwhile_is_an_error_and_leaves_nothing(
    make_dataset: Callable[[], Path],
) -> None:
    root = make_dataset()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(DataError, match=r"tiny: the prepared data cannot be written: .*large"):
            prepare_tiny(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(folder_of(root).parent.iterdir())


def test_a_place_that_cannot_be_written_is_named(make_dataset: Callable[[], Path]) -> None:
    root = make_dataset()
    (root.parent / "artifacts").write_text("a file, not a folder")
    with pytest.raises(
        DataError, match=r"artifacts/prepared/tiny: .* cannot be written: .*artifac"
    ):
        prepare_tiny(root)


def test_what_is_no_prepared_data_is_not_replaced(make_dataset: Callable[[], Path]) -> None:
    """As the folder of the dataset itself, or a file."""
    root = make_dataset()
    file = next((root / "train").iterdir())
    before = modification_times(root)
    for place in (root, file):
        with pytest.raises(DataError, match="is no prepared data, and would be lost: give a fold"):
            prepare(DATASET, root.parent, place)
    assert modification_times(root) == before and file.is_file()


def test_two_at_once_both_get_whole_data(make_dataset: Callable[[], Path]) -> None:
    root = make_dataset()
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(prepare_tiny, [root] * 4))
    assert {len(data.split("train")) for data in opened} == {3}
    assert [path.name for path in folder_of(root).parent.iterdir()] == ["tiny"]


def test_memory_that_does_not_suffice_is_no_damage(tmp_path: Path) -> None:
    size = SyntheticSettings(num_train=12, num_val=1, num_test=1, height=480, width=640)
    dataset = DatasetSettings(kind="synthetic", path="drawn", synthetic=size)
    prepare(dataset, tmp_path, tmp_path / "prepared")
    script = f"""
import resource
from pathlib import Path
import psutil
from nas_core.data.prepared import PreparedData
most = psutil.Process().memory_info().vms + 2**22
resource.setrlimit(resource.RLIMIT_AS, (most, most))
PreparedData.open(Path({str(tmp_path / "prepared")!r}))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "RunError" in run.stderr and "cannot be mapped into memory: Cannot" in run.stderr


def test_synthetic_data_is_drawn_first(tmp_path: Path) -> None:
    size = SyntheticSettings(num_train=3, num_val=1, num_test=2, height=32, width=40)
    dataset = DatasetSettings(kind="synthetic", path="drawn", synthetic=size)
    data = prepare(dataset, tmp_path, tmp_path / "prepared" / "synthetic")
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [3, 1, 2]
    assert (data.height, data.width) == (32, 40)
    assert len(list((tmp_path / "drawn" / "train").iterdir())) == 3


def test_real_camvid(camvid_dir: Path, tmp_path: Path) -> None:
    dataset = DatasetSettings(kind="camvid", path=str(camvid_dir))
    data = prepare(dataset, tmp_path, tmp_path / "prepared")
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [367, 101, 233]
    assert (data.height, data.width) == (360, 480)
    assert all(data.split(name).masks.max() == 11 for name in ("train", "val", "test"))
    shares = dict(zip(data.classes, data.label_shares, strict=True))
    assert shares["road"] == pytest.approx(0.32, abs=0.02)
    assert shares["building"] == pytest.approx(0.23, abs=0.02)
    assert shares["sky"] == pytest.approx(0.17, abs=0.02)
    assert shares["pole"] == pytest.approx(0.010, abs=0.002)
    assert shares["bicyclist"] == pytest.approx(0.003, abs=0.001)
    assert data.label_shares.sum() == pytest.approx(1)
