import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas_core.base.errors import RunError
from nas_core.base.files import (
    check_writable,
    digest_of,
    file_digest,
    fill_folder,
    read_json,
    replacing,
    write_atomically,
    write_bytes,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(RunError, match=r"a\.json cannot be written: disk full$"):
        write_atomically(path, fail)
    assert json.loads(path.read_text()) == {"x": 1}
    assert [child.name for child in tmp_path.iterdir()] == ["a.json"]


def test_a_pipe_is_not_replaced_nor_a_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(RunError, match=r"pipe\.csv cannot be written: not a regular file$"):
        write_bytes(pipe, b"1")
    assert pipe.is_fifo()


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    seen = []

    def write(temporary: Path) -> None:
        seen.append(temporary.suffix)
        temporary.write_text("x")

    write_atomically(tmp_path / "new" / "picture.png", write)
    assert seen == [".png"] and (tmp_path / "new" / "picture.png").exists()


def test_a_folder_holds_exactly_what_it_is_filled_with(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(f"new {name}")
    fill_folder(folder, {"1": tmp_path / "a", "2": tmp_path / "b"})
    fill_folder(folder, {"2": tmp_path / "a", "3": tmp_path / "c"})
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"2": "new a", "3": "new c"}
    # What cannot be had takes nothing away.
    with pytest.raises(RunError, match=r"4 cannot be written: No such file.*/missing$"):
        fill_folder(folder, {"4": tmp_path / "missing"})
    assert {path.name for path in folder.iterdir()} == {"2", "3"}
    fill_folder(folder, {})
    assert list(folder.iterdir()) == []


def test_digests_are_the_same_in_every_process(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "ä"}
    program = f"from nas_core.base.files import digest_of; print(digest_of({value!r}))"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == digest_of(value)
    assert digest_of(value) == digest_of({"a": "ä", "b": [1, 2.5, None]}) != digest_of({})


def test_a_file_digest_is_that_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(tmp_path / "a") == expected


def write_folder(folder: Path, text: str) -> None:
    with replacing(folder) as new:
        (new / "a").write_text(text)


def test_replaces_the_whole_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    write_folder(folder, "first")
    (folder / "b").write_text("gone with the first")
    write_folder(folder, "second")
    assert (folder / "a").read_text() == "second"
    assert [path.name for path in tmp_path.rglob("*")] == ["cache", "a"]


def test_an_error_leaves_the_former_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    for before in ([], ["cache"]):
        with pytest.raises(KeyError), replacing(folder) as new:
            (new / "a").write_text("half")
            raise KeyError
        assert [path.name for path in tmp_path.iterdir()] == before
        write_folder(folder, "whole")
    assert (folder / "a").read_text() == "whole"


def test_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    for name in (".cache.new", ".cache.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("")
    write_folder(tmp_path / "cache", "whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["cache", "a"]


def test_text_that_is_not_utf_8_is_written_as_json(tmp_path: Path) -> None:
    value = {"name": "caf\udce9", "other": "café"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "café" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert digest_of(value) != digest_of({**value, "name": "caf\udce8"})


@pytest.mark.parametrize("target", ["folder", "nowhere"])
def test_a_link_that_leads_nowhere_is_no_place_to_write(tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").symlink_to(target)  # itself, or what is not there
    for folder in (tmp_path / "folder", tmp_path / "folder" / "below"):
        with pytest.raises(RunError, match=r"folder.* cannot be written \(.*\): move it"):
            check_writable(folder, "move it")
