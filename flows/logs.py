"""What goes into the logs of runs."""

from __future__ import annotations

import logging

from nas_core.base.errors import NasError


class _UserErrorFilter(logging.Filter):
    """Leaves out the traceback of an error whose message says all that the user needs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], NasError):
            record.msg, record.args = (
                f"{type(record.exc_info[1]).__name__}: %s",
                (record.exc_info[1],),
            )
            record.exc_info = None
        return True


def hide_tracebacks_of_user_errors() -> None:
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(known, _UserErrorFilter) for known in logger.filters):
            logger.addFilter(_UserErrorFilter())
