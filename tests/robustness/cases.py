"""Malformed input: the corpus on disk, and what an answer to it must be like."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from nas_core.base.errors import NasError

CORPUS = Path(__file__).parent / "corpus"
# The files of these kinds hold many cases each, in a list.
IN_ONE_FILE = ("commands", "overrides", "parameters", "uris")
SECRET = "hunter2"
# An error of a dataset lists its problems, the first 20 of them, a line each.
MOST_LINES = 22
LONGEST_LINE = 1200


def files(kind: str) -> list[Any]:
    """The files of a kind, as parameters of a test."""
    return [pytest.param(path, id=path.stem) for path in sorted((CORPUS / kind).iterdir())]


def listed(kind: str) -> list[Any]:
    """The cases of a kind that has them in one file."""
    cases: list[Any] = json.loads((CORPUS / kind / "cases.json").read_text())
    return cases


def count() -> dict[str, int]:
    """Different cases by kind."""
    return {
        path.name: len({json.dumps(case) for case in listed(path.name)})
        if path.name in IN_ONE_FILE
        else len({file.read_bytes() for file in path.iterdir()})
        for path in sorted(CORPUS.iterdir())
    }


@contextmanager
def refused(named: str, of_dataset: bool = False) -> Iterator[pytest.ExceptionInfo[NasError]]:
    """The block raises one of our errors, whose message names the file or key `named`.

    One line, or two; of a dataset, a line for each problem beneath the first.
    """
    with pytest.raises(NasError) as raised:
        yield raised
    check_message(str(raised.value), named, of_dataset)


def check_message(message: str, named: str = "", of_dataset: bool = False) -> None:
    lines = message.splitlines()
    assert message.strip() and named in message, message[:2000]
    assert len(lines) <= (MOST_LINES if of_dataset else 2), message[:2000]
    assert max(map(len, lines)) <= LONGEST_LINE, message[:2000]
    assert "Traceback" not in message and SECRET not in message, message[:2000]


def accepted_or_refused(read: Callable[[], object]) -> None:
    """Anything but one of our errors, with a message of its kind, is a defect."""
    try:
        read()
    except NasError as error:
        check_message(str(error), of_dataset=True)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file of a folder with its content; None for folders and what is no file."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


# What a server sends first, and then again and again, and the seconds between.
ANSWERS_WITHOUT_END = {
    "a head that drips": (b"HTTP/1.1 200 OK\r\n", b"x", 0.2),
    "lines of a head that drip": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.2),
    "a body that drips": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"x", 0.2),
    "chunks that drip": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.2
    ),
    "a flood": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 2**16, 0.0),
}  # fmt: skip


@contextmanager
def serving(name: str) -> Iterator[str]:
    """The address of a server with one of `ANSWERS_WITHOUT_END`."""
    first, again, pause = ANSWERS_WITHOUT_END[name]
    ended = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(2**16)
            with suppress(OSError):
                self.request.sendall(first)
                while not ended.wait(pause):
                    self.request.sendall(again)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            ended.set()
            server.shutdown()
