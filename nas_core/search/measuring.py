"""The latency of a network: what a command says of its ONNX file."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from torch import nn

from nas_core.base.errors import RunError, SettingsError, last_lines
from nas_core.base.files import write_bytes
from nas_core.config import MODEL, LatencySettings
from nas_core.search.latencies import MAX_MILLISECONDS, MeasuredBy

# By its path, without its folder among those that Python imports from: so it needs no installed
# package, and imports in half a second.
_OWN = [sys.executable, "-P", str(Path(__file__).parents[1] / "deploy" / "measure.py"), MODEL]

NUM_TRIES = 3
SECONDS_BETWEEN = 1.0
_MAX_OUTPUT = 2**20
_NUMBER = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Meter:
    """Measures networks, each in a process of its own.

    Args:
        size: height and width of an image.
        root: the project's folder, where the command runs.
    """

    def __init__(self, settings: LatencySettings, size: tuple[int, int], root: Path) -> None:
        self.settings, self.size, self.root = settings, size, root

    @property
    def about(self) -> MeasuredBy:
        height, width = self.size
        command, threads = self.settings.command, self.settings.threads
        return MeasuredBy(command=command, threads=threads, height=height, width=width)

    def measure(self, network: nn.Module) -> float:
        """Milliseconds for one image of a network, which is put in eval mode.

        Raises:
            RunError: the command fails, takes too long or says no number, time after time.
        """
        from nas_core.models.onnx_graph import onnx_graph  # takes a third of a second to import

        model = onnx_graph(network.eval(), self.size).SerializeToString()
        for _ in range(NUM_TRIES - 1):
            try:
                return self._try(model)
            except RunError:
                time.sleep(SECONDS_BETWEEN)
        return self._try(model)

    def _try(self, model: bytes) -> float:
        """In a folder of its own, as a command may remove what it is given."""
        with tempfile.TemporaryDirectory(prefix="nas-latency-") as name:
            path = Path(name) / "model.onnx"
            write_bytes(path, model)
            words = [word.replace(MODEL, str(path)) for word in _command(self.settings)]
            return self._run(words, path.parent)

    def _run(self, words: list[str], folder: Path) -> float:
        """Raises a RunError where it does not print one number of milliseconds."""
        limit = self.settings.time_limit
        # Files, as a process that it leaves behind would hold a pipe open.
        with (folder / "output").open("w+b") as output, (folder / "errors").open("w+b") as errors:
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    cwd=self.root,
                    start_new_session=True,
                )
            except OSError as error:
                raise _failure(words, f"cannot be started ({error.strerror})") from None
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with what it started
                    process.wait()
            said, complaint = _text(output), _text(errors)
        if code is None:
            what = f"took longer than search.latency.time_limit, {limit:g} s"
            raise _failure(words, what, complaint, said)
        if code:
            raise _failure(words, f"ended with {code}", complaint, said)
        # Not all that float() takes is meant as a number, as 1_0.
        milliseconds = float(said) if _NUMBER.fullmatch(said.strip()) else 0.0
        if not 0 < milliseconds <= MAX_MILLISECONDS:
            raise _failure(words, "did not print one number of milliseconds", complaint, said)
        return milliseconds


def check_latency(settings: LatencySettings, root: Path) -> None:
    """See that latencies can be measured, as far as that shows without a network.

    Raises:
        SettingsError: there is no such program, or there are more threads than cores.
    """
    cores = os.cpu_count() or 1
    if not settings.command and settings.threads > cores:
        raise SettingsError(
            f"search.latency.threads = {settings.threads}: this machine has {cores} CPU cores; "
            "give fewer"
        )
    program = _command(settings)[0]
    if shutil.which(root / program if "/" in program else program) is None:
        raise SettingsError(
            f"search.latency.command: there is no program {program}"
            + (f" in {root}" if "/" in program else " on the PATH")
            + ", or it is not executable"
        )


def _command(settings: LatencySettings) -> list[str]:
    if settings.command:
        return shlex.split(settings.command)
    return [*_OWN, "--threads", str(settings.threads)]


def _text(file: BinaryIO) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _MAX_OUTPUT))
    return file.read().decode(errors="replace")


def _failure(words: list[str], what: str, *outputs: str) -> RunError:
    said = last_lines(*outputs)
    ending = "; it said:" if said else ", and said nothing"
    return RunError("\n".join([f"search.latency: {shlex.join(words)} {what}{ending}", *said]))
