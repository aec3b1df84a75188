"""The errors that a person can act on.

Every message names the file or key that is wrong and says what to do. The command line prints
them without a traceback and exits with a code other than 0; anything else that is raised is a
defect of the program and keeps its traceback. (An OSError that names a file is printed as well.)
"""

import re
import reprlib
from collections.abc import Iterable
from typing import Any

from nas_core.base.letters import spelt_out

# Of another program's output.
_SHOWN_LINES, _SHOWN_WIDTH = 5, 300
# Anything may be given where a path is expected, and a path has one slash where there were two.
_LOGIN = re.compile(r"(\w:/{1,2})[^\s/@]*:[^\s/@]*@")


def printable(text: str) -> str:
    r"""A text with all that cannot be shown as escapes: a name of a file need be no text.

    Bytes that are not UTF-8 (which Python keeps as lone surrogates) would fail in every log, JSON
    and CSV; control characters would act on the terminal.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


class NasError(Exception):
    """Base of all errors whose message is meant for the user."""

    def __init__(self, message: str) -> None:
        shown_to_all = _LOGIN.sub(r"\1", message)
        super().__init__(spelt_out("\n".join(map(printable, shown_to_all.split("\n")))))


class SettingsError(NasError):
    """A setting is unknown, malformed or out of range."""


class GenotypeError(NasError):
    """An architecture is malformed or not in the search space."""


class DataError(NasError):
    """A dataset, or a file of it, cannot be used. The message lists every problem found."""


class WeightsError(NasError):
    """Weights are missing, unreadable, or of another network."""


class RunError(NasError):
    """What a run needs (journal, checkpoint, results) cannot be used, or the run did not complete.

    `nas run` raises it with the state in which the run of a deployment ended.
    """


class DiskError(RunError):
    """The disk does not take what is written to it."""


class ServiceError(NasError):
    """A server (Prefect, MLflow) does not answer, or cannot be started."""


class UnavailableError(ServiceError):
    """A server does not answer for now: the same request may succeed later."""


class CandidateError(NasError):
    """The training of one candidate failed; the search goes on without a reward for it."""


class TrainingError(RunError, CandidateError):
    """What is kept of one full training cannot be used, or is in use; no other is concerned."""


class _Shown(reprlib.Repr):
    """As `repr`, but short whatever the value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 80

    def repr_int(self, number: int, level: int) -> str:
        # Python refuses to write out more than 4,300 digits.
        if number.bit_length() > 10_000:
            return f"an integer of {number.bit_length()} bits"
        return str(super().repr_int(number, level))


def shown(value: Any) -> str:
    """A value as messages show it: on one line, a few hundred characters at most."""
    return _Shown().repr(value)


def some_of(known: Iterable[str], most: int = 12) -> str:
    """Names as messages list what there is, on one line: the first `most` of them."""
    names = list(known)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name)[1:-1] for name in names[:most]) + more


def last_lines(*outputs: str) -> list[str]:
    """The end of what another program has written, to stand below a message of ours."""
    lines = [line for output in outputs for line in output.strip().splitlines()]
    return [f"    {line[:_SHOWN_WIDTH]}" for line in lines[-_SHOWN_LINES:]]


def first_line(error: BaseException | str, most: int = 200) -> str:
    """The beginning of another program's message, to be part of one of ours.

    Of an error of the system the reason alone: our messages name the file themselves.
    """
    reason = error.strerror if isinstance(error, OSError) else None
    lines = str(reason or error).strip().splitlines()
    return lines[0][:most] if lines else type(error).__name__
