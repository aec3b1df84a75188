"""The Prefect server that this machine is configured for, and the runs that it lists."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    get_current_settings,
    load_profiles,
    save_profiles,
    temporary_settings,
)
from prefect.states import Cancelled, Crashed

from flows.processes import ProfileChange
from nas_core.addresses import redacted
from nas_core.errors import ServiceError
from nas_core.http import answers_in_time

ACTIVE = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
SECONDS_TO_ANSWER = 5.0
LOCAL_HOSTS = ("127.0.0.1", "localhost", "0.0.0.0")


def configured_url() -> str | None:
    """PREFECT_API_URL as Prefect finds it: environment, settings files, active profile."""
    return get_current_settings().api.url or None


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
    """The configured address; None if there is none, and Prefect starts a server for each run.

    Raises:
        ServiceError: nothing answers there, or the server refuses the password.
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


def start_temporary() -> None:
    """Start Prefect's temporary server, which it else starts at the first need and keeps.

    A terminal sends Ctrl-C to every process of its foreground group. The server must outlive the
    flow, which reports its end to it: so it starts with the signal blocked, which it inherits.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        get_client(sync_client=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


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
