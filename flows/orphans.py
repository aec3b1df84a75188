"""What commands that were killed left behind: runs that Prefect shows as running, and servers.

Every flow run that a command carries out in its own process has a tag that names this process, and
every process that it starts has the same mark in its environment. The next command closes what
belongs to a process that is gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import prefect
import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Crashed

from flows.prefect_server import ACTIVE

TAG = "nas-command"
MARK = "NAS_COMMAND"
MESSAGE = "The process of this run is gone; found by nas."


def mark_processes() -> None:
    """Mark all processes that this one starts from now on."""
    os.environ[MARK] = _own_mark()


def end_processes() -> list[int]:
    """End the processes that commands started which are gone, as Prefect's temporary servers.

    Returns:
        Their pids.
    """
    ended = []
    for process in psutil.process_iter(["environ"]):
        mark = (process.info["environ"] or {}).get(MARK)
        if mark and _is_gone(mark):
            process.kill()
            ended.append(process.pid)
    return ended


@contextmanager
def tagged() -> Iterator[None]:
    """Flow runs that begin in this context name this process in their tags."""
    with prefect.tags(TAG, _own_mark()):
        yield


def crash_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Mark the flow and task runs of commands that are gone as crashed; returns the flow runs."""
    crashed: State[None] = Crashed(message=MESSAGE)
    ours = FlowRunFilterTags(all_=[TAG])
    active = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ACTIVE)))
    orphans = [
        run
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=ours, state=active))
        if _is_orphan(run.tags)
    ]
    for run in orphans:
        client.set_flow_run_state(run.id, crashed, force=True)
    # Also tasks of flow runs that ended well: while the server was away, nobody heard of their end.
    for task in client.read_task_runs(
        flow_run_filter=FlowRunFilter(tags=ours),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=list(ACTIVE)))
        ),
    ):
        if _is_orphan(task.tags):
            client.set_task_run_state(task.id, crashed, force=True)
    return orphans


def _is_orphan(tags: Iterable[str]) -> bool:
    return any(tag.count(":") == 2 and _is_gone(tag) for tag in tags)


def _own_mark() -> str:
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def _is_gone(mark: str) -> bool:
    """Whether a mark names a process of this machine that has ended."""
    host, pid, created = mark.rsplit(":", 2)
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        process = psutil.Process(int(pid))
        ended = process.status() == psutil.STATUS_ZOMBIE
        return ended or f"{process.create_time():.2f}" != created
    except psutil.NoSuchProcess:
        return True
