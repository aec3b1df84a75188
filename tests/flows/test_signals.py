"""Ctrl-C and SIGTERM whose exception is lost. In processes, for pytest has a hook of its own."""

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


LOSING = """
import os, signal, sys, time
from flows import signals

signals.SECONDS_TO_TELL = 0.2

def lost():
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.05)
    except BaseException:  # as a library that has its own error for all
        pass

try:
    with signals.raised(), signals.insistent(lambda: sys.argv[2] == "yes", "the server is gone"):
        lost()
        time.sleep(20)
        print("went on")
except KeyboardInterrupt as error:
    time.sleep(0.5)  # after the end it is not sent again
    print("ended by", signals.signal_of(error).name)
"""


@pytest.mark.parametrize(("number", "name"), [(2, "SIGINT"), (15, "SIGTERM"), (1, "SIGHUP")])
def test_a_signal_whose_exception_is_lost_comes_again(number: int, name: str) -> None:
    command = [sys.executable, "-c", LOSING, str(number), "yes"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.stdout == f"ended by {name}\n", result.stdout + result.stderr


def test_without_its_server_a_process_ends_at_once() -> None:
    command = [sys.executable, "-c", LOSING, "15", "no"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (143, "the server is gone\n"), result.stdout
