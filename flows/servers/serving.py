"""The background process that serves the deployments: its start, its end, and whose runs it has.

Each deployment says in its description which folder of which machine serves it. A deployment
that somebody else is serving is not taken over. So an active run of a deployment with our mark,
without a process here, is one that a killed process left behind.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import DeploymentStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from rich.console import Console

from flows.servers.deployments import TAG, served_from
from flows.servers.orphans import crash_runs
from flows.servers.prefect_server import (
    ACTIVE,
    answers,
    api,
    cancel_active,
    cancel_waiting,
    crash_orphans,
    runs_in_state,
)
from flows.servers.processes import Service, Services, end_service, start_service, wait_until_ready
from nas_core.base.addresses import redacted
from nas_core.base.errors import ServiceError

KEY = "deployments"
MODULE = "flows.servers.deployments"
RUN_PATIENCE = 45.0  # seconds for an active run to end; Prefect kills it after 30


def check_not_taken(root: Path, url: str, names: Sequence[str]) -> None:
    """Two that serve the same deployment would take runs from each other.

    Raises:
        ServiceError: somebody else serves one of the deployments.
    """
    with api(url) as client:
        for name in names:
            deployment = _find(client, name)
            if deployment is None or not _is_served(deployment):
                continue
            description = deployment.description or ""
            if served_from(root) not in description:
                pool = deployment.work_pool_name
                owner = f"work pool {pool}" if pool else description.rpartition("\n")[2]
                raise ServiceError(
                    f"{name} at {redacted(url)} is being served by somebody else "
                    f"({owner.rstrip('.')}): "
                    "end that first, by `nas down` there, or use another Prefect server"
                )


def serve_deployments(
    root: Path, record: Services, url: str, names: Sequence[str], timeout: float, console: Console
) -> None:
    """Start serving the deployments, anew if they are served already and nothing runs.

    Raises:
        ServiceError: the process failed to start.
    """
    running = record.running(KEY)
    if running and running.url == url and running.process and running.process.children():
        console.print(
            "Deployments      are served; a run is active, so they keep the settings that they "
            "have until the next `nas up`"
        )
        return
    if KEY in record.services:
        end_service(record.services[KEY])
    with api(url) as client:
        found = {name: _find(client, name) for name in names}
        for run in (*crash_orphans(client, _ours(client, root)), *crash_runs(client)):
            words = f"Run {run.name} had lost its process: now marked as Crashed"
            console.print(words, style="yellow")
        service = start_service(
            "Deployments",
            [sys.executable, "-m", MODULE],
            log=record.path.parent / f"{KEY}.log",
            cwd=root,
            environment={"NAS_PROJECT_DIR": str(root), "PREFECT_API_URL": url},
            url=url,
        )
        record.services[KEY] = service
        record.write()
        with console.status("Deployments register"):
            wait_until_ready(service, lambda: _all_polled(client, found), timeout)
    console.print(f"{service.name:<16} ready: {', '.join(names)}")


def end_deployments(root: Path, record: Services, console: Console) -> None:
    """Cancel the runs, wait for the active one to end, then end the process."""
    service = record.services.pop(KEY, None)
    if service is None:
        return
    url = service.url
    if service.process and answers(url):
        _end_runs(url, root, service, console)
    if end_service(service):
        console.print(f"{service.name:<16} ended")
    record.write()
    if answers(url):
        with api(url) as client:
            crash_orphans(client, _ours(client, root))


def _end_runs(url: str, root: Path, service: Service, console: Console) -> None:
    # Asking the process itself would not do: on SIGTERM Prefect's runner kills its runs at once
    # and leaves them in the state Running (3.8).
    with api(url) as client:
        ours = _ours(client, root)
        # First those that wait, or the next one would start as soon as the active one has ended.
        for run in cancel_waiting(client, ours):
            console.print(f"Run {run.name} was waiting: cancelled")
        active = cancel_active(client, ours)
        names = ", ".join(str(run.name) for run in active)
        what = f"Run {names} ends" if active else "Runs end"
        deadline = time.monotonic() + RUN_PATIENCE
        with console.status(what):
            while runs_in_state(client, ours, ACTIVE):
                if not service.process or time.monotonic() > deadline:
                    break
                time.sleep(0.5)
        for run in active:
            state = client.read_flow_run(run.id).state
            console.print(f"Run {run.name}: {state.name if state else 'unknown'}")


def _find(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _is_served(deployment: DeploymentResponse) -> bool:
    """Whether somebody asked for its runs lately; the server notes the end only while it is up."""
    polled = deployment.last_polled
    recent = polled is not None and datetime.now(UTC) - polled < timedelta(minutes=1)
    return deployment.status == DeploymentStatus.READY and recent


def _ours(client: SyncPrefectClient, root: Path) -> list[UUID]:
    """The deployments that were last registered from this folder of this machine."""
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    return [
        deployment.id
        for deployment in client.read_deployments(deployment_filter=tagged)
        if served_from(root) in (deployment.description or "")
    ]


def _all_polled(client: SyncPrefectClient, before: dict[str, DeploymentResponse | None]) -> bool:
    """Whether each deployment was asked for work since it was read as `before`."""
    for name, earlier in before.items():
        now = _find(client, name)
        if now is None or now.last_polled is None:
            return False
        if earlier and earlier.last_polled == now.last_polled:
            return False
    return True
