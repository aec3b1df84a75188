from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.config import SyntheticSettings
from nas_core.data import camvid
from nas_core.data.listing import SPLITS
from nas_core.data.synthetic import draw_dataset

SMALL = SyntheticSettings(num_train=4, num_val=2, num_test=2, height=36, width=48)


def digest(folder: Path) -> str:
    """Of all files' names and contents."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(path.relative_to(folder).as_posix().encode())
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


def modification_times(folder: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))]


def test_same_settings_give_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "here", SMALL)
    program = (
        "import sys; from pathlib import Path; from nas_core.config import SyntheticSettings;"
        "from nas_core.data.synthetic import draw_dataset;"
        "settings = SyntheticSettings.model_validate_json(sys.argv[2]);"
        "draw_dataset(Path(sys.argv[1]), settings)"
    )
    for seed in ("1", "2"):
        folder = tmp_path / f"process_{seed}"
        subprocess.run(
            [sys.executable, "-c", program, str(folder), SMALL.model_dump_json()],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert digest(folder) == digest(tmp_path / "here")


def test_more_images_keep_the_earlier_ones(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "few", SMALL)
    draw_dataset(tmp_path / "many", SMALL.model_copy(update={"num_train": 6}))
    for name in ("train", "trainannot", "valannot"):
        for path in (tmp_path / "few" / name).iterdir():
            assert path.read_bytes() == (tmp_path / "many" / name / path.name).read_bytes()


def test_defaults_give_a_valid_dataset_with_every_class_and_no_image_twice(tmp_path: Path) -> None:
    draw_dataset(tmp_path, SyntheticSettings())
    listing = camvid.list_dataset(tmp_path)
    assert not listing.problems
    assert [len(listing.of_split(split)) for split in SPLITS] == [60, 12, 12]
    assert len({sample.image.read_bytes() for sample in listing.samples}) == 84
    for split in SPLITS:
        masks = [np.array(Image.open(sample.mask)) for sample in listing.of_split(split)]
        assert masks[0].shape == (90, 120)
        shares = np.bincount(np.concatenate(masks).ravel(), minlength=12) / np.size(masks)
        assert (shares > 0).all(), "all 11 classes and void appear in every split"
        assert shares[[0, 1, 3]].sum() > 0.6, "sky, building and road prevail, as in CamVid"
        assert shares[11] < 0.02


def test_what_is_there_is_not_drawn_again(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    draw_dataset(folder, SMALL)
    before = modification_times(folder)
    draw_dataset(folder, SMALL)
    assert modification_times(folder) == before


def test_other_settings_draw_it_anew(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    draw_dataset(folder, SMALL)
    draw_dataset(folder, SMALL.model_copy(update={"num_train": 2, "width": 64}))
    images = sorted((folder / "train").iterdir())
    assert len(images) == 2
    assert Image.open(images[0]).size == (64, 36)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"holds files that are no synthetic dataset.*dataset.path"):
        draw_dataset(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    draw_dataset(folder, SMALL)
    assert len(list((folder / "test").iterdir())) == 2


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/scenes: the dataset cannot be drawn there"):
        draw_dataset(tmp_path / "file" / "scenes", SMALL)
