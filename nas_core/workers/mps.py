"""NVIDIA's Multi-Process Service: processes use a GPU at the same time, and not by turns.

https://docs.nvidia.com/deploy/mps
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nas_core.base.closing import Closing
from nas_core.base.errors import first_line

CONTROL = "nvidia-cuda-mps-control"
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
USUAL_PIPES = "/tmp/nvidia-mps"
SECONDS_TO_ANSWER = 30.0
# What torch does first on a GPU, without the seconds of its import.
USES_GPU = """
import ctypes
cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
raise SystemExit(bool(cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)))
"""


class Mps(Closing):
    """A service for the processes that have `environment`, from now until `close`.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be started.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nas-mps-"))
        self.environment = {
            PIPES: str(self._folder),
            "CUDA_MPS_LOG_DIRECTORY": str(self._folder),
        }
        try:
            self._control("-d")
        except (OSError, subprocess.SubprocessError):
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def serves(self) -> bool:
        """Whether a process can use a GPU through it: in some containers none can."""
        try:
            subprocess.run(
                [sys.executable, "-c", USES_GPU],
                env=os.environ | self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
                timeout=SECONDS_TO_ANSWER,
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return True

    def close(self) -> None:
        try:
            self._control(typed="quit\n")
        except (OSError, subprocess.SubprocessError):
            return  # it has ended already
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _control(self, *arguments: str, typed: str = "") -> None:
        # It sees all GPUs: else it would number them anew, and the workers name them by number.
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        subprocess.run(
            [CONTROL, *arguments],
            env=environment | self.environment,
            input=typed,
            stdout=subprocess.DEVNULL,  # which the service keeps open
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
            timeout=SECONDS_TO_ANSWER,
        )


def start_mps() -> tuple[Mps | None, str]:
    """The service, and how it is with it in words; None where it runs already or is not there."""
    pipes = Path(os.environ.get(PIPES, USUAL_PIPES))
    if (pipes / "control").exists():
        return None, "MPS runs already"
    if shutil.which(CONTROL) is None:
        return None, f"they take turns on it, for {CONTROL} is not there"
    try:
        mps = Mps()
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"they take turns on it, for MPS does not start: {first_line(error)}"
    try:
        if mps.serves():
            return mps, "MPS lets them use it at the same time"
    except BaseException:
        mps.close()
        raise
    mps.close()
    return None, "they take turns on it, for no process can use it through MPS"
