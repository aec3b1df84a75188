"""One writer for the folder of a run."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from nas_core.errors import RunError

LOCK_FILE = ".lock"


class RunLock:
    """Holds a folder for this process until `release`, or its end, however it ends.

    Raises:
        RunError: another holder has the folder (the message says which process, on which host),
            or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Not truncated before the lock is held: the file names the holder.
            self._file = (folder / LOCK_FILE).open("a+b", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().decode() or "another process"
            self._file.close()
            raise RunError(
                f"{folder} is in use by {holder}: wait for it to end, or end it"
            ) from None
        except OSError as error:
            raise RunError(f"{folder} cannot be written: {error.strerror}") from None

    def release(self) -> None:
        self._file.truncate(0)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
