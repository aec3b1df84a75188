"""Folders that one process at a time works on: others wait, or are told who has it.

The system gives a lock back when its process dies.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import lexists
from pathlib import Path

from nas_core.base.closing import Closing
from nas_core.base.errors import DiskError, RunError
from nas_core.base.files import check_regular

LOCK_FILE = ".lock"
_LONGEST = 300  # of what names a process and its host


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Only one process or thread at a time works on `folder` or its neighbours; others wait.

    For work of seconds. The lock is on the parent folder itself, so no lock file is left.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class RunLock(Closing):
    """Holds a folder for this process until `close`, or its end, however it ends.

    For work of hours: who comes second is refused, and a file in the folder names the holder.

    Args:
        refused: the error of who comes second. Its message says which process has the folder, on
            which host.

    Raises:
        RunError: another holder has the folder, or it cannot be written (a `DiskError`).
    """

    def __init__(self, folder: Path, refused: type[RunError] = RunError) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Not truncated before the lock is held: the file names the holder.
            self._file = (folder / LOCK_FILE).open("a+b", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read(_LONGEST).decode(errors="replace") or "another process"
            self._file.close()
            raise refused(
                f"{folder} is in use by {holder}: wait for it to end, or end it"
            ) from None
        except OSError as error:
            # What takes the place of the lock file is hidden, and not seen in the folder.
            path = folder / LOCK_FILE if lexists(folder / LOCK_FILE) else folder
            raise DiskError(f"{path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        self._file.truncate(0)
        self._file.close()


def holder(folder: Path) -> str | None:
    """Who holds a folder by a `RunLock`, as "process 12 on HOST"; None if nobody does."""
    try:
        check_regular(folder / LOCK_FILE)  # a pipe would let us wait for ever
        with (folder / LOCK_FILE).open("rb") as file:
            named = file.read(_LONGEST).decode(errors="replace")
            if not named:  # let go of in good order; nobody who begins now is to be disturbed
                return None
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return named
    except OSError:
        return None
    return None
