"""Processes that carry out long calls, so that one which hangs takes nothing else along."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import queue
import signal
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import ParamSpec, TypeVar

from nas_core.base.closing import Closing
from nas_core.base.errors import CandidateError, NasError, RunError, first_line
from nas_core.workers.mps import Mps

P = ParamSpec("P")
T = TypeVar("T")

# A process may be lost for no fault of what it carries out; who loses three is at fault.
MAX_LOSSES = 3
# How much likelier than others the system ends a worker when memory runs out (0 to 1000).
OOM_SCORE = 500
OOM_FILE = Path("/proc/self/oom_score_adj")  # Linux alone has it


class Workers(Closing):
    """`num` of them, each with one call at a time. Use as a context manager, or `close`."""

    about = ""
    """How many, with what each, in words."""

    def __init__(self, num: int, time_limit: float) -> None:
        self.num = num
        self.time_limit = time_limit
        self._closed = False

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `function` in a free worker. May be called from several threads.

        Args:
            function: of a module, with arguments and a result that can be pickled.

        Raises:
            CandidateError: the time limit passed, the worker was lost `MAX_LOSSES` times, or the
                function ran out of memory or raised something unforeseen.
            RunError: the disk is full or cannot be written, or the workers were closed.
            NasError: as the function raised it.
        """
        for _ in range(MAX_LOSSES):
            if self._closed:
                raise stopped()
            try:
                return self._try(function, *args, **kwargs)
            except WorkerLostError:
                continue
            except NasError:
                raise
            except OSError as error:
                raise RunError(f"a worker stopped: {error}") from None
            except Exception as error:
                raise CandidateError(
                    f"{type(error).__name__}: {first_line(error, 2000)}"
                ) from error
        if self._closed:
            raise stopped()
        raise CandidateError(
            f"its process ended {MAX_LOSSES} times without a word, as when the system kills it for "
            "want of memory: fewer runner.workers take less"
        )

    @abstractmethod
    def _try(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `function`, or what it raised.

        Raises:
            WorkerLostError: the worker is gone.
            CandidateError: see `over_time`.
            RunError: see `stopped`.
        """

    @abstractmethod
    def share(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        """A function without arguments, to be handed to `call`: the same result for all workers.

        Args:
            function: keeps its last result, as with `functools.lru_cache`.
        """

    def waiting_room(self) -> Executor:
        """Where as many calls as there are workers wait for their ends at a time."""
        return ThreadPoolExecutor(self.num)

    @abstractmethod
    def close(self) -> None:
        """End all workers at once; calls in work raise a RunError."""


class WorkerLostError(Exception):
    """A worker ended in the middle of a call."""


def stopped() -> RunError:
    """What a call raises when the workers are closed."""
    return RunError("stopped with all others; the same command goes on")


def over_time(time_limit: float) -> CandidateError:
    """What a call raises when its time limit passed."""
    return CandidateError(f"no result after {time_limit:g} s, which is runner.time_limit")


class InProcessWorkers(Workers):
    """This very process, one call after the other: for notebooks, tests and debuggers.

    It has no time limit, and what takes the process down takes the run along, which goes on from
    its journal or checkpoint.

    Args:
        num_threads: CPU threads of a call; 0: those that the process has.
    """

    def __init__(self, num_threads: int = 0) -> None:
        super().__init__(1, math.inf)
        self._num_threads = num_threads

    def _try(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if not self._num_threads:
            return function(*args, **kwargs)
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self._num_threads)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    def share(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        return partial(function, *args, **kwargs)

    def waiting_room(self) -> Executor:
        """The caller's thread: so an interruption, as of a notebook's cell, ends a call at once."""
        return _Inline()

    def close(self) -> None:
        self._closed = True


class _Inline(Executor):
    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except NasError as error:
            future.set_exception(error)
        return future


class ProcessWorkers(Workers):
    """Processes of this machine, started at the first need.

    A worker ends with the process that started it, however that ends.

    Args:
        time_limit: seconds that one call may take; may be infinite.
        num_threads: CPU threads of each; 0: torch's default with one worker, with more an even
            share of the cores.
        gpus: names for CUDA_VISIBLE_DEVICES, handed out in turn, one to each worker. Empty: all see
            what this process sees.
        num_on_a_gpu: how many share one: each may take as large a part of its memory. 0: as much
            as there is.
        mps: what they share a GPU through; it is closed with them.
    """

    def __init__(
        self,
        num: int,
        time_limit: float,
        num_threads: int = 0,
        gpus: Sequence[str] = (),
        num_on_a_gpu: int = 0,
        mps: Mps | None = None,
    ) -> None:
        super().__init__(num, time_limit)
        self._mps = mps
        variables = mps.environment if mps else {}
        if num > 1 and num_threads == 0:
            num_threads = max(1, (os.cpu_count() or 1) // num)
        self._workers = [
            _Worker(
                num_threads,
                variables | ({"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {}),
                1 / num_on_a_gpu if num_on_a_gpu else 1.0,
            )
            for index in range(num)
        ]
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)

    def _try(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        worker = self._free.get()
        try:
            return worker.call(self.time_limit, function, *args, **kwargs)
        except (WorkerLostError, NasError, OSError):
            raise
        except Exception:
            worker.kill()  # what it left in memory would burden the next call
            if self._closed:
                raise WorkerLostError from None
            raise
        finally:
            self._free.put(worker)

    def share(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        """Each process calls `function` once, and keeps what it returned."""
        return partial(function, *args, **kwargs)

    def close(self) -> None:
        self._closed = True
        for worker in self._workers:
            worker.end()
        mps, self._mps = self._mps, None
        if mps:
            mps.close()


class _Worker:
    """One process, started anew whenever it is gone."""

    def __init__(self, num_threads: int, variables: Mapping[str, str], share_of_gpu: float) -> None:
        self._about = (num_threads, variables, share_of_gpu)
        self._executor: ProcessPoolExecutor | None = None
        self._pid = 0
        self._ended = False

    def call(
        self, time_limit: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """See `Workers._try`."""
        try:
            executor = self._started()
            if self._ended:  # while it started
                self.kill()
                raise WorkerLostError
            future = executor.submit(function, *args, **kwargs)
            try:
                return future.result(None if math.isinf(time_limit) else time_limit)
            except TimeoutError:
                if future.done():
                    raise  # the function's own
        except BrokenProcessPool:
            self.kill()
            raise WorkerLostError from None
        self.kill()
        raise over_time(time_limit)

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            executor = ProcessPoolExecutor(
                1,
                mp_context=_forking(),
                initializer=_begin,
                initargs=(dict(os.environ), *self._about),
            )
            # Who ends a command may signal all its processes, as a terminal does with Ctrl-C. A
            # worker inherits the blocked signals: it is ended by the process that started it, when
            # that has seen to the rest. Else its candidate would count as one that failed.
            ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
            try:
                pid = executor.submit(os.getpid)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._executor, self._pid = executor, pid.result()
        return self._executor

    def end(self) -> None:
        """For good, also one that is about to start."""
        self._ended = True
        self.kill()

    def kill(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            executor.shutdown(wait=True, cancel_futures=True)


def _forking() -> BaseContext:
    """Workers are forked from a server without threads that has imported what takes seconds.

    So the second worker, and one in the place of a lost one, starts at once. CUDA is untouched by
    these imports, and may be used in each.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision"])
    return context


def _begin(
    environment: Mapping[str, str],
    num_threads: int,
    variables: Mapping[str, str],
    share_of_gpu: float,
) -> None:
    """What a worker does first."""
    os.environ.clear()  # that of the server's start
    os.environ.update({**environment, **variables})  # which CUDA reads when it is first used
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):
        OOM_FILE.write_text(str(OOM_SCORE))
    if num_threads:
        import torch

        torch.set_num_threads(num_threads)
    if share_of_gpu < 1:
        keep_to_share(share_of_gpu)


def keep_to_share(share: float) -> None:
    """From now on this process takes at most a share, 0 to 1, of the memory of each GPU it sees."""
    import torch

    for index in range(torch.cuda.device_count()):
        torch.cuda.set_per_process_memory_fraction(share, index)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
