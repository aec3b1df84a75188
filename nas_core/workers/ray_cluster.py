"""Trainings on a Ray cluster: on this machine, or on many.

The flow's machine is a node of the cluster. What the candidates share is computed there once and
lies in Ray's object store: each node gets one copy, which its workers map into their memory. So
for candidates the other nodes need this package and its dependencies, and no data. Full trainings
read the prepared data and write their folders: the project's folder must be on each node.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, ParamSpec, TypeVar, cast

# Read when Ray is imported. Tensors go into the object store as they are, and come out of it as
# views of its memory.
os.environ.setdefault("RAY_ENABLE_ZERO_COPY_TORCH_TENSORS", "1")
# No report of its use is sent anywhere.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A call after the end of a cluster is an error, and does not start another one.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

import ray
import torch
from ray import exceptions

from nas_core.base.code import SEARCH, TRAINING, code_digest
from nas_core.base.errors import RunError, ServiceError, SettingsError, first_line
from nas_core.config import RunnerSettings
from nas_core.workers.local import WorkerLostError, Workers, keep_to_share, over_time, stopped

P = ParamSpec("P")
T = TypeVar("T")

LOSSES = (
    exceptions.WorkerCrashedError,
    exceptions.OutOfMemoryError,
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,
    exceptions.ObjectLostError,
)
SECONDS_TO_CONNECT = 10.0
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 30.0


class RayWorkers(Workers):
    """Places of a Ray cluster, each with the CPUs and GPUs that one training gets.

    A call waits until a place is free; the time limit counts from then. A worker or a node that is
    lost costs the calls on it another try each, on what is left of the cluster.

    Args:
        num_threads: CPU threads of each; 0: as many as it has whole CPUs.
        time_limit: seconds that one call may take; None: `runner.time_limit`.
        most: calls that there ever are at a time, if `runner.workers` leaves the number open.

    Raises:
        ServiceError: the address does not answer.
        SettingsError: the cluster has no room for `runner.workers` trainings, or for one.
    """

    def __init__(
        self,
        runner: RunnerSettings,
        num_threads: int = 0,
        time_limit: float | None = None,
        most: int = 1,
    ) -> None:
        super().__init__(runner.workers, time_limit or runner.time_limit)
        self._lock = threading.Lock()
        self._num_calls = 0
        self._call_ended = threading.Condition()
        self._shared: dict[Any, ray.ObjectRef[Any]] = {}
        self._num_threads = num_threads or max(1, int(runner.ray.cpus))
        # Of a GPU that others share; without one, or with whole ones, nothing is bounded.
        self._share_of_gpu = runner.ray.gpus if 0 < runner.ray.gpus < 1 else 1.0
        _connect(runner)
        try:
            self.num = _find_room(runner, most)
        except SettingsError:
            ray.shutdown()
            raise
        self._carry_out = ray.remote(_carry_out).options(
            num_cpus=runner.ray.cpus,
            num_gpus=runner.ray.gpus,
            max_retries=0,  # a loss is counted here
            scheduling_strategy="SPREAD",
        )

    def _try(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._call_ended:
            if self._closed:
                raise stopped()
            self._num_calls += 1
        try:
            return cast(T, self._ask(function, args, kwargs))
        except LOSSES:
            raise WorkerLostError from None
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, exceptions.RayError):
                raise RunError(f"a Ray worker cannot begin: {error.cause}") from None
            raise error.cause from error
        except exceptions.RayError as error:
            if self._closed:
                raise stopped() from None
            raise RunError(f"the Ray cluster fails: {first_line(error)}") from None
        finally:
            with self._call_ended:
                self._num_calls -= 1
                self._call_ended.notify_all()

    def _ask(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        # A generator, of which Ray's types do not know.
        answers: Any = self._carry_out.remote(
            _code(), self._num_threads, self._share_of_gpu, function, args, kwargs
        )
        self._wait(answers)
        ray.get(next(answers))  # it begins
        if not self._wait(answers, self.time_limit):
            ray.cancel(answers, force=True)  # which ends its process
            raise over_time(self.time_limit)
        return ray.get(next(answers))

    def _wait(self, answers: Any, seconds: float = float("inf")) -> bool:
        """Whether the next answer came within that time."""
        while seconds > 0:
            if self._closed:
                raise stopped()
            step = min(seconds, SECONDS_BETWEEN_LOOKS)
            if ray.wait([answers], timeout=step)[0]:
                return True
            seconds -= step
        return False

    def share(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        """`function` is called here, once; its result, moved to the CPU, goes to each node once."""
        key = (function, args, tuple(sorted(kwargs.items())))
        with self._lock:
            if key not in self._shared:
                result: Any = function(*args, **kwargs)
                if hasattr(result, "to"):
                    result = result.to(torch.device("cpu"))
                with warnings.catch_warnings():
                    # That tensors in the store must not be written to, which nobody does, and
                    # that some are copied.
                    warnings.simplefilter("ignore")
                    self._shared[key] = ray.put(result)
            return _Shared(self._shared[key])

    def close(self) -> None:
        with self._call_ended:
            if self._closed:
                return
            self._closed = True
            # Calls see it at their next look. Ray may not be asked after its end.
            self._call_ended.wait_for(lambda: not self._num_calls, SECONDS_TO_END)
        ray.shutdown()


class _Shared:
    """Gives the value of an object in the store; a worker reads it once."""

    def __init__(self, reference: ray.ObjectRef[Any]) -> None:
        self.reference = reference

    def __call__(self) -> Any:
        return _fetch(self.reference)


@lru_cache(maxsize=1)
def _fetch(reference: ray.ObjectRef[Any]) -> Any:
    return ray.get(reference)


def _carry_out(
    code: tuple[str, ...],
    num_threads: int,
    share_of_gpu: float,
    function: Callable[..., Any],
    args: Any,
    kwargs: Any,
) -> Iterator[Any]:
    """In a worker. Gives None when it begins, then the result."""
    yield None
    torch.set_num_threads(num_threads)
    if share_of_gpu < 1:
        keep_to_share(share_of_gpu)
    if _code() != code:
        raise RunError(
            f"node {socket.gethostname()} has another version of nas-seg than the machine that "
            "runs the command: install the same on all nodes"
        )
    yield function(*args, **kwargs)


def _code() -> tuple[str, ...]:
    return code_digest(SEARCH), code_digest(TRAINING)


def _connect(runner: RunnerSettings) -> None:
    address = runner.ray.address
    # Ray takes the signal over, and ends the process without a word to anybody.
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            _check_answers(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",  # and not another one of this machine, if there is one
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, exceptions.RayError, ValueError, RuntimeError) as error:
        raise ServiceError(
            f"runner.ray.address = {address!r}: Ray cannot be reached: {first_line(error)}; "
            "`ray start --address HOST:PORT` makes this machine a node of a cluster"
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _check_answers(address: str) -> None:
    """See that something listens there; Ray itself would wait for minutes, then end the process."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise SettingsError(
            f"runner.ray.address = {address!r}: expected HOST:PORT, auto, or nothing; this machine "
            "must be a node of the cluster"
        )
    try:
        socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise ServiceError(
            f"runner.ray.address = {address!r} does not answer ({error}): start the cluster with "
            "`ray start --head`, or leave the address empty for this machine alone"
        ) from None


def _find_room(runner: RunnerSettings, most: int) -> int:
    """The number of workers: what is set, or else as many places as there are, up to `most`.

    Raises:
        SettingsError: the cluster has not the places, on nodes that each hold whole ones.
    """
    wanted = {"CPU": runner.ray.cpus, "GPU": runner.ray.gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    places = sum(
        min(int(node.get(kind, 0) / each) for kind, each in wanted.items() if each)
        for node in nodes
    )
    if places < (runner.workers or 1):
        has = ", ".join(f"{sum(node.get(kind, 0) for node in nodes):g} {kind}s" for kind in wanted)
        raise SettingsError(
            f"runner.workers = {runner.workers}: the Ray cluster ({len(nodes)} nodes, {has}) has "
            f"room for {places} trainings with {runner.ray.cpus:g} CPUs and {runner.ray.gpus:g} "
            "GPUs each; lower runner.workers, runner.ray.cpus or runner.ray.gpus, or add nodes"
        )
    return runner.workers or min(places, most)
