"""Ctrl-C and SIGTERM that strike a finaliser. In processes, for pytest has a hook of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, time
from prefect.utilities.engine import capture_sigterm
from flows.signals import Terminated, repeat_lost_signals, signal_of

def terminate(number, frame):
    raise Terminated(signal.Signals(number))

signal.signal(signal.SIGTERM, terminate)  # as on the command line; Prefect calls it at the end
if sys.argv[2] == "yes":
    repeat_lost_signals()

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.01)

try:
    with capture_sigterm():
        Finalised()
        time.sleep(5)
        print("went on")
except BaseException as error:
    print("ended by", signal_of(error).name)
"""


@pytest.mark.parametrize("number", [2, 15])
@pytest.mark.parametrize(("repeated", "outcome"), [("yes", "ended by"), ("no", "went on")])
def test_a_signal_in_a_finaliser_is_not_lost(number: int, repeated: str, outcome: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(number), repeated]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith(outcome), result.stdout + result.stderr
