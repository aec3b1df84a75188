"""How many workers a machine gets, by its cores and memory."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nas_core.config import ComputeSettings, RunnerSettings, SearchSettings, Settings
from nas_core.models.compute import Compute
from nas_core.workers import room
from nas_core.workers.room import GIB, find_room, free_memory, num_cores, training_bytes

CPU, GPU = Compute(torch.device("cpu"), False), Compute(torch.device("cuda"), True)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Sixteen cores, 64 GiB free, two GPUs of 80 GiB."""
    monkeypatch.setattr(room, "num_cores", lambda: 16)
    monkeypatch.setattr(room, "free_memory", lambda: 64 * GIB)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    properties = SimpleNamespace(total_memory=80 * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    return monkeypatch


def settings(workers: int = 0, threads: int = 0) -> Settings:
    return Settings(
        runner=RunnerSettings(workers=workers), compute=ComputeSettings(threads=threads)
    )


@pytest.mark.parametrize(
    ("most", "gib", "threads", "expected"),
    [
        (100, 2, 0, (16, 1)),
        (4, 2, 0, (4, 4)),
        (5, 2, 0, (5, 3)),
        (1, 2, 0, (1, 0)),  # torch's default: all cores
        (100, 10, 0, (6, 1)),
        (100, 100, 0, (1, 1)),
        (100, 2, 4, (4, 4)),
        (100, 2, 32, (1, 32)),
    ],
)
def test_cores_and_memory_bound_the_workers_of_a_cpu(
    machine: pytest.MonkeyPatch, most: int, gib: int, threads: int, expected: tuple[int, int]
) -> None:
    found = find_room(settings(threads=threads), CPU, most, gib * GIB)
    assert (found.num, found.num_threads) == expected
    assert f"{expected[0]} worker" in found.about and "on the CPU" in found.about
    assert f"about {gib}.0 GiB, and 64.0 GiB of memory are free" in found.about


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_number_of_workers_changes_no_threads(
    machine: pytest.MonkeyPatch, workers: int
) -> None:
    found = find_room(settings(workers), CPU, 4, GIB)
    assert (found.num, found.num_threads) == (workers, 4)


@pytest.mark.parametrize(
    ("most", "gib", "num"), [(3, 8, 3), (100, 8, 16), (100, 30, 4), (9, 99, 2)]
)
def test_gpus_are_shared_as_their_memory_allows(
    machine: pytest.MonkeyPatch, most: int, gib: int, num: int
) -> None:
    found = find_room(settings(), GPU, most, gib * GIB)
    assert (found.num, found.num_threads, found.gpus) == (num, 16 // num, ("3", "GPU-5"))
    assert found.about.startswith(f"{num} workers on 2 GPUs")
    one = find_room(settings(), Compute(torch.device("cuda:1"), True), most, gib * GIB)
    assert one.num == min(most, max(1, min(8, int(64 / gib)))) and one.gpus == ()


def test_a_search_has_no_more_workers_than_proposals() -> None:
    assert SearchSettings(batch_size=4, rounds_ahead=2).most_at_a_time == 12


def test_memory_of_a_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    whole = free_memory()
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    assert free_memory() == pytest.approx(whole, rel=0.2)
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 900\ninactive_file 1500\nactive_file 500\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() == pytest.approx(whole, rel=0.2)
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory() == 4000
    for strange in ("", "\nactive_file 5\n", "active_file\n", "active_file x\ninactive_file 1\n"):
        (tmp_path / "memory.stat").write_text(strange)
        assert free_memory() == pytest.approx(whole, rel=0.2)


def test_cores_of_a_container_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64))
    assert num_cores() == 64
    for text, cores in {
        "max 100000\n": 64,
        "400000 100000\n": 4,
        "150000 100000\n": 1,
        "50000 100000\n": 1,
        "9900000 100000\n": 64,
        "": 64,
        "400000\n": 64,
        "x y\n": 64,
        "400000 0\n": 64,
    }.items():
        (tmp_path / "cpu.max").write_text(text)
        assert num_cores() == cores, text


def test_a_larger_batch_takes_more() -> None:
    small, large = (
        training_bytes(
            Settings().model_copy(
                update={"train": Settings().train.model_copy(update={"batch_size": size})}
            )
        )
        for size in (4, 8)
    )
    assert GIB < small < large < 2 * small
