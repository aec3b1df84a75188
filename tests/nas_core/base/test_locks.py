from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nas_core.base.errors import RunError
from nas_core.base.locks import RunLock, exclusive, holder

HOLD = """
import sys, time
from pathlib import Path
from nas_core.base.locks import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunLock(folder):
        named = f"run is in use by process {os.getpid()} on {socket.gethostname()}"
        for _ in range(2):
            with pytest.raises(RunError, match=named):
                RunLock(folder)
    with RunLock(folder):
        pass
    assert [(entry.name, entry.read_text()) for entry in folder.iterdir()] == [(".lock", "")]


def test_killed_process_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"in use by process {process.pid} on"):
            RunLock(tmp_path)
        process.send_signal(signal.SIGKILL)
    with RunLock(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()


def test_who_holds_a_folder(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with RunLock(tmp_path):
        assert holder(tmp_path) == f"process {os.getpid()} on {socket.gethostname()}"
    assert holder(tmp_path) is None
    # As a killed process leaves it.
    (tmp_path / ".lock").write_text("process 1 on elsewhere")
    assert holder(tmp_path) is None


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="run cannot be written"):
        RunLock(tmp_path / "file" / "run")
    (tmp_path / ".lock").mkdir()
    with pytest.raises(RunError, match=r"\.lock cannot be written: Is a directory"):
        RunLock(tmp_path)


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
