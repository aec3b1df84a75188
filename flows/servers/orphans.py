"""What commands that were killed left behind: runs that Prefect shows as running, and processes.

Every flow run has a tag that names its process, and every process that a command starts has the
same mark in its environment. The next command closes what belongs to a process that is gone.
"""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Crashed

from flows.servers.prefect_server import ACTIVE
from flows.servers.processes import living

# All flows that have `claim`. Nobody else's runs are closed, however alike their flows are named.
FLOWS = [
    "nas-search",
    "nas-train",
    "nas-verify",
    "nas-fidelity",
    "nas-compare",
    "nas-compared-search",
]
TAG = "nas-command"
MARK = "NAS_COMMAND"
TIME_TO_CLAIM = timedelta(seconds=30)
MESSAGE = "The process of this run is gone; found by nas."


def mark_processes() -> None:
    """Mark all processes that this one starts from now on."""
    os.environ[MARK] = _own_mark()


def end_processes() -> list[int]:
    """End the processes that commands started which are gone, as a temporary server that hangs.

    Returns:
        Their pids.
    """
    ended = []
    for process in psutil.process_iter(["environ"]):
        mark = (process.info["environ"] or {}).get(MARK)
        if mark and _is_gone(mark):
            with suppress(psutil.NoSuchProcess):
                process.kill()
                ended.append(process.pid)
    return ended


def claim(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Name this process in the tags of a flow run; for `on_running`.

    Not by the context `prefect.tags`: its tags go to the tasks too, and Prefect asks its server
    about each task that has tags, so that a search would not go on without the server.
    """
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=[*flow_run.tags, TAG, _own_mark()])


def crash_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Mark the flow and task runs of commands that are gone as crashed; returns the flow runs."""
    crashed: State[None] = Crashed(message=MESSAGE)
    ours = FlowFilter(name=FlowFilterName(any_=FLOWS))
    active = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ACTIVE)))
    runs = client.read_flow_runs(flow_filter=ours, flow_run_filter=FlowRunFilter(state=active))
    orphans = [run for run in runs if _is_orphan(run)]
    for run in orphans:
        client.set_flow_run_state(run.id, crashed, force=True)
    # Also tasks of flow runs that ended well: while the server was away, nobody heard of their end.
    tasks = client.read_task_runs(
        flow_filter=ours,
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=list(ACTIVE)))
        ),
    )
    ids = {task.flow_run_id for task in tasks if task.flow_run_id}
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(ids)))
    parents = client.read_flow_runs(flow_run_filter=wanted) if ids else []
    ended = {run.id for run in parents if _is_orphan(run)}
    for task in tasks:
        if task.flow_run_id in ended:
            client.set_task_run_state(task.id, crashed, force=True)
    return orphans


def _is_orphan(run: FlowRun) -> bool:
    """Whether the process of a run is gone, or was killed before it came to `claim` the run."""
    if TAG in run.tags:
        return any(map(_is_gone, run.tags))
    age = datetime.now(UTC) - (run.created or datetime.now(UTC))
    return run.deployment_id is None and age > TIME_TO_CLAIM


def _own_mark() -> str:
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def _is_gone(mark: str) -> bool:
    """Whether a text is a mark, and names a process of this machine that has ended."""
    found = re.fullmatch(r"(.+):(\d{1,9}):(\d+\.\d+)", mark)
    if found is None or found[1] != socket.gethostname():
        return False
    return living(int(found[2]), float(found[3])) is None
