"""The file of looks at test."""

import os
from pathlib import Path

import pytest

from nas_core.base.errors import RunError
from nas_core.base.paths import looks_file
from nas_core.training.looks import Look, count_looks, note_look


def look(architecture: str = "a", data_hash: str = "d") -> Look:
    return Look(
        time=1.0, architecture=architecture, data_hash=data_hash, data="camvid", model="m",
        mean_iou=0.5,
    )  # fmt: skip


def test_looks_are_counted_by_architecture_and_data(tmp_path: Path) -> None:
    assert count_looks(tmp_path, "a", "d") == 0
    for one in (look(), look("b"), look(data_hash="e"), look()):
        note_look(tmp_path, one)
    assert count_looks(tmp_path, "a", "d") == 2
    assert count_looks(tmp_path, "b", "d") == count_looks(tmp_path, "a", "e") == 1


def test_a_line_that_a_crash_cut_short_is_replaced(tmp_path: Path) -> None:
    note_look(tmp_path, look())
    with looks_file(tmp_path).open("ab") as file:
        file.write(b'{"time": 1.0, "arch')
    assert count_looks(tmp_path, "a", "d") == 1
    note_look(tmp_path, look())
    assert count_looks(tmp_path, "a", "d") == 2
    assert len(looks_file(tmp_path).read_bytes().splitlines()) == 2


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    note_look(tmp_path, look())
    with looks_file(tmp_path).open("ab") as file:
        file.write(b'{"time": "now"}\n')
    with pytest.raises(RunError, match=r"test_looks\.jsonl: line 2 is no look at test: restore"):
        count_looks(tmp_path, "a", "d")


@pytest.mark.timeout(20)
def test_a_file_that_cannot_be_read_is_no_lack_of_looks(tmp_path: Path) -> None:
    path = looks_file(tmp_path)
    path.parent.mkdir()
    for make in (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(path.name)):
        make()
        for use in (lambda: count_looks(tmp_path, "a", "d"), lambda: note_look(tmp_path, look())):
            with pytest.raises(RunError, match=r"test_looks\.jsonl cannot be read .* restore"):
                use()
        path.rmdir() if path.is_dir() else path.unlink()
