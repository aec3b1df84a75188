"""`nas run`: create a run of a deployment and show what it does until it ends."""

from __future__ import annotations

import difflib
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterLevel,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import DeploymentStatus, FlowRun, Log, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import ArtifactSort, LogSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flows.servers.prefect_server import api, check_configured
from nas_core.base.addresses import redacted
from nas_core.base.errors import RunError, ServiceError, SettingsError, first_line, shown, some_of

SECONDS_BETWEEN_LOOKS = 3.0
SECONDS_BETWEEN_CHECKS = 20.0
# Processes send their log lines in batches, so lines may arrive after later ones.
LOG_OVERLAP = timedelta(seconds=20)
_NAME = re.compile(r"[\w .-]{1,300}/[\w .-]{1,300}")
# Repeats what the flow's own logger has said; and that a task is done, its own lines say better.
ENGINE, DONE = "prefect.engine", "Finished in state Completed()"
LOG_PAGE = 200  # the most that the API gives at a time
SECONDS_FOR_LAST_LINES = 3.0
MOST_BARS = 3


def run_deployment_live(
    name: str, parameters: Mapping[str, Any], console: Console
) -> FlowRun | None:
    """Create a run of the deployment `name` (flow/deployment) and show its log lines.

    Ctrl-C leaves the run alone and returns None.

    Raises:
        ServiceError: no server answers, there is no such deployment, or nothing serves it.
        SettingsError: the deployment does not take these parameters.
        RunError: the run did not complete; with the reason.
    """
    url = check_configured()
    if url is None:
        raise ServiceError("no Prefect server is configured (PREFECT_API_URL): run `nas up`")
    with api(url) as client:
        deployment = _find_deployment(client, name)
        if deployment.status != DeploymentStatus.READY:
            raise ServiceError(f"nothing serves {name} at {redacted(url)}: run `nas up`")
        run = _create_run(client, name, deployment, parameters)
        page = f"{redacted(url).removesuffix('/api')}/runs/flow-run/{run.id}"
        console.print(f"Run {run.name} of {name}: {page}", soft_wrap=True)
        try:
            run = _follow(client, run, console)
        except KeyboardInterrupt:
            console.print(
                f"Left run {run.name}; it goes on. Watch it with `prefect flow-run watch {run.id}` "
                f"or at {page}, end it with `prefect flow-run cancel {run.id}`.",
                soft_wrap=True,
            )
            return None
    if run.state is None or not run.state.is_completed():
        raise RunError(f"run {run.name} of {name} {_outcome(run.state)}; its log is at {page}")
    console.print(f"Run {run.name}: {run.state.name} after {_duration(run.estimated_run_time)}")
    return run


def _find_deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    try:
        # Prefect puts it into an address as it is: another character would end the name there.
        if not _NAME.fullmatch(name):
            raise ValueError
        return client.read_deployment_by_name(name)
    except (ObjectNotFound, ValueError):
        flows = {flow.id: flow.name for flow in client.read_flows()}
        known = sorted(f"{flows.get(d.flow_id)}/{d.name}" for d in client.read_deployments())
        there = f"there are: {some_of(known)}" if known else "there are none: run `nas up`"
        raise ServiceError(f"no deployment {shown(name)}; {there}") from None


def _create_run(
    client: SyncPrefectClient,
    name: str,
    deployment: DeploymentResponse,
    parameters: Mapping[str, Any],
) -> FlowRun:
    valid = list((deployment.parameter_openapi_schema or {}).get("properties", {}))
    for key in parameters:
        if key not in valid:
            close = difflib.get_close_matches(key, valid, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(valid)}"
            raise SettingsError(f"{name} has no parameter {shown(key)}; {hint}")
    try:
        json.dumps(parameters, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        raise SettingsError(f"{name}: a parameter has no JSON form: {first_line(error)}") from None
    try:
        return client.create_flow_run_from_deployment(deployment.id, parameters=dict(parameters))
    except PrefectHTTPStatusError as error:
        if error.response.status_code != 409:
            raise
        detail = first_line(str(error.response.json()["detail"]), 1000)
        raise SettingsError(f"{name}: {detail.removeprefix('Error creating flow run: ')}") from None


def _follow(client: SyncPrefectClient, run: FlowRun, console: Console) -> FlowRun:
    lines = _LogLines(client, run.id)
    last = ""
    looked_at_server = time.monotonic()
    with Live(console=console, transient=True) as live:
        while True:
            run = client.read_flow_run(run.id)
            for log in lines.new():
                _print_log(log, console)
                last = log.message
            if run.state and run.state.is_final():
                break
            live.update(live_view(run, progress_of(client, run.id), last))
            if time.monotonic() - looked_at_server > SECONDS_BETWEEN_CHECKS:
                _check_served(client, run)
                looked_at_server = time.monotonic()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        deadline = time.monotonic() + SECONDS_FOR_LAST_LINES
        while time.monotonic() < deadline:
            for log in lines.new():
                _print_log(log, console)
            time.sleep(0.5)
    return run


def progress_of(client: SyncPrefectClient, run: UUID) -> list[tuple[float, str]]:
    """Per cent and words of the latest progress artifacts of a run, the oldest first."""
    found = client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run]),
            type=ArtifactFilterType(any_=["progress"]),
        ),
        sort=ArtifactSort.CREATED_DESC,
        limit=MOST_BARS,
    )
    return [(float(cast(float, one.data)), one.description or "") for one in reversed(found)]


