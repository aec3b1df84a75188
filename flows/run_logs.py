"""What goes into the logs of runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from nas_core.base.errors import NasError

FLOW_RUNS, TASK_RUNS = "prefect.flow_runs", "prefect.task_runs"
_ENDED = re.compile(r"Finished in state Failed\(.*? exception:? (\w+): ")


class _SaidOnce(logging.Filter):
    """Leaves out what is said elsewhere of an error whose message says all that the user needs.

    Prefect logs an exception with its traceback, and again as the end of the task and of the flow.
    The end of the flow stays, and of a candidate, which ends no flow, the line of the search.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], NasError):
            return False
        if record.name != TASK_RUNS:
            return True
        ended = _ENDED.match(record.getMessage())
        return not ended or ended[1] not in {kind.__name__ for kind in _kinds(NasError)}


def say_errors_once() -> None:
    for name in (FLOW_RUNS, TASK_RUNS):
        logger = logging.getLogger(name)
        if not any(isinstance(known, _SaidOnce) for known in logger.filters):
            logger.addFilter(_SaidOnce())


def _kinds(error: type[NasError]) -> Iterator[type[NasError]]:
    yield error
    for kind in error.__subclasses__():
        yield from _kinds(kind)
