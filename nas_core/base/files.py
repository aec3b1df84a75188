"""Files and folders: written so that a crash leaves the old or the new one, read within limits."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from os.path import lexists
from pathlib import Path
from typing import Any

from nas_core.base.errors import DiskError, RunError, shown

MAX_JSON = 2**26


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path beside `path`, flush to disk and rename it to `path`.

    The temporary name keeps the suffix of `path`, since many writers choose the format by it.

    Raises:
        DiskError: the disk does not take it; then `path` is as before.
    """
    if not path.name:  # "." or "/"
        raise DiskError(f"{path} cannot be written: {os.strerror(errno.EISDIR)}")
    # Not the name itself: that may be as long as a name can be.
    temporary = path.with_name(f".{digest_of(path.name)}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file() and not path.is_dir():
            # A file would take the place of a device or a pipe.
            raise OSError(errno.EINVAL, "not a regular file")
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
        raise DiskError(f"{path} cannot be written: {reason}") from error


def nearest(path: Path) -> Path:
    """What is there of a path: itself, or the first above it; a link to nowhere is."""
    return next(place for place in (path, *path.parents) if lexists(place))


def check_writable(folder: Path, remedy: str) -> None:
    """See that files can be made in a folder, or the folder itself; nothing is left there.

    Args:
        remedy: what to do if not, for the message.

    Raises:
        RunError: they cannot.
    """
    try:
        tempfile.TemporaryFile(dir=nearest(folder)).close()
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}): {remedy}") from None


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


def append_line(path: Path, size: int, line: bytes) -> int:
    """Write `line` behind the first `size` bytes of a file; it is on the disk when this returns.

    What a crash, or a line that was refused, may have left behind those bytes goes. With a size of
    0 the file need not be there.

    Returns:
        The new size.

    Raises:
        DiskError: the disk does not take it; then another try may follow.
    """
    if not size:
        write_bytes(path, line)
        return len(line)
    try:
        with path.open("rb+") as file:
            file.truncate(size)
            file.seek(size)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror}") from None
    return size + len(line)


def json_bytes(value: Any) -> bytes:
    # A lone surrogate, as of a name that is not UTF-8, becomes the escape that JSON has for it.
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, json_bytes(value))


def expanded(path: str) -> Path:
    """A path with its `~`, which stays where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def check_regular(path: Path) -> None:
    """Raise an OSError unless `path` is a regular file: a pipe would let us wait for ever."""
    try:
        mode = path.stat().st_mode
    except ValueError:  # a NUL, or what no file system can write
        raise OSError(errno.EINVAL, "no name of a file", str(path)) from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_limited(path: Path, limit: int) -> bytes:
    """The content of a file that a person or another program made.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than `limit` bytes.
    """
    with open_limited(path, limit) as file:
        return file.read(os.fstat(file.fileno()).st_size)


@contextmanager
def open_limited(path: Path, limit: int | None = None) -> Iterator[BufferedReader]:
    """A regular file to read, which has at most `limit` bytes.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than `limit` bytes. Files of the
            system, as those below /proc, are none: they may let a reader wait for ever or never
            end, and claim no size.
    """
    check_regular(path)
    # Not waiting for a pipe that took the file's place, nor for a message of the kernel.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or (not status.st_size and file.read(1) != b""):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if limit is not None and status.st_size > limit:
            raise OSError(errno.EFBIG, f"more than {limit} bytes", str(path))
        yield file


def read_text(path: Path, limit: int) -> str:
    """The text of a file that a person made, with or without a byte order mark.

    Raises:
        OSError: see `read_limited`.
        ValueError: it is no UTF-8.
    """
    try:
        return read_limited(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}: save it as UTF-8") from None


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: it cannot be read, or has more than `MAX_JSON` bytes.
        ValueError: it is no JSON, or an object has a key twice.
    """
    try:
        return json.loads(read_limited(path, MAX_JSON), object_pairs_hook=distinct)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of these pairs; raises a ValueError if a key is given twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {shown(twice)} is given twice")
    return found


def resolved(path: Path) -> Path:
    """A full path without links. Of links in a circle some stay: who opens it gets an OSError."""
    return Path(os.path.realpath(path))  # Path.resolve raises a RuntimeError before Python 3.13


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`; links are followed.

    Raises:
        ValueError: that lies outside of `folder`.
    """
    path = folder / name
    if not resolved(path).is_relative_to(resolved(folder)):
        raise ValueError(f"{name!r} leads out of {folder}")
    return path


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
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:length]


def file_digest(path: Path, limit: int | None = None) -> str:
    """Hexadecimal SHA-256 of a file's content; raises as `open_limited`."""
    with open_limited(path, limit) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
