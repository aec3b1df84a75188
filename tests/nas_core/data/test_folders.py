from __future__ import annotations

import threading
from pathlib import Path

import pytest

from nas_core.data.folders import exclusive, replacing


def write(folder: Path, text: str) -> None:
    with replacing(folder) as new:
        (new / "a").write_text(text)


def test_replaces_the_whole_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    write(folder, "first")
    (folder / "b").write_text("gone with the first")
    write(folder, "second")
    assert (folder / "a").read_text() == "second"
    assert [path.name for path in tmp_path.rglob("*")] == ["cache", "a"]


def test_an_error_leaves_the_former_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    for before in ([], ["cache"]):
        with pytest.raises(KeyError), replacing(folder) as new:
            (new / "a").write_text("half")
            raise KeyError
        assert [path.name for path in tmp_path.iterdir()] == before
        write(folder, "whole")
    assert (folder / "a").read_text() == "whole"


def test_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    for name in (".cache.new", ".cache.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("")
    write(tmp_path / "cache", "whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["cache", "a"]


def test_exclusive_lets_one_thread_in_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    inside: list[int] = []
    most = []

    def work() -> None:
        for _ in range(20):
            with exclusive(folder):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80
    assert max(most) == 1
    assert not list(folder.parent.iterdir())
