"""What a failure says in the logs of runs."""

import logging
from collections.abc import Iterator

import pytest
from prefect import flow, task
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.run_logs import FLOW_RUNS, TASK_RUNS, say_errors_once
from nas_core.base.errors import CandidateError

REASON = "the loss is not finite"


@task
def fail(error: Exception) -> None:
    raise error


@pytest.fixture
def said(prefect_server: str) -> Iterator[list[str]]:
    """The lines of the logs of runs, while flows report to a server."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Handler()
    say_errors_once()
    loggers = [logging.getLogger(name) for name in (FLOW_RUNS, TASK_RUNS)]
    for logger in loggers:
        logger.addHandler(handler)
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        yield lines
    for logger in loggers:
        logger.removeHandler(handler)


def test_an_error_that_ends_a_flow_is_said_once(said: list[str]) -> None:
    @flow
    def ends() -> None:
        fail(CandidateError(REASON))

    ends(return_state=True)
    assert [REASON in line for line in said].count(True) == 1


def test_an_error_that_ends_no_flow_is_left_to_who_takes_it(said: list[str]) -> None:
    @flow
    def goes_on() -> None:
        with pytest.raises(CandidateError):
            fail(CandidateError(REASON))

    goes_on()
    assert not [line for line in said if REASON in line]


def test_a_defect_keeps_its_traceback(said: list[str]) -> None:
    @flow
    def breaks() -> None:
        fail(ZeroDivisionError(REASON))

    breaks(return_state=True)
    assert any("Traceback" in line and REASON in line for line in said)
