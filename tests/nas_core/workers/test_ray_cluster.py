"""Ray workers are real ones. Most join one cluster, since to start another takes half a minute."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from nas_core.base.errors import CandidateError, RunError, ServiceError, SettingsError
from nas_core.base.paths import prepared_folder
from nas_core.config import RaySettings, RunnerSettings
from nas_core.data.preparing import prepare
from nas_core.loading import validate_settings
from nas_core.models.compute import Compute
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training.record import FinalScores
from nas_core.training.side_by_side import evaluate, side_by_side, train, training_workers
from nas_core.workers import ray_cluster
from nas_core.workers.local import MAX_LOSSES, InProcessWorkers, Workers
from nas_core.workers.ray_cluster import RayWorkers
from tests.tiny import tiny

ROOT = Path(__file__).parents[3]
STANDINS = ROOT / "tests" / "standins"
sys.path.append(str(STANDINS))

import standin_calls as calls  # noqa: E402

pytestmark = pytest.mark.slow


def settings(workers: int = 1, time_limit: float = 120, **of_ray: float | str) -> RunnerSettings:
    ray = RaySettings.model_validate(of_ray)
    return RunnerSettings(kind="ray", workers=workers, time_limit=time_limit, ray=ray)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of one whose nodes find the stand-ins."""
    from ray.cluster_utils import Cluster  # after RayWorkers, which says how Ray keeps tensors

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(STANDINS)]))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        yield cluster.address
        cluster.shutdown()


@pytest.mark.parametrize(
    ("num", "of_ray", "message"),
    [
        (3, {"cpus": 100}, "room for 0 trainings with 100 CPUs"),
        (1, {"gpus": 7}, r"0 GPUs\) has room for 0 trainings.*7 GPUs each; lower"),
        (1, {"address": "127.0.0.1"}, r"expected HOST:PORT, auto"),
        (1, {"address": "127.0.0.1:99999999"}, r"does not answer"),
    ],
)
def test_what_no_cluster_holds_is_refused(
    cluster: str, num: int, of_ray: dict[str, float | str], message: str
) -> None:
    with pytest.raises((SettingsError, ServiceError), match=message):
        RayWorkers(settings(num, **{"address": cluster, **of_ray}))


@pytest.mark.parametrize(("gpus", "share"), [(0.0, []), (0.25, [0.25]), (1.0, []), (2.0, [])])
def test_a_part_of_a_gpu_is_a_part_of_its_memory(
    cluster: str, monkeypatch: pytest.MonkeyPatch, gpus: float, share: list[float]
) -> None:
    monkeypatch.setattr(ray_cluster, "_find_room", lambda *of: 1)  # this cluster has no GPU
    kept: list[float] = []
    monkeypatch.setattr(ray_cluster, "keep_to_share", kept.append)
    with RayWorkers(settings(address=cluster, gpus=gpus)) as workers:
        bound = workers._share_of_gpu
    answers = ray_cluster._carry_out(ray_cluster._code(), 1, bound, calls.pid, (), {})
    assert list(answers) == [None, os.getpid()] and kept == share


def test_an_address_that_does_not_answer_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nothing listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServiceError, match=rf"ray\.address = '{address}' does not answer"):
            RayWorkers(settings(address=address))


