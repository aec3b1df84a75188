"""How many trainings a machine carries out at a time, and what each of them gets of it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from nas_core.base.errors import SettingsError
from nas_core.config import Settings
from nas_core.models.compute import Compute, visible_gpus
from nas_core.workers.local import InProcessWorkers, ProcessWorkers, Workers
from nas_core.workers.mps import start_mps

GIB = 2**30
# By benchmarks/malloc.py, arch0 in fp32: 3.1 GiB with batches of 8x288x384 pixels, 2.0 with half of
# that; with some room.
PROCESS_BYTES = int(0.9 * GIB)
"""Of a process that trains, before its first batch."""
BYTES_PER_PIXEL = 3100
"""Of a batch in training in fp32."""
KEPT_BYTES_PER_PIXEL = 24
"""Of images, masks and the encoder's outputs, which all candidates of a worker share."""
SHARE_OF_GPU = 0.8
"""Of its memory that the trainings on a GPU may take."""
MOST_ON_A_GPU = 8
"""Trainings: more take turns, and bring nothing."""
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Room:
    """Places for trainings.

    Attributes:
        num_threads: CPU threads of each; 0: those that torch chooses.
        gpus: for CUDA_VISIBLE_DEVICES, see `ProcessWorkers`.
        num_on_a_gpu: the most that share one; 0 on a CPU.
        about: all of it in words.
    """

    num: int
    num_threads: int
    gpus: tuple[str, ...]
    num_on_a_gpu: int
    about: str


def candidate_bytes(settings: Settings, num_images: int) -> int:
    """The memory that a worker which trains candidates takes, about."""
    proxy = settings.search.proxy
    pixels = proxy.height * proxy.width
    num_kept = min(num_images, proxy.max_images or num_images) * (1 + proxy.crops_per_image)
    return (
        PROCESS_BYTES
        + BYTES_PER_PIXEL * pixels * proxy.batch_size
        + KEPT_BYTES_PER_PIXEL * pixels * num_kept
    )


def training_bytes(settings: Settings) -> int:
    """The memory that a worker which trains a network fully takes, about."""
    train = settings.train
    pixels = train.crop_height * train.crop_width * train.batch_size
    return PROCESS_BYTES + BYTES_PER_PIXEL * pixels


def find_room(settings: Settings, compute: Compute, most: int, num_bytes: int) -> Room:
    """The places for trainings on this machine.

    The number of threads rounds the results of a CPU. So it depends on the cores and on how many
    trainings there are, and not on how many of these are in work.

    Args:
        most: trainings that there ever are at a time.
        num_bytes: memory of each, of a GPU's if they are trained there.
    """
    cores, free = num_cores(), free_memory()
    threads = settings.compute.threads
    device = compute.device.type
    gpus: tuple[str, ...] = ()
    if device == "cuda":
        # One that is named, as cuda:1, is for all.
        gpus = tuple(visible_gpus()) if compute.device.index is None else ()
        fitting = min(cores, _places_on_gpus(compute.device, len(gpus), num_bytes))
        fitting = min(fitting, free // (2 * PROCESS_BYTES))
        where = f"on {len(gpus)} GPUs" if len(gpus) > 1 else "on the GPU"
    elif device == "cpu":
        if not threads and most > 1:
            threads = max(1, cores // most)
        fitting = min(cores // (threads or cores), free // num_bytes)
        where = f"with {_counted(threads or cores, 'thread')} each on the CPU"
    else:
        fitting, where = 1, f"on {device}"
    num = settings.runner.workers or max(1, min(most, fitting))
    if device == "cuda" and not threads and num > 1:
        threads = max(1, cores // num)
    about = (
        f"{_counted(num, 'worker')} {where}; a training takes about {num_bytes / GIB:.1f} GiB, "
        f"and {free / GIB:.1f} GiB of memory are free"
    )
    num_on_a_gpu = math.ceil(num / max(1, len(gpus))) if device == "cuda" else 0
    return Room(num, threads, gpus, num_on_a_gpu, about)


def make_workers(
    settings: Settings, compute: Compute, *, most: int, num_bytes: int, time_limit: float
) -> Workers:
    """The workers that the settings name, or those that there is room for.

    Args:
        most, num_bytes: see `find_room`. Of a Ray cluster the room is what it has.
        time_limit: seconds that one call may take. If it is infinite, one worker is this process.

    Raises:
        SettingsError: the package that they need is missing, or a Ray cluster has no room.
        ServiceError: there is no Ray cluster.
    """
    if settings.runner.kind == "ray":
        try:
            from nas_core.workers.ray_cluster import RayWorkers
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"runner.kind = 'ray': the package {error.name} is missing; install nas-seg[ray]"
            ) from None
        workers: Workers = RayWorkers(settings.runner, settings.compute.threads, time_limit, most)
        workers.about = f"{_counted(workers.num, 'worker')} on Ray"
        return workers
    room = find_room(settings, compute, most, num_bytes)
    if math.isinf(time_limit) and min(room.num, most) == 1:
        workers = InProcessWorkers(room.num_threads)
        workers.about = room.about
        return workers
    mps, about = None, room.about
    if room.num_on_a_gpu > 1:
        mps, said = start_mps()
        about += f"; {room.num_on_a_gpu} share a GPU: {said}"
    workers = ProcessWorkers(
        room.num, time_limit, room.num_threads, room.gpus, room.num_on_a_gpu, mps
    )
    workers.about = about
    return workers


def num_cores() -> int:
    """Those that this process may use: of the machine, and of its container."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    try:
        microseconds, period = map(int, (CGROUP / "cpu.max").read_text().split())
    except (OSError, ValueError):  # no such group, or one without a limit
        return cores
    return max(1, min(cores, microseconds // max(1, period)))


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, and of its container."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        # What is cached of files is given up where it is needed.
        cached = int(counts["active_file"]) + int(counts["inactive_file"])
    except (OSError, ValueError, KeyError):  # no such group, or one without a limit
        return free
    return max(0, min(free, limit - used + cached))


def _places_on_gpus(device: torch.device, num_gpus: int, num_bytes: int) -> int:
    places = 0
    for index in range(num_gpus) if num_gpus else [device.index or 0]:
        memory = torch.cuda.get_device_properties(index).total_memory
        places += min(MOST_ON_A_GPU, max(1, int(SHARE_OF_GPU * memory / num_bytes)))
    return places


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
