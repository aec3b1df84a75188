"""The Prefect server that this machine is configured for, and the runs that it lists."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import prefect.context
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_RESULTS_DEFAULT_SERIALIZER,
    PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK,
    PREFECT_UI_URL,
    get_current_settings,
    load_profiles,
    save_profiles,
    temporary_settings,
)
from prefect.states import Cancelled, Crashed

from flows.servers.processes import ProfileChange
from nas_core.base.addresses import redacted, without_credentials
from nas_core.base.errors import ServiceError, first_line
from nas_core.base.http import answers_in_time, check_address
from tasks.guard import HOSTS_VARIABLE, allowed_hosts

ACTIVE = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
SECONDS_TO_ANSWER = 5.0
LOCAL_HOSTS = ("127.0.0.1", "localhost", "0.0.0.0")
HOST = "127.0.0.1"
SECONDS_TO_START = 300.0  # see flows.servers.services
SECONDS_TO_END = 5.0


def configured_url() -> str | None:
    """PREFECT_API_URL as Prefect finds it: environment, settings files, active profile.

    Raises:
        ServiceError: it is malformed.
    """
    url = get_current_settings().api.url
    if not url:
        return None
    try:
        check_address(url)
    except ValueError as error:
        reason = without_credentials(first_line(error), url)
        raise ServiceError(
            f"PREFECT_API_URL is {redacted(url)}, no address of a server ({reason}): set it to "
            "one, as http://127.0.0.1:4200/api, or unset it"
        ) from None
    return url


def answers(url: str) -> bool:
    """Whether a Prefect API answers there, within seconds."""
    if not answers_in_time(f"{url}/health", SECONDS_TO_ANSWER):
        return False
    settings = {PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}
    with (
        temporary_settings(settings),
        get_client(httpx_settings={"timeout": SECONDS_TO_ANSWER}, sync_client=True) as client,
    ):
        return client.api_healthcheck() is None


def check_configured() -> str | None:
    """The configured address; None if there is none, and each command starts a server.

    Raises:
        ServiceError: it is malformed, nothing answers there, or the server refuses the password.
    """
    url = configured_url()
    if url and not answers(url):
        raise ServiceError(
            f"no Prefect server answers at {redacted(url)}, the address in PREFECT_API_URL: `nas "
            "up` starts a local one; `nas down`, or `prefect config unset PREFECT_API_URL`, takes "
            "the address out"
        )
    if url:
        with api(url) as client:
            client.api_version()  # unlike its health, this asks for the password
    return url


@contextmanager
def for_command() -> Iterator[str]:
    """The address of the server that a command reports to: as configured, or a temporary one.

    Raises:
        ServiceError: see `check_configured`; or the temporary server does not start.
    """
    # Prefect keeps no result of ours; it looks for a place all the same, and may not find it.
    settings: dict[Any, str | None] = {
        PREFECT_RESULTS_DEFAULT_SERIALIZER: "pickle",
        PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK: None,
    }
    if not (url := check_configured()):
        url = _temporary_url()
        # It has no pages, so that flows shall not name one.
        settings |= {PREFECT_API_URL: url, PREFECT_UI_URL: ""}
    with temporary_settings(settings):
        yield url


@cache
def _temporary_url() -> str:
    """The address of a server that is started now, and ends with this process.

    In place of Prefect's own temporary server, which any web page could talk to. It must outlive
    the flow, which reports its end to it, whoever sends a signal to whom: to the foreground group
    of a terminal, or to all processes of a service or job. So it starts with the signals blocked,
    which it inherits, and ends when the pipe to it is closed, also by a kill -9 of this process.
    """
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        try:
            server = subprocess.Popen(
                [sys.executable, "-m", "flows.servers.guarded_prefect", str(listener.fileno())],
                env={**os.environ, HOSTS_VARIABLE: ",".join(allowed_hosts(HOST, port))},
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    # After what Prefect has still to tell it, which registers later.
    atexit.register(_end, server)
    try:
        # The listener is there already: the answer comes once the server is ready.
        answer = httpx.get(
            f"http://{HOST}:{port}/api/health", timeout=SECONDS_TO_START, trust_env=False
        )
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ServiceError(
            f"the temporary Prefect server did not start ({error}); `nas up` starts one that stays"
        ) from None
    return f"http://{HOST}:{port}/api"


def _end(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    try:
        server.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def is_local(url: str) -> bool:
    """Whether a server for `url` can be started on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in LOCAL_HOSTS


