"""Writing files and folders so that a crash leaves the old or the new one, never half of one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from nas_core.errors import RunError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path beside `path`, flush to disk and rename it to `path`.

    The temporary name keeps the suffix of `path`, since many writers choose the format by it.

    Raises:
        RunError: the disk does not take it; then `path` is as before.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        flush_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error.filename, str) and error.filename != str(temporary):
            reason += f": {error.filename}"
        raise RunError(f"{path} cannot be written: {reason}") from error


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, so that a new file survives the loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def fill_folder(folder: Path, sources: Mapping[str, Path]) -> None:
    """Make the files of `folder` copies of these, by name; others are removed at the end.

    After a crash there may be files too many, but none is half written or lost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        write_atomically(folder / name, partial(shutil.copyfile, source))
    for path in folder.iterdir():
        if path.name not in sources:
            path.unlink()


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` that takes its place if the block raises nothing.

    A crash leaves the old one, the new one or none, never half of one. Call it inside
    `locks.exclusive(folder)`: what an earlier crash left behind is removed first.
    """
    new, old = (folder.with_name(f".{folder.name}.{state}") for state in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)


def digest_of(*values: Any, length: int = 8) -> str:
    """A short hexadecimal SHA-256 of JSON values, the same in every process and machine."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
