"""Workers are real processes here, killed for real."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch

from nas_core.base.errors import CandidateError, RunError
from nas_core.workers import local
from nas_core.workers.local import MAX_LOSSES, ProcessWorkers

STANDINS = Path(__file__).parents[2] / "standins"
sys.path.append(str(STANDINS))

import standin_calls as calls  # noqa: E402


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessWorkers]:
    with ProcessWorkers(1, time_limit=120) as workers:
        yield workers


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_one_process_serves_all_calls(workers: ProcessWorkers) -> None:
    first = workers.call(calls.pid)
    assert first != os.getpid()
    assert workers.call(calls.pid) == first


@pytest.mark.parametrize(("kind", "error", "message"), calls.FAILURES)
def test_what_a_call_raises(
    workers: ProcessWorkers, kind: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        workers.call(calls.fail, kind)
    assert type(raised.value) is error
    assert workers.call(calls.sleep, 0) == 0


def test_a_worker_that_is_lost_costs_a_repetition(workers: ProcessWorkers, tmp_path: Path) -> None:
    count = tmp_path / "count"
    assert workers.call(calls.die_until, count, MAX_LOSSES - 1) == MAX_LOSSES


def test_who_loses_its_worker_every_time_has_failed(
    workers: ProcessWorkers, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    with pytest.raises(CandidateError, match=r"ended 3 times without a word, .* memory"):
        workers.call(calls.die_until, count, 1000)
    assert count.read_text() == str(MAX_LOSSES)
    assert workers.call(calls.sleep, 0) == 0


def test_a_worker_has_the_environment_of_its_own_start(
    workers: ProcessWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.call(calls.pid)  # the server that workers are forked from is there
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with ProcessWorkers(1, time_limit=120) as later:
        assert later.call(calls.visible_gpus) == "7"


def test_a_worker_is_forked_with_its_imports_made(workers: ProcessWorkers) -> None:
    parent = psutil.Process(workers.call(calls.pid)).ppid()
    assert parent != os.getpid()
    libraries = {Path(mapped.path).name for mapped in psutil.Process(parent).memory_maps()}
    assert any(name.startswith("libtorch") for name in libraries)


def test_an_idle_worker_that_dies_is_replaced(workers: ProcessWorkers) -> None:
    first = workers.call(calls.pid)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(first))
    assert workers.call(calls.pid) != first


def test_a_call_over_the_time_limit_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    with ProcessWorkers(1, time_limit=30) as workers:
        workers.call(calls.pid)
        with pytest.raises(CandidateError, match=r"no result after 30 s, which is runner\.time_li"):
            workers.call(calls.mark_and_sleep, mark, 3600)
        assert not psutil.pid_exists(int(mark.read_text()))
        assert workers.call(calls.sleep, 0) == 0


def test_several_workers_work_at_a_time_and_share_the_threads(tmp_path: Path) -> None:
    with ProcessWorkers(2, time_limit=120) as workers, ThreadPoolExecutor(2) as threads:
        marks = [tmp_path / "a", tmp_path / "b"]
        pids = list(threads.map(lambda m: workers.call(calls.mark_and_sleep, m, 3), marks))
        assert len(set(pids)) == 2
        assert workers.call(calls.threads) == max(1, (os.cpu_count() or 1) // 2)


def test_closing_ends_work_at_once(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    workers = ProcessWorkers(1, time_limit=3600)
    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(workers.call, calls.mark_and_sleep, mark, 3600)
        wait_for(lambda: mark.exists() and mark.read_text() != "")
        workers.close()
        with pytest.raises(RunError, match="stopped with all others"):
            working.result(30)
    assert not psutil.pid_exists(int(mark.read_text()))


def test_closing_ends_a_worker_that_is_about_to_start(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    workers = ProcessWorkers(1, time_limit=math.inf)
    before = set(psutil.Process().children(recursive=True))
    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(workers.call, calls.mark_and_sleep, mark, 3600)
        wait_for(lambda: set(psutil.Process().children(recursive=True)) > before)
        workers.close()
        with pytest.raises(RunError, match="stopped with all others"):
            working.result(120)
        with pytest.raises(RunError, match="stopped with all others"):
            workers.call(calls.pid)
    # On a busy machine it may have begun before it was ended.
    begun = mark.read_text() if mark.exists() else ""
    assert not begun or not psutil.pid_exists(int(begun))


def test_a_worker_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = f"""
        import sys
        from pathlib import Path
        sys.path.append({str(STANDINS)!r})
        import standin_calls
        from nas_core.workers.local import ProcessWorkers
        if __name__ == "__main__":
            ProcessWorkers(1, 3600).call(standin_calls.mark_and_sleep, Path({str(mark)!r}), 3600)
    """
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(code))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen([sys.executable, script], env=environment)
    try:
        wait_for(lambda: mark.exists() and mark.read_text() != "")
    finally:
        parent.kill()
        parent.wait()
    worker = int(mark.read_text())
    wait_for(lambda: not psutil.pid_exists(worker), 20)


def test_ctrl_c_does_not_reach_a_worker(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    with ProcessWorkers(1, time_limit=120) as workers:
        result: list[int] = []
        call = threading.Thread(
            target=lambda: result.append(workers.call(calls.mark_and_sleep, mark, 2))
        )
        call.start()
        wait_for(lambda: mark.exists() and mark.read_text() != "")
        os.kill(int(mark.read_text()), signal.SIGINT)
        call.join()
    assert result == [int(mark.read_text())]


def test_without_linux_a_worker_begins_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "OOM_FILE", tmp_path / "no proc" / "oom_score_adj")
    monkeypatch.setattr(local, "_end_with_parent", lambda: None)
    local._begin(dict(os.environ), num_threads=0, variables={}, share_of_gpu=1)


def test_those_that_share_gpus_keep_to_a_part_of_the_memory_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[tuple[float, int]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *given: kept.append(given)
    )
    monkeypatch.setattr(local, "OOM_FILE", Path("/nonexistent/file"))
    monkeypatch.setattr(local, "_end_with_parent", lambda: None)
    local._begin(dict(os.environ), num_threads=0, variables={}, share_of_gpu=0.25)
    assert kept == [(0.25, 0), (0.25, 1)]


def test_gpus_are_handed_out_in_turn() -> None:
    workers = ProcessWorkers(3, time_limit=120, num_threads=1, gpus=["4", "GPU-5"])
    with workers, ThreadPoolExecutor(3) as threads:
        seen = list(threads.map(lambda _: workers.call(calls.visible_gpus), range(3)))
    assert sorted(seen) == ["4", "4", "GPU-5"]
