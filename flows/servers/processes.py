"""Background processes that outlive the command that started them, and the record of them."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

import psutil
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from nas_core.base.addresses import redacted
from nas_core.base.errors import ServiceError, first_line
from nas_core.base.files import MAX_JSON, read_limited, write_json
from nas_core.base.paths import artifacts_folder
from nas_core.base.problems import at_its_key

LOG_LINES = 15
PATIENCE = 10.0  # seconds from SIGTERM to SIGKILL
SAME_START = 1.0  # seconds; two processes never get the same pid within that time


@dataclass(frozen=True)
class Service:
    """A process that runs on its own, in a session of its own.

    created: when it started, in seconds since the epoch. It tells the process from a later one
        that got the same pid.
    about: what it was started for, to be compared with what is wanted later.
    hosts: what a request may call it, see `tasks.guard`.
    """

    __pydantic_config__: ClassVar[Any] = ConfigDict(extra="forbid")

    name: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    created: FiniteFloat
    url: str
    log: str
    about: str = ""
    hosts: tuple[str, ...] = ()

    @property
    def process(self) -> psutil.Process | None:
        """The process itself, None once it has ended."""
        return living(self.pid, self.created)


def living(pid: int, created: float) -> psutil.Process | None:
    """A process, None once it has ended.

    Args:
        created: when it started, in seconds since the epoch; see `Service`.
    """
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - created) > SAME_START:
            return None
        return process if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


@dataclass(frozen=True)
class ProfileChange:
    """The API address that was written into a Prefect profile."""

    name: str
    api_url: str


class _Content(BaseModel):
    """What the file holds. By it processes are ended, so nothing wrong may pass."""

    model_config = ConfigDict(extra="forbid")

    services: dict[str, Service]
    profile: ProfileChange | None


@dataclass
class Services:
    """What is up, kept in a file so that a later command finds it.

    A copy of another project's record is as none: what that lists is not ours to end.

    Raises (`read`):
        ServiceError: the file cannot be read.
    """

    path: Path
    services: dict[str, Service] = field(default_factory=dict)
    profile: ProfileChange | None = None

    @classmethod
    def read(cls, path: Path) -> Services:
        if not path.exists():
            return cls(path)
        try:
            content = _Content.model_validate_json(read_limited(path, MAX_JSON), strict=True)
        except (OSError, ValueError) as error:
            problem = (
                at_its_key(error.errors()[0])
                if isinstance(error, ValidationError)
                else first_line(error)
            )
            raise ServiceError(
                f"{path} cannot be read ({problem}); end what it lists by hand and delete it"
            ) from None
        if any(_is_copied(service, path) for service in content.services.values()):
            return cls(path)
        return cls(path, content.services, content.profile)

    def write(self) -> None:
        services = {key: asdict(service) for key, service in self.services.items()}
        profile = asdict(self.profile) if self.profile else None
        write_json(self.path, {"services": services, "profile": profile})

    def running(self, key: str) -> Service | None:
        """The service of that key, if its process lives."""
        service = self.services.get(key)
        return service if service and service.process else None


def service_address(root: Path, key: str) -> str | None:
    """Where a service that `nas up` started is reached, None if it does not run."""
    service = Services.read(artifacts_folder(root) / "services" / "services.json").running(key)
    return service.url if service else None


def mlflow_pages(root: Path, uri: str) -> str | None:
    """The address of MLflow's pages, None if nothing serves them.

    Args:
        uri: the tracking URI, or the setting that it comes from.
    """
    if uri.startswith(("http://", "https://")):
        return redacted(uri).rstrip("/")
    with suppress(ServiceError):  # `nas up` and `nas down` tell of a damaged record
        return service_address(root, "mlflow")
    return None


def _is_copied(service: Service, path: Path) -> bool:
    """Whether the record at `path` is a copy, made with its project, of one that is there still."""
    original = Path(service.log).parent / path.name
    return original.exists() and not original.samefile(path)


def start_service(
    name: str,
    command: list[str],
    *,
    log: Path,
    cwd: Path,
    environment: dict[str, str],
    url: str,
    about: str = "",
    hosts: tuple[str, ...] = (),
) -> Service:
    """Start `command` in the background; its output replaces the file `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    created = psutil.Process(process.pid).create_time()
    return Service(name, process.pid, created, url, str(log), about, hosts)


def end_service(service: Service, patience: float = PATIENCE) -> bool:
    """End a service with all processes that it started; False if nothing of it was left.

    Its first process is asked, and after `patience` seconds everything that still lives is
    killed. Where the first process is gone already, what it left behind is asked instead.
    """
    members = _members(service)
    if not members:
        return False
    root = service.process
    for process in [root] if root else members:
        _signal(process.terminate)
    psutil.wait_procs(members, timeout=patience)
    while leftover := _members(service):
        for process in leftover:
            _signal(process.kill)
        psutil.wait_procs(leftover, timeout=1)
    return True


def _members(service: Service) -> list[psutil.Process]:
    """All living processes of the session that the service leads or led.

    A system gives no new process the number of a session that still has members. So these are
    the service's own, unless its number belongs to a later process by now.
    """
    if psutil.pid_exists(service.pid) and not service.process and not _is_zombie(service.pid):
        return []
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == service.pid and not _is_zombie(process.pid):
                members.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return members


def listens(service: Service) -> bool:
    """Whether the service itself has its port; a foreign server may answer at its address."""
    port = urlsplit(service.url).port
    for process in _members(service):
        try:
            connections = process.net_connections("tcp")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
            return True
    return False


def _is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return


def wait_until_ready(service: Service, is_ready: Callable[[], bool], timeout: float) -> None:
    """Ask `is_ready` until it says yes.

    Raises:
        ServiceError: the process ended, or `timeout` seconds passed; with the end of its log.
    """
    deadline = time.monotonic() + timeout
    while not is_ready():
        if not service.process:
            raise ServiceError(f"{service.name} ended at its start. {_log_end(service)}")
        if time.monotonic() > deadline:
            raise ServiceError(
                f"{service.name} was not ready after {timeout:.0f} s. {_log_end(service)}"
            )
        time.sleep(0.3)


def _log_end(service: Service) -> str:
    text = Path(service.log).read_text(encoding="utf-8", errors="replace")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join([f"The end of {service.log}:", *lines[-LOG_LINES:]])


def port_is_free(host: str, port: int) -> bool:
    """Whether a server can listen there.

    Raises:
        ServiceError: `host` is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no name of a host"
        raise ServiceError(f"--host {host}: {reason}") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return False
    return True
