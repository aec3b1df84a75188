"""`nas up` and `nas down`: the local Prefect server, the MLflow UI and the served deployments.

How a new shell finds the server: Prefect's commands take its address from PREFECT_API_URL, which
may come from the environment, a settings file or the active Prefect profile. Where it is set, it
is respected, and a local server is started at that very address. Where it is not, `nas up` writes
it into the active profile (as `prefect config set` would do) and `nas down` takes it out again.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from rich.console import Console

from flows.servers.deployments import deployment_names
from flows.servers.prefect_server import (
    answers,
    configured_url,
    is_local,
    restore_profile,
    write_profile,
)
from flows.servers.processes import (
    Service,
    Services,
    end_service,
    listens,
    port_is_free,
    start_service,
    wait_until_ready,
)
from flows.servers.serving import check_not_taken, end_deployments, serve_deployments
from nas_core.base.addresses import redacted
from nas_core.base.errors import ServiceError, shown
from nas_core.base.files import digest_of
from nas_core.base.locks import exclusive
from nas_core.base.paths import artifacts_folder, searches_folder
from nas_core.loading import load_settings
from tasks.guard import HOSTS_VARIABLE, LOOPBACK, allowed_hosts, origins
from tasks.tracking.guarded_mlflow import MLFLOW_APP
from tasks.tracking.views import latest_search_view

HOST = "127.0.0.1"
PREFECT_PORT = 4200
MLFLOW_PORT = 5000
START_TIMEOUT = 300.0  # seconds; a server takes 13 s on a free machine, a multiple on a busy one
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Options:
    """What the caller of `nas up` asked for. None: the default, or what is up already.

    allow_hosts: further names by which the servers may be called, as HOST or HOST:PORT.
    """

    host: str | None = None
    prefect_port: int | None = None
    mlflow_port: int | None = None
    allow_hosts: tuple[str, ...] = ()

    @property
    def bound(self) -> str:
        """The address that the servers listen on."""
        return self.host or HOST

    @property
    def reached(self) -> str:
        """The address by which this machine reaches them."""
        return HOST if self.bound in (*LOOPBACK, "0.0.0.0") else self.bound

    def hosts(self, url: str) -> tuple[str, ...]:
        """What a server may be called that this machine reaches at `url`."""
        called, port = urlsplit(url).hostname, urlsplit(url).port or 80
        return allowed_hosts(self.bound, port, [f"{called}:{port}", *self.allow_hosts])


def services_folder(root: Path) -> Path:
    """The record of what is up, and the log of each service."""
    return artifacts_folder(root) / "services"


def up(root: Path, options: Options, console: Console) -> None:
    """Bring up what is not up yet, and say when each part is ready.

    Raises:
        SettingsError: a profile is not valid.
        ServiceError: the host is malformed, a port is taken, an address does not answer, or a start
            failed.
    """
    began = time.time()
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", options.bound):
        raise ServiceError(
            f"--host {shown(options.bound)}: expected a name of this machine or an IPv4 address"
        )
    for name in options.allow_hosts:
        found = re.fullmatch(r"[A-Za-z0-9_.-]{1,253}(?::([0-9]{1,5}))?", name)
        if not found or not 1 <= int(found[1] or 80) <= 65535:
            raise ServiceError(
                f"--allow-host {shown(redacted(name))}: expected HOST or HOST:PORT, "
                "as nas.example.org"
            )
    names = deployment_names(root)
    path = services_folder(root) / "services.json"
    with exclusive(path):
        record = Services.read(path)
        if options.bound not in LOOPBACK:
            console.print(
                f"The servers listen on {options.bound} without a password: "
                "whoever reaches this machine there can start runs.",
                style="yellow",
            )
        url = _start_prefect(root, record, options, console)
        if answers(url):
            check_not_taken(root, url, names)
        _start_mlflow(root, record, options, console)
        _await_start(record, "prefect", lambda: answers(url), began, console)
        _point_profile_to(url, record, console)
        if mlflow := record.services.get("mlflow"):
            _await_start(record, "mlflow", lambda: _mlflow_answers(mlflow.url), began, console)
            if view := latest_search_view(searches_folder(root)):
                console.print(f"candidates       by reward at {mlflow.url}{view}", soft_wrap=True)
        serve_deployments(root, record, url, names, START_TIMEOUT, console)


def down(root: Path, console: Console) -> None:
    """End what `up` started; an active run gets time to end cleanly.

    Raises:
        ServiceError: the record of what is up cannot be read.
    """
    path = services_folder(root) / "services.json"
    with exclusive(path):
        record = Services.read(path)
        if not record.services and not record.profile:
            console.print("Nothing is up.")
            return
        end_deployments(root, record, console)
        for key in ("mlflow", "prefect"):
            if (service := record.services.pop(key, None)) and end_service(service):
                console.print(f"{service.name:<16} ended")
            record.write()
        if record.profile and restore_profile(record.profile):
            console.print(f"Prefect profile  {record.profile.name!r} names no server any more")
        path.unlink()


def _start_prefect(root: Path, record: Services, options: Options, console: Console) -> str:
    """The API's address; its process is started if nothing answers there."""
    configured = configured_url()
    if running := _running(record, "prefect"):
        _check_asked(running, options, options.prefect_port, "--prefect-port")
        if configured not in (None, running.url):
            raise ServiceError(
                f"nas up serves at {redacted(running.url)}, but PREFECT_API_URL is "
                f"{redacted(configured)}: unset it, "
                "or run `nas down` first"
            )
        return running.url
    url = _prefect_url(configured, record, options)
    if answers(url):
        console.print(f"Prefect server   answers at {redacted(url)}; it was not started here")
        return url
    if not is_local(url):
        raise ServiceError(
            f"no Prefect server answers at {redacted(url)}, the address in PREFECT_API_URL: "
            "start it there, "
            "or take the address out (`prefect config unset PREFECT_API_URL`, or unset the "
            "environment variable) to have a server here"
        )
    port = urlsplit(url).port or 80
    _check_free(options.bound, port, "--prefect-port" if url != configured else "PREFECT_API_URL")
    _start(
        record, root, "prefect", "Prefect server",
        ["flows.servers.guarded_prefect", options.bound, str(port)],
        {
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            # The UI's pages ask the host that they came from, whatever its name.
            "PREFECT_SERVER_UI_API_URL": "/api",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origins(options.hosts(url)),
        },
        url,
        options,
    )  # fmt: skip
    return url


