"""Signals that end a run."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from signal import SIGHUP, SIGINT, SIGTERM, Signals
from types import FrameType
from typing import NoReturn

from prefect.exceptions import TerminationSignal

SECONDS_TO_REPEAT = 0.1
SECONDS_TO_TELL = 8.0  # with the 5 that `answers` may take, an end within 15


class Terminated(KeyboardInterrupt):
    """SIGTERM came, or SIGHUP, as where a terminal is closed."""

    def __init__(self, number: Signals) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def raised() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Terminated`, as Ctrl-C raises KeyboardInterrupt.

    Prefect ends the flow as crashed and then calls the handler that it found. The default one
    would end the process before the flow's end is told.
    """

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated(Signals(number))

    # Below `nohup` a hangup is ignored, and stays so.
    found = [n for n in (SIGTERM, SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, terminate) for number in found}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def insistent(answers: Callable[[], bool], message: str) -> Iterator[None]:
    """A signal ends the process also where its exception is lost, or the Prefect server is gone.

    A library may turn the exception that a handler raises into an error of its own, as safetensors
    does, after which the program goes on. So the signal is sent again every `SECONDS_TO_TELL`.

    Prefect tries for minutes to tell a server that is gone of the end. When `answers` says no, the
    process ends at once, after `message`.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # Whose handler it is that the signal finds, Prefect's, Python's or ours, does not matter here.
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    ended = threading.Event()

    def watch() -> None:
        # The reader stays open: later signals are written too.
        while (received := reader.recv(1)) and received[0] not in (SIGINT, SIGTERM, SIGHUP):
            continue
        while received and not ended.wait(SECONDS_TO_TELL):
            if not answers():
                print(message, file=sys.stderr, flush=True)
                os._exit(128 + received[0])
            if not ended.is_set():
                os.kill(os.getpid(), received[0])

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        writer.close()


@cache
def repeat_lost_signals() -> None:
    """Ctrl-C and SIGTERM end a run also where they strike a finaliser.

    Their handlers raise an exception wherever the program is. In a finaliser or the callback of a
    weak reference, which run at any time, Python prints the exception and goes on as if nothing
    had happened. Such a signal is sent once more, a moment later.
    """
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        number = signal_of(lost.exc_value)
        if number is None:
            before(lost)
        else:
            threading.Timer(SECONDS_TO_REPEAT, os.kill, (os.getpid(), number)).start()

    sys.unraisablehook = hook


def signal_of(error: BaseException | None) -> Signals | None:
    """The signal whose handler, Prefect's, Python's or ours, raised this; None if none did."""
    if isinstance(error, Terminated):
        return error.number
    if isinstance(error, TerminationSignal):
        return SIGTERM
    return SIGINT if isinstance(error, KeyboardInterrupt) else None