def test_closed_workers_end_their_calls(cluster: str, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    workers = RayWorkers(settings(address=cluster))
    raised: list[BaseException] = []

    def work() -> None:
        try:
            workers.call(calls.mark_and_sleep, mark, 3600)
        except RunError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 120
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers.close()
    thread.join(60)
    assert [str(error) for error in raised] == ["stopped with all others; the same command goes on"]


# A process is in one cluster at a time: before the workers of the module.
def test_full_trainings_are_those_of_this_process(cluster: str, tmp_path: Path) -> None:
    params = tiny(
        train={"epochs": 2}, runner={"kind": "ray", "workers": 2, "ray": {"address": cluster}}
    )
    changed = validate_settings(params, "test")
    roots = tmp_path / "ray", tmp_path / "here"
    for root in roots:
        prepare(changed.dataset, root, prepared_folder(root, changed))
    found: list[dict[str, tuple[bytes, FinalScores]]] = []
    with training_workers(changed, Compute.from_settings(changed.compute), 2) as on_ray:
        assert isinstance(on_ray, RayWorkers) and on_ray.num == 2
        for workers, root in zip((on_ray, InProcessWorkers()), roots, strict=True):

            def job(
                label: str, workers: Workers = workers, root: Path = root
            ) -> tuple[bytes, FinalScores]:
                folder = train(workers, changed, root, label, ARCHITECTURES[label], commit="0")
                scores = evaluate(workers, changed, root, label, folder)
                return (folder / "model.safetensors").read_bytes(), scores

            jobs = [(name, partial(job, name)) for name in ("arch0", "arch1")]
            found.append(dict(side_by_side(workers, jobs)))
    assert found[0] == found[1]
    assert found[0]["arch0"] != found[0]["arch1"]


def test_nobody_without_its_token_gets_into_a_cluster_of_this_machine(tmp_path: Path) -> None:
    home = {**os.environ, "HOME": str(tmp_path)}
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        home.pop(name)
    code = """
        import sys
        from nas_core.config import RunnerSettings
        from nas_core.workers.ray_cluster import RayWorkers, ray
        with RayWorkers(RunnerSettings(kind="ray")):
            print(ray.get_runtime_context().gcs_address, flush=True)
            sys.stdin.read()
        """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT, env=home, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert owner.stdin and owner.stdout
    address = owner.stdout.readline().strip()
    stranger = f"import ray; ray.init(address={address!r}); print('in')"
    try:
        for mode, token, gets_in in (
            ("token", "0" * 64, False),
            ("token", (tmp_path / ".ray" / "auth_token").read_text(), True),
        ):
            found = subprocess.run(
                [sys.executable, "-c", stranger],
                env={**home, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": token},
                capture_output=True, text=True, timeout=200,
            )  # fmt: skip
            assert ("in" in found.stdout.split()) == gets_in, found.stderr
    finally:
        owner.communicate("")
    assert owner.returncode == 0


@pytest.fixture(scope="module")  # first used below, since a process has one cluster at a time
def workers(cluster: str) -> Iterator[RayWorkers]:
    handler = signal.getsignal(signal.SIGTERM)
    with RayWorkers(settings(2, cpus=0.5, address=cluster)) as workers:
        assert signal.getsignal(signal.SIGTERM) == handler
        yield workers


@pytest.mark.parametrize(("kind", "error", "message"), calls.FAILURES)
def test_what_a_call_raises(
    workers: RayWorkers, kind: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        workers.call(calls.fail, kind)
    assert type(raised.value) is error
    assert workers.call(calls.pid) != os.getpid()


def test_a_lost_worker_costs_its_call_one_more_try(workers: RayWorkers, tmp_path: Path) -> None:
    assert workers.call(calls.die_until, tmp_path / "calls", 1) == 2


def test_who_loses_every_worker_has_failed(workers: RayWorkers, tmp_path: Path) -> None:
    count = tmp_path / "calls"
    with pytest.raises(CandidateError, match=f"ended {MAX_LOSSES} times"):
        workers.call(calls.die_until, count, 100)
    assert count.read_text() == str(MAX_LOSSES)


def test_over_the_time_limit_its_process_ends(workers: RayWorkers, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    workers.time_limit = 10
    try:
        with pytest.raises(CandidateError, match=r"after 10 s, which is runner\.time_limit"):
            workers.call(calls.mark_and_sleep, mark, 3600)
    finally:
        workers.time_limit = 120
    deadline = time.monotonic() + 60
    while psutil.pid_exists(int(mark.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_is_shared_is_computed_once_and_mapped_into_each_worker(
    workers: RayWorkers, tmp_path: Path
) -> None:
    count = tmp_path / "calls"
    first, second = (workers.share(calls.big_tensor, count) for _ in range(2))
    found = [workers.call(calls.describe, shared) for shared in (first, second, first)]
    assert count.read_text() == "1"
    total = float(torch.arange(10.0**6).sum())
    assert [one["sum"] for one in found] == [total] * 3
    # Its memory is the object store's, a file that all processes of the node map.
    assert all("/dev/shm" in one["mapped"] or "/tmp" in one["mapped"] for one in found)
