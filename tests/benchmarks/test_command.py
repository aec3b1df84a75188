import os
import sys
from pathlib import Path

import pytest

from benchmarks import latency_order, other_networks
from benchmarks.command import errors_in_words
from nas_core.base.errors import RunError


def test_an_error_is_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    @errors_in_words
    def refuses() -> None:
        raise RunError("no such run")

    @errors_in_words
    def lacks_a_file() -> None:
        (tmp_path / "gone").read_text()

    for main, said in (
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
