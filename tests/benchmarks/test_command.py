import errno
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import formats, latency_order, other_networks
from benchmarks.command import errors_in_words, kept
from nas_core.base.errors import DataError, RunError


def test_an_error_is_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)

    @errors_in_words
    def refuses() -> None:
        raise RunError("no such run")

    @errors_in_words
    def lacks_a_file() -> None:
        (tmp_path / "gone").read_text()

    @errors_in_words
    def fills_the_disk() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for main, said in (
        (fills_the_disk, f"error: the output cannot be written: {os.strerror(errno.ENOSPC)}"),
        (refuses, "error: no such run"),
        (lacks_a_file, f"error: {tmp_path / 'gone'}: {os.strerror(2)}"),
    ):
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == said


def test_an_argument_of_a_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", ""])
    ran = False

    @errors_in_words
    def main() -> None:
        nonlocal ran
        ran = True

    with pytest.raises(SystemExit, match="an argument is empty"):
        main()
    assert not ran


def test_a_size_that_is_none(tmp_path: Path) -> None:
    for size in ("480", "ax", "16x999"):
        with pytest.raises(SystemExit, match="expected WIDTHxHEIGHT"):
            latency_order.main(size=size)
        with pytest.raises(SystemExit, match="expected WIDTHxHEIGHT"):
            other_networks.main([tmp_path], size=size)


def test_what_is_kept_of_a_training_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    path.write_text('{"id": "a", "seconds": 1}')
    assert kept(path, "id") == {"id": "a", "seconds": 1}
    for text in ('{"id": ', "[]", '{"seconds": 1}'):
        path.write_text(text)
        with pytest.raises(RunError, match=r"outcome\.json cannot be read .*delete it to train"):
            kept(path, "id")


def test_a_val_split_of_too_few_images_to_score(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    for name in "abc":
        Image.new("RGB", (40, 32)).save(tmp_path / "val" / f"{name}.png")
    with pytest.raises(DataError, match="val: 3 images, expected 4 or more"):
        formats.measure(tmp_path, "camvid0-camvid", 1)
