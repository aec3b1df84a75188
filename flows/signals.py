"""Signals that end a run."""

from __future__ import annotations

import os
import sys
import threading
from functools import cache
from signal import SIGINT, SIGTERM, Signals

from prefect.exceptions import TerminationSignal

SECONDS_TO_REPEAT = 0.1


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


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
    if isinstance(error, TerminationSignal | Terminated):
        return SIGTERM
    return SIGINT if isinstance(error, KeyboardInterrupt) else None