def live_view(run: FlowRun, bars: Sequence[tuple[float, str]], last: str) -> RenderableType:
    """What goes on in a run: its state and, where there is none yet, its last line instead of bars.

    Args:
        bars: as `progress_of` gives them.
    """
    state = str(run.state.name) if run.state else "unknown"
    parts = [str(run.name), state, _duration(run.estimated_run_time)]
    if run.state and run.state.is_scheduled():
        parts = [str(run.name), "waits for its turn: one run at a time"]
    elif last and not bars:
        parts.append(last.splitlines()[0])
    # A line that wraps would be left behind on the screen.
    table = Table.grid(padding=(0, 1))
    table.add_column(width=20)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for share, words in bars:
        table.add_row(ProgressBar(total=100, completed=share), Text(words))
    state_line = Table.grid(padding=(0, 1))
    state_line.add_column(no_wrap=True)
    state_line.add_column(no_wrap=True, overflow="ellipsis")
    state_line.add_row(Spinner("dots"), Text(" · ".join(parts)))
    return Group(state_line, table)


def _check_served(client: SyncPrefectClient, run: FlowRun) -> None:
    """Stop watching once whoever serves the deployment is gone; a run that waits is given up.

    Prefect says so about a minute after the last time that somebody asked for work.
    """
    if run.deployment_id is None or run.state is None:
        return
    if client.read_deployment(run.deployment_id).status == DeploymentStatus.READY:
        return
    if not run.state.is_scheduled():
        raise ServiceError(
            f"what served the deployment of run {run.name} has ended, in the state "
            f"{run.state.name}; `nas up` serves it again and marks a lost run as crashed"
        )
    cancelled: State[None] = Cancelled(message="Nothing served the deployment; see nas run.")
    client.set_flow_run_state(run.id, cancelled, force=True)
    raise ServiceError(
        f"nothing took up run {run.name}, so it was cancelled: what served its deployment has "
        "ended; run `nas up`"
    )


class _LogLines:
    """The log lines of a run, each given out once."""

    def __init__(self, client: SyncPrefectClient, run: UUID) -> None:
        self._client = client
        self._run = LogFilterFlowRunId(any_=[run])
        self._newest: datetime | None = None
        self._seen: dict[UUID, datetime] = {}

    def new(self) -> Iterator[Log]:
        since = self._newest - LOG_OVERLAP if self._newest else None
        self._seen = {key: at for key, at in self._seen.items() if since is None or at >= since}
        chosen = LogFilter(
            flow_run_id=self._run,
            level=LogFilterLevel(ge_=logging.INFO),
            timestamp=LogFilterTimestamp(after_=since),
        )
        offset = 0
        while True:
            page = self._client.read_logs(
                chosen, limit=LOG_PAGE, offset=offset, sort=LogSort.TIMESTAMP_ASC
            )
            for log in page:
                repeated = log.name == ENGINE or log.message == DONE
                if log.id not in self._seen and not repeated:
                    self._seen[log.id] = log.timestamp
                    self._newest = max(self._newest or log.timestamp, log.timestamp)
                    yield log
            if len(page) < LOG_PAGE:
                return
            offset += LOG_PAGE


def _print_log(log: Log, console: Console) -> None:
    colour = "red" if log.level >= logging.ERROR else "yellow" if log.level > logging.INFO else ""
    at = log.timestamp.astimezone().strftime("%H:%M:%S")
    console.print(Text.assemble((at, "dim"), "  ", (log.message, colour)), soft_wrap=True)


def _outcome(state: State[Any] | None) -> str:
    if state is None:
        return "is in no known state"
    return f"ended as {state.name}" + (f": {state.message.rstrip('.')}" if state.message else "")


def _duration(time_run: timedelta) -> str:
    minutes, seconds = divmod(int(time_run.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
