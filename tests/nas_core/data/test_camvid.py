from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_core.base.errors import DataError
from nas_core.data import camvid
from nas_core.data.listing import SPLITS, report


def test_classes_palette_and_void() -> None:
    assert len(camvid.CLASSES) == len(camvid.PALETTE) == camvid.VOID == 11
    assert camvid.CLASSES[3] == "road"
    assert camvid.PALETTE[3] == (128, 64, 128)
    assert len(set(camvid.PALETTE)) == 11


def test_lists_samples_by_split_and_name(make_dataset: Callable[[], Path]) -> None:
    root = make_dataset()
    (root / "train.txt").write_text("/home/somebody/train/train_0.png")
    (root / "train" / ".hidden.png").write_bytes(b"")
    (root / "train" / "notes.txt").write_text("not an image")
    listing = camvid.list_dataset(root)
    assert listing.problems == ()
    assert [sample.name for sample in listing.of_split("train")] == [
        "train_0",
        "train_1",
        "train_2",
    ]
    assert [len(listing.of_split(split)) for split in SPLITS] == [3, 2, 2]
    sample = listing.of_split("val")[1]
    assert sample.image == root / "val" / "val_1.png"
    assert sample.mask == root / "valannot" / "val_1.png"


def test_hash_depends_on_names_and_contents_alone(
    make_dataset: Callable[[], Path], tmp_path: Path
) -> None:
    root = make_dataset()
    original = camvid.list_dataset(root).data_hash
    copy = shutil.copytree(root, tmp_path / "elsewhere")
    assert camvid.list_dataset(copy).data_hash == original
    (copy / "README").write_text("other files do not count")
    assert camvid.list_dataset(copy).data_hash == original
    for folder in ("test", "testannot"):
        (copy / folder / "test_1.png").rename(copy / folder / "test_2.png")
    renamed = camvid.list_dataset(copy).data_hash
    mask = copy / "trainannot" / "train_0.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    assert len({original, renamed, camvid.list_dataset(copy).data_hash}) == 3


def test_a_missing_folder_says_how_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist: get CamVid with `dvc pull`"):
        camvid.list_dataset(tmp_path / "nowhere")


def test_everything_missing_is_listed(make_dataset: Callable[[], Path]) -> None:
    root = make_dataset()
    (root / "train" / "train_1.png").unlink()
    (root / "trainannot" / "train_2.png").unlink()
    shutil.rmtree(root / "valannot")
    for folder in ("test", "testannot"):
        for path in (root / folder).iterdir():
            path.unlink()
    (root / "test" / "photo.jpg").write_bytes(b"")
    assert camvid.list_dataset(root).problems == (
        "train/train_2.png: no mask trainannot/train_2.png",
        "trainannot/train_1.png: no image train_1 in train/",
        "valannot/: folder is missing",
        "test/photo.jpg: a JPEG image; expected PNG: convert it",
    )


def test_a_link_to_nowhere_is_named(make_dataset: Callable[[], Path]) -> None:
    root = make_dataset()
    (root / "train" / "train_0.png").unlink()
    (root / "train" / "train_0.png").symlink_to(root / "gone.png")
    assert camvid.list_dataset(root).problems == (
        "train/train_0.png: a link that leads nowhere",
        "trainannot/train_0.png: no image train_0 in train/",
    )


@pytest.mark.parametrize(("count", "last"), [(1, "line 0"), (20, "line 19"), (25, "and 5 more")])
def test_a_report_shows_twenty_problems(count: int, last: str) -> None:
    message = str(report(Path("data"), [f"line {number}" for number in range(count)]))
    first, *lines = message.split("\n")
    assert first == f"dataset data has {count} problem{'s' if count > 1 else ''}:"
    assert len(lines) == min(count, 21)
    assert lines[-1].strip() == last


def test_frames_of_a_recording_are_a_group_and_other_images_their_own(
    make_dataset: Callable[[], Path],
) -> None:
    root = make_dataset()
    frames = ("0001TP_006690", "0006R0_f00930", "Seq05VD_f00000")
    for number, name in enumerate(frames):
        for folder in ("train", "trainannot"):
            (root / folder / f"train_{number}.png").rename(root / folder / f"{name}.png")
    listing = camvid.list_dataset(root)
    groups = [sample.group for sample in listing.of_split("train")]
    assert groups == ["0001TP", "0006R0", "Seq05VD"]
    assert [sample.group for sample in listing.of_split("val")] == ["val_0", "val_1"]