@contextmanager
def api(url: str) -> Iterator[SyncPrefectClient]:
    """A client of the API at `url`.

    Raises:
        ServiceError: it stops answering, or refuses the password.
    """
    try:
        with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
            yield client
    except httpx.TransportError as error:
        raise ServiceError(
            f"the Prefect server at {redacted(url)} does not answer ({error}); `nas up` starts a "
            "local one"
        ) from None
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise
        raise ServiceError(
            f"the Prefect server at {redacted(url)} refuses the password: "
            "PREFECT_API_AUTH_STRING must be USER:PASSWORD as the server has it"
        ) from None


def write_profile(url: str) -> ProfileChange:
    """Set PREFECT_API_URL in the active profile, so that every new shell finds the server."""
    name = prefect.context.get_settings_context().profile.name
    profiles = load_profiles()
    profiles.update_profile(name, {PREFECT_API_URL: url})
    save_profiles(profiles)
    return ProfileChange(name, url)


def restore_profile(change: ProfileChange) -> bool:
    """Take PREFECT_API_URL out of the profile again, unless somebody changed it since."""
    profiles = load_profiles()
    if change.name not in profiles.names:
        return False
    if profiles[change.name].settings.get(PREFECT_API_URL) != change.api_url:
        return False
    profiles.update_profile(change.name, {PREFECT_API_URL: None})
    save_profiles(profiles)
    return True


def runs_in_state(
    client: SyncPrefectClient, deployments: Sequence[UUID], states: Sequence[StateType]
) -> list[FlowRun]:
    """The runs of these deployments that are in one of these states."""
    if not deployments:
        return []
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=list(deployments)),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
        )
    )


def cancel_waiting(client: SyncPrefectClient, deployments: Sequence[UUID]) -> list[FlowRun]:
    """Cancel the runs that wait for their turn; not those that a schedule will start later."""
    waiting = [
        run
        for run in runs_in_state(client, deployments, [StateType.SCHEDULED])
        if not run.auto_scheduled
    ]
    for run in waiting:
        client.set_flow_run_state(run.id, Cancelled(message="Ended by nas down."), force=True)
    return waiting


def cancel_active(client: SyncPrefectClient, deployments: Sequence[UUID]) -> list[FlowRun]:
    """Ask the active runs to end; whoever serves them gives them 30 seconds for it."""
    active = runs_in_state(client, deployments, ACTIVE)
    for run in active:
        cancelling = State(type=StateType.CANCELLING, message="Ended by nas down.")
        client.set_flow_run_state(run.id, cancelling)
    return active


def crash_orphans(client: SyncPrefectClient, deployments: Sequence[UUID]) -> list[FlowRun]:
    """Mark active runs as crashed whose process is gone; Prefect would show them running forever.

    The deployments must be served by this machine alone, and nobody may serve them right now.
    """
    alive = _runs_with_process()
    orphans = [
        run for run in runs_in_state(client, deployments, ACTIVE) if str(run.id) not in alive
    ]
    for run in orphans:
        crashed: State[None] = Crashed(message="The process of this run is gone; found by nas.")
        client.set_flow_run_state(run.id, crashed, force=True)
    return orphans


def _runs_with_process() -> set[str]:
    """The flow runs that processes of this machine work on, from Prefect's mark on them."""
    environments = (process.info["environ"] for process in psutil.process_iter(["environ"]))
    marks = ((environment or {}).get("PREFECT__FLOW_RUN_ID") for environment in environments)
    return {mark for mark in marks if mark}
