import json
import shutil
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from flows.servers.processes import (
    ProfileChange,
    Service,
    Services,
    end_service,
    listens,
    port_is_free,
    start_service,
    wait_until_ready,
)
from nas_core.base.errors import ServiceError

# A parent and a child that both ignore the polite request to end.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "child"])
time.sleep(600)
"""


def start(tmp_path: Path, code: str, url: str = "") -> Service:
    script = tmp_path / "script.py"
    script.write_text(code)
    return start_service(
        "Test service",
        [sys.executable, str(script)],
        log=tmp_path / "service.log",
        cwd=tmp_path,
        environment={"NAS_TEST": "here"},
        url=url,
    )


def wait_for_children(service: Service, number: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert service.process
        children: list[psutil.Process] = service.process.children()
        if len(children) == number:
            return children
        time.sleep(0.1)
    raise AssertionError("no children")


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_service_has_its_folder_environment_and_log(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), os.environ['NAS_TEST'])"
    service = start(tmp_path, code)
    psutil.wait_procs([psutil.Process(service.pid)], timeout=60)
    assert (tmp_path / "service.log").read_text() == f"{tmp_path} here\n"


def test_ending_a_service_ends_all_that_it_started(tmp_path: Path) -> None:
    service = start(tmp_path, STUBBORN)
    (child,) = wait_for_children(service, 1)
    time.sleep(1)
    assert end_service(service, patience=1)
    assert service.process is None
    assert is_gone(child)
    assert not end_service(service)


def test_what_a_killed_service_left_behind_is_ended(tmp_path: Path) -> None:
    service = start(tmp_path, STUBBORN)
    (child,) = wait_for_children(service, 1)
    root = service.process
    assert root
    root.kill()
    root.wait(30)
    assert service.process is None
    assert not is_gone(child)
    assert end_service(service, patience=1)
    assert is_gone(child)


def test_a_process_that_got_the_number_of_a_service_is_left_alone(tmp_path: Path) -> None:
    service = start(tmp_path, "import time; time.sleep(600)")
    earlier = replace(service, created=service.created - 100)
    assert earlier.process is None
    assert not end_service(earlier)
    assert service.process
    end_service(service)


def test_a_start_that_fails_shows_the_end_of_the_log(tmp_path: Path) -> None:
    service = start(tmp_path, "import sys; sys.exit('params.yaml: the reason')")
    with pytest.raises(ServiceError, match=r"ended at its start.*service\.log:\n.*the reason"):
        wait_until_ready(service, lambda: False, timeout=60)


def test_a_start_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    service = start(tmp_path, "import time; time.sleep(600)")
    with pytest.raises(ServiceError, match="was not ready after 1 s"):
        wait_until_ready(service, lambda: False, timeout=1)
    end_service(service)


def test_only_the_service_that_has_the_port_listens(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert not port_is_free("127.0.0.1", port)
        service = start(tmp_path, "import time; time.sleep(600)", f"http://127.0.0.1:{port}")
        assert not listens(service)
        end_service(service)
    assert port_is_free("127.0.0.1", port)
    code = f"import socket, time; s = socket.create_server(('', {port})); time.sleep(600)"
    service = start(tmp_path, code, f"http://127.0.0.1:{port}")
    wait_until_ready(service, lambda: listens(service), timeout=60)
    end_service(service)


def test_a_host_that_is_no_address_of_this_machine_is_named() -> None:
    with pytest.raises(ServiceError, match=r"--host nowhere\.invalid"):
        port_is_free("nowhere.invalid", 4200)


def test_the_record_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "services.json"
    assert Services.read(path) == Services(path)
    record = Services(path, {"mlflow": Service("MLflow UI", 1, 2.5, "http://h", "log", "db")})
    record.write()
    assert Services.read(path) == record
    assert record.running("mlflow") is None


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"services": {"a": {}}})])
def test_an_unreadable_record_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "services.json"
    path.write_text(content)
    with pytest.raises(ServiceError, match=r"services\.json cannot be read"):
        Services.read(path)


def test_the_record_of_a_copied_project_lists_nothing_and_that_of_a_moved_one_all(
    tmp_path: Path,
) -> None:
    original = tmp_path / "original" / "services.json"
    service = Service("Prefect", 1, 1.0, "http://127.0.0.1:4200/api", f"{original.parent}/a.log")
    Services(original, {"prefect": service}, ProfileChange("default", service.url)).write()
    copy = Path(shutil.copytree(original.parent, tmp_path / "copy")) / original.name
    assert Services.read(copy) == Services(copy)
    assert Services.read(original).services == {"prefect": service}
    original.parent.rename(tmp_path / "moved")
    moved = tmp_path / "moved" / original.name
    assert Services.read(moved).services == {"prefect": service} and Services.read(moved).profile
