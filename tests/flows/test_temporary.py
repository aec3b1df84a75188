"""The Prefect server that a command brings along, and signals to both. Each a process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tasks.guard import HOSTS_VARIABLE

PROGRAM = """
import time
from flows.cli import main as cli
from flows.cli.flow_commands import stoppable
from prefect import flow
from prefect.settings import PREFECT_API_URL

@flow
def waits():
    print(PREFECT_API_URL.value(), flush=True)
    time.sleep(600)

@cli.app.command()
def wait():
    with stoppable():
        waits()

cli.main()
"""
# Where another project's results go, which the server of a command does not know.
RESULTS = {
    "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": "s3-bucket/results",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "none",
}
STOPPED = "stopped; the same command goes on from here"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, prefect_home: Callable[[Path], Path]) -> Path:
    return prefect_home(tmp_path_factory.mktemp("prefect"))


@contextmanager
def waiting(home: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process, str]]:
    """A command in its flow, its server, and the address of that."""
    command = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "wait"],
        env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        | {"PREFECT_HOME": str(home), **RESULTS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert command.stdout is not None
    before = []
    for line in command.stdout:
        before.append(line)
        if line.startswith("http"):
            break
    else:
        pytest.fail("".join(before))
    assert not any("View at" in line for line in before), "a page that is not there"
    (server,) = psutil.Process(command.pid).children()
    try:
        yield command, server, line.strip()
    finally:
        for process in (server, command):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        command.wait()


def test_it_is_guarded_and_ends_with_a_command_that_is_killed(home: Path) -> None:
    with waiting(home) as (command, server, url):
        assert httpx.get(f"{url}/health").status_code == 200
        for headers in ({"Host": "evil.example"}, {"Origin": "http://127.0.0.1:4200"}):
            answer = httpx.post(f"{url}/flow_runs/filter", headers=headers, json={})
            assert answer.status_code == 403
        assert {c.laddr.ip for c in server.net_connections() if c.status == "LISTEN"} == {
            "127.0.0.1"
        }
        command.kill()
        server.wait(60)


def test_a_signal_to_all_processes_leaves_the_server_to_be_told(home: Path) -> None:
    with waiting(home) as (command, server, _):
        server.send_signal(signal.SIGTERM)
        time.sleep(1)
        os.killpg(command.pid, signal.SIGTERM)
        output, _ = command.communicate(timeout=300)
        assert command.returncode == 128 + signal.SIGTERM, output
        assert "Finished in state Crashed" in output and STOPPED in output
        assert "Traceback" not in output and "gone" not in output
        assert not server.is_running()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_server_that_is_gone_does_not_keep_the_command(home: Path, number: int) -> None:
    with waiting(home) as (command, server, _):
        server.kill()
        os.killpg(command.pid, number)
        output, _ = command.communicate(timeout=60)  # Prefect alone would try for minutes
        assert command.returncode == 128 + number, output
        assert f"{STOPPED}. The Prefect server is gone" in output
        assert "Traceback" not in output


@pytest.mark.parametrize("database", ["sqlite+aiosqlite:////nowhere/x.db", "hunter2"])
def test_a_server_that_does_not_start_says_so_in_a_line(home: Path, database: str) -> None:
    open_end, other_end = os.pipe()  # which a command would hold
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = subprocess.run(
            [sys.executable, "-m", "flows.servers.guarded_prefect", str(listener.fileno())],
            env={
                **os.environ,
                HOSTS_VARIABLE: "127.0.0.1",
                "PREFECT_HOME": str(home),
                "PREFECT_API_DATABASE_CONNECTION_URL": database,
            },
            pass_fds=[listener.fileno()],
            stdin=open_end,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
            check=False,
        )
    os.close(open_end)
    os.close(other_end)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "Prefect: " in line and "hunter2" not in line
