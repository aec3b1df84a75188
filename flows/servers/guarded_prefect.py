"""Prefect's server behind the guard: `nas up` and the commands start it in a process of its own.

`python -m flows.servers.guarded_prefect HOST PORT` is `prefect server start`, with `FD` alone it is
the temporary server of a command.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import threading

import uvicorn

from nas_core.base.errors import first_line
from tasks.guard import guarded

SECONDS_FOR_CONNECTIONS = 2  # at the end of the temporary server


def serve_prefect(host: str, port: int) -> None:
    """Prefect's API, UI and services, as `prefect server start` runs them."""
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    server = get_current_settings().server
    uvicorn.run(
        guarded(create_app(final=True)),
        host=host,
        port=port,
        timeout_keep_alive=server.api.keepalive_timeout,
        ws_ping_interval=server.api.websocket_ping_interval,
        ws_ping_timeout=server.api.websocket_ping_timeout,
        log_level=server.logging_level.lower(),
    )


def serve_temporarily(listener: socket.socket) -> None:
    """Prefect's API alone, until the standard input ends: the command that holds it is gone."""
    from prefect.server.api.server import create_app

    server = uvicorn.Server(
        uvicorn.Config(
            guarded(create_app(ephemeral=True, final=True)),
            log_level="error",
            timeout_graceful_shutdown=SECONDS_FOR_CONNECTIONS,
        )
    )

    def end_with_command() -> None:
        # Not by sys.stdin, whose lock Python would want at the end.
        while os.read(sys.stdin.fileno(), 1024):
            pass
        server.should_exit = True

    logging.getLogger("uvicorn.error").addFilter(_shorten)
    threading.Thread(target=end_with_command, daemon=True).start()
    server.run(sockets=[listener])


def _shorten(record: logging.LogRecord) -> bool:
    """Leaves of a traceback, as of a database that does not answer, the reason."""
    lines = record.getMessage().strip().splitlines()
    if lines and lines[0].startswith("Traceback"):
        reason = next((line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)), "")
        record.msg, record.args = f"Prefect: {first_line(reason)}", ()
    return "startup failed" not in record.getMessage()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        # What a person set wrong in Prefect's environment.
        sys.excepthook = lambda _, error, __: sys.stderr.write(f"Prefect: {first_line(error)}\n")
        serve_temporarily(socket.socket(fileno=int(sys.argv[1])))
    else:
        serve_prefect(sys.argv[1], int(sys.argv[2]))
