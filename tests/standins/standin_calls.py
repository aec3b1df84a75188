"""What workers are made to do; a module of its own, since they import it."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nas_core.base.errors import CandidateError, DataError, RunError

# What `fail` does, what a worker makes of it, and its message.
FAILURES = [
    ("candidate", CandidateError, "^the loss was not finite$"),
    ("data", DataError, "^masks are gone$"),
    ("unforeseen", CandidateError, "^ZeroDivisionError: division by zero$"),
    ("memory", CandidateError, "RuntimeError.*(memory|alloc)"),
    ("disk", RunError, "No space left on device"),
    ("own time-out", RunError, "a socket timed out"),
]


def pid() -> int:
    return os.getpid()


def threads() -> int:
    return torch.get_num_threads()


def variable(name: str) -> str:
    return os.environ.get(name, "")


def visible_gpus() -> str:
    time.sleep(0.5)  # so that the other worker takes the next call
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def mark_and_sleep(path: Path, seconds: float) -> int:
    path.write_text(str(os.getpid()))
    time.sleep(seconds)
    return os.getpid()


def fail(kind: str) -> None:
    match kind:
        case "candidate":
            raise CandidateError("the loss was not finite")
        case "data":
            raise DataError("masks are gone")
        case "unforeseen":
            raise ZeroDivisionError("division by zero\nand a second line")
        case "memory":
            torch.empty(2**60)
        case "disk":
            with Path("/dev/full").open("w") as file:
                file.write("x")
                file.flush()
        case "own time-out":
            raise TimeoutError("a socket timed out")


def die_until(path: Path, times: int) -> int:
    """Killed as if memory had run out, the first `times` calls; returns the number of calls."""
    calls = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(calls))
    if calls <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return calls


def killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def big_tensor(count: Path) -> torch.Tensor:
    """Ray keeps small objects elsewhere than in the memory that processes share."""
    count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
    return torch.arange(10.0**6)


def describe(shared: Callable[[], torch.Tensor]) -> dict[str, Any]:
    """The sum of a tensor, and the file that its memory is of."""
    tensor = shared()
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= address < last:
            return {"sum": float(tensor.sum()), "mapped": line.split(maxsplit=5)[5]}
    raise AssertionError("its memory is nowhere")