def _prefect_url(configured: str | None, record: Services, options: Options) -> str:
    """Where the server is or shall be: as configured, else as the options say."""
    wanted = f"http://{options.reached}:{options.prefect_port or PREFECT_PORT}/api"
    if configured is None:
        return wanted
    asked = options.prefect_port is not None or options.reached != HOST
    if not asked or urlsplit(configured).netloc == urlsplit(wanted).netloc:
        return configured
    if _profile_is_ours(configured, record):
        return wanted
    raise ServiceError(
        f"PREFECT_API_URL is {redacted(configured)}, and the options ask for {wanted}: unset it "
        "(`prefect config unset PREFECT_API_URL`), or leave --host and --prefect-port out"
    )


def _profile_is_ours(configured: str, record: Services) -> bool:
    """Whether the configured address is the one that an earlier `nas up` wrote."""
    written = record.profile is not None and record.profile.api_url == configured
    return written and "PREFECT_API_URL" not in os.environ


def _point_profile_to(url: str, record: Services, console: Console) -> None:
    configured = configured_url()
    if configured is None or (configured != url and _profile_is_ours(configured, record)):
        record.profile = write_profile(url)
        record.write()
        console.print(f"Prefect profile  {record.profile.name!r} now names {redacted(url)}")


def _start_mlflow(root: Path, record: Services, options: Options, console: Console) -> None:
    setting = load_settings(root=root).tracking.uri
    about = digest_of(setting, os.environ.get("MLFLOW_TRACKING_URI"))
    earlier = record.services.get("mlflow")
    if (running := _running(record, "mlflow")) and running.about == about:
        _check_asked(running, options, options.mlflow_port, "--mlflow-port")
        return
    if running:
        end_service(record.services.pop("mlflow"))
        console.print(f"{running.name:<16} ended; the tracking URI has changed")
    # Here, for this import takes longer than anything else that `nas up` does a second time.
    from tasks.tracking.location import adopt_artifacts
    from tasks.tracking.store import artifact_location, connect, tracking_uri

    uri = tracking_uri(setting, root)
    # Two processes that create the same database at a time would break each other.
    connect(uri)
    adopt_artifacts(uri, root)
    if not uri.startswith(DATABASES):
        console.print(f"MLflow           answers at {redacted(uri)}; nothing to start")
        return
    port = options.mlflow_port or (earlier and urlsplit(earlier.url).port) or MLFLOW_PORT
    _check_free(options.bound, port, "--mlflow-port")
    url = f"http://{options.reached}:{port}"
    _start(
        record, root, "mlflow", "MLflow UI",
        ["mlflow", "server", "--host", options.bound, "--port", str(port), "--workers", "1",
         "--default-artifact-root", artifact_location(uri, root) or "", "--app-name", MLFLOW_APP],
        {
            "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: it may hold a password
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(options.hosts(url)),
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": origins(options.hosts(url)),
        },
        url,
        options,
        about,
    )  # fmt: skip


def _running(record: Services, key: str) -> Service | None:
    """The service of that key; what is left of one that broke off is ended."""
    if running := record.running(key):
        return running
    if broken := record.services.pop(key, None):
        end_service(broken)
    return None


def _mlflow_answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).text == "OK"
    except httpx.TransportError:
        return False


def _start(
    record: Services,
    root: Path,
    key: str,
    name: str,
    arguments: list[str],
    environment: dict[str, str],
    url: str,
    options: Options,
    about: str = "",
) -> None:
    hosts = options.hosts(url)
    record.services[key] = start_service(
        name,
        [sys.executable, "-m", *arguments],
        log=services_folder(root) / f"{key}.log",
        cwd=root,
        environment={**environment, HOSTS_VARIABLE: ",".join(hosts)},
        url=url,
        about=about,
        hosts=hosts,
    )
    record.write()


def _await_start(
    record: Services, key: str, is_ready: Callable[[], bool], began: float, console: Console
) -> None:
    """Wait for a service of the record, and say that it is ready."""
    service = record.services.get(key)
    if service is None:
        return
    try:
        with console.status(f"{service.name} starts"):
            wait_until_ready(service, lambda: listens(service) and is_ready(), START_TIMEOUT)
    except ServiceError:
        end_service(service)
        del record.services[key]
        record.write()
        raise
    state = "is up already" if service.created < began - 1 else "ready"
    console.print(f"{service.name:<16} {state} at {redacted(service.url).removesuffix('/api')}")


def _check_asked(running: Service, options: Options, port: int | None, option: str) -> None:
    at = f"{running.name} is up at {redacted(running.url).removesuffix('/api')}"
    if port and urlsplit(running.url).port != port:
        raise ServiceError(f"{at}; for {option} {port} run `nas down` first")
    for name in options.allow_hosts:
        if name not in running.hosts:
            raise ServiceError(f"{at}; for --allow-host {name} run `nas down` first")


def _check_free(host: str, port: int, option: str) -> None:
    if not port_is_free(host, port):
        raise ServiceError(
            f"port {port} of {host} is taken by another program: end that, or choose another port "
            f"with {option}"
        )
