"""Full trainings and evaluations in workers, as many at a time as these are.

The workers need no way back but the files that a training leaves anyway: its progress is read from
its checkpoint.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from contextvars import copy_context
from itertools import islice
from pathlib import Path
from typing import TypeVar

from nas_core.base.errors import CandidateError, RunError
from nas_core.base.logs import Logger
from nas_core.base.paths import prepared_folder
from nas_core.base.times import duration
from nas_core.config import Settings
from nas_core.models.compute import Compute
from nas_core.models.state import load_plain
from nas_core.space.genotype import Genotype
from nas_core.training import evaluation, lifecycle
from nas_core.training.evaluation import is_evaluated, read_scores
from nas_core.training.full_task import FullTask
from nas_core.training.lifecycle import CHECKPOINT_FILE, find_training
from nas_core.training.record import FinalScores
from nas_core.workers.local import Workers
from nas_core.workers.room import make_workers, training_bytes

K = TypeVar("K")
T = TypeVar("T")
Row = dict[str, float]

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.5


def training_workers(
    settings: Settings, compute: Compute, num_trainings: int, num_bytes: int = 0
) -> Workers:
    """What carries out so many full trainings. One at a time is done in this very process.

    Args:
        num_bytes: memory that other work in the same workers takes, if that is more.

    Raises:
        NasError: see `make_workers`.
    """
    return make_workers(
        settings,
        compute,
        most=max(1, num_trainings),
        num_bytes=max(num_bytes, training_bytes(settings)),
        time_limit=math.inf,
    )


def side_by_side(
    workers: Workers, jobs: Iterable[tuple[K, Callable[[], T]]]
) -> Iterator[tuple[K, T]]:
    """What the jobs return, each with its key, in their order, once it and all before it are done.

    As many are in work as there are workers, in threads with copies of this one's context. A job
    that fails with a CandidateError is left out, and told when all others are done. Any other
    error, or an interruption, ends all at once: what is in training has its checkpoint.

    Raises:
        CandidateError: of the jobs that failed so.
    """
    failed: list[CandidateError] = []
    with workers.waiting_room() as threads:
        try:
            waiting, begun, number = iter(jobs), list[tuple[K, Future[T]]](), 0
            while True:
                _raise_what_ends_all(one for _, one in begun)
                open_ = [one for _, one in begun if not one.done()]
                for key, job in islice(waiting, workers.num - len(open_)):
                    begun.append((key, threads.submit(copy_context().run, job)))
                if number == len(begun):
                    break
                key, future = begun[number]
                if future.done():
                    number += 1
                    if isinstance(error := future.exception(), CandidateError):
                        failed.append(error)
                    else:
                        yield key, future.result()
                else:
                    wait([one for _, one in begun if not one.done()], return_when=FIRST_COMPLETED)
        except BaseException:
            # Else the threads would wait for what is in training.
            workers.close()
            raise
    if failed:
        raise _all_of(failed)


def _raise_what_ends_all(begun: Iterable[Future[T]]) -> None:
    for future in begun:
        error = future.exception() if future.done() else None
        if error and not isinstance(error, CandidateError):
            raise error


def _all_of(failed: Sequence[CandidateError]) -> CandidateError:
    if len(failed) == 1:
        return failed[0]
    return CandidateError("\n".join([f"{len(failed)} failed:", *map(str, failed)]))


def train(
    workers: Workers,
    settings: Settings,
    root: Path,
    label: str,
    architecture: Genotype,
    *,
    commit: str | None = None,
    logger: Logger = log,
    on_epoch: Callable[[Row], None] = lambda row: None,
) -> Path:
    """`lifecycle.train_architecture` in a worker, with a line in the log for each epoch.

    One that loses its worker goes on in another one from its checkpoint.

    Args:
        on_epoch: called with each new row of the history.

    Raises:
        NasError: see `lifecycle.train_architecture` and `Workers.call`.
    """
    task = FullTask.open(settings, root)
    folder, identity = find_training(task, root, label, architecture, settings.seed)
    if folder.name != f"{label}-{identity}":
        logger.info(f"{label} is the network of {folder.name}, whose training serves both")
        label = folder.name.removesuffix(f"-{identity}")
    if (folder / "training.json").exists():
        return folder

    def report(row: Row) -> None:
        val = f" · val mIoU {row['val_mean_iou']:.4f}" if "val_mean_iou" in row else ""
        epochs = settings.train.epochs
        left = duration((epochs - row["epoch"]) * row["seconds"])
        logger.info(
            f"{label} · epoch {row['epoch']:.0f}/{epochs} · loss {row['loss']:.4f}{val}"
            f" · about {left} left"
        )
        on_epoch(row)

    with _following(folder / CHECKPOINT_FILE, report):
        return workers.call(_train, settings, root, label, architecture, commit)


def evaluate(
    workers: Workers,
    settings: Settings,
    root: Path,
    label: str,
    folder: Path,
    *,
    logger: Logger = log,
) -> FinalScores:
    """`evaluation.evaluate_architecture` in a worker.

    Raises:
        NasError: see there and `Workers.call`.
    """
    if is_evaluated(folder):
        return read_scores(folder)
    scores, messages = workers.call(_evaluate, settings, root, label, folder)
    for level, message in messages:
        logger.log(level, message)
    return scores


def _train(
    settings: Settings, root: Path, label: str, architecture: Genotype, commit: str | None
) -> Path:
    """In a worker."""
    _check_node(settings, root)
    return lifecycle.train_architecture(settings, root, label, architecture, commit=commit)


def _evaluate(
    settings: Settings, root: Path, label: str, folder: Path
) -> tuple[FinalScores, list[tuple[int, str]]]:
    """In a worker: the scores, and what is to be said."""
    _check_node(settings, root)
    logger, said = logging.Logger(label), _Said()
    logger.addHandler(said)
    scores = evaluation.evaluate_architecture(settings, root, label, folder, logger=logger)
    return scores, said.messages


def _check_node(settings: Settings, root: Path) -> None:
    """See that the machine of a worker has the data, as the one with the command has."""
    if not prepared_folder(root, settings).exists():
        raise RunError(
            f"{socket.gethostname()} has no {prepared_folder(root, settings)}: full trainings on "
            "Ray need the project's folder on each node, at the same path"
        )


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append((record.levelno, record.getMessage()))


@contextmanager
def _following(checkpoint: Path, report: Callable[[Row], None]) -> Iterator[None]:
    """Reports the rows that the history in a checkpoint gains meanwhile."""
    num_known = len(_history(checkpoint))
    ended = threading.Event()

    def follow() -> None:
        nonlocal num_known
        seen, last = 0, False
        while not last:
            last = ended.wait(SECONDS_BETWEEN_LOOKS)
            changed = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
            if changed != seen:
                seen = changed
                for row in _history(checkpoint)[num_known:]:
                    report(row)
                    num_known += 1

    follower = threading.Thread(target=copy_context().run, args=(follow,), daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def _history(checkpoint: Path) -> list[Row]:
    """The rows of the epochs; none where there is no readable checkpoint, which a training says."""
    try:
        return list(load_plain(checkpoint)["history"])
    except (OSError, ValueError, LookupError, TypeError):
        return []
