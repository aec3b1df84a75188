import ctypes
import platform

import pytest
import torch

from nas_core.base.errors import SettingsError
from nas_core.config import ComputeSettings
from nas_core.models.compute import Compute, keep_freed_memory, visible_gpus


def test_a_device_that_is_not_there_is_refused() -> None:
    missing = torch.cuda.device_count()
    with pytest.raises(SettingsError, match=f"'cuda:{missing}': this machine has {missing}"):
        Compute.from_settings(ComputeSettings(device=f"cuda:{missing}"))


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is a GPU of Apple's")
def test_a_gpu_of_apples_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="'mps': this machine has no GPU of Apple's"):
        Compute.from_settings(ComputeSettings(device="mps"))


def test_without_glibc_malloc_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("no mallopt is there"))
    keep_freed_memory()


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float)])
def test_autocast_follows_the_precision(precision: str, dtype: torch.dtype) -> None:
    compute = Compute.from_settings(ComputeSettings(device="cpu", precision=precision))
    layer = compute.place(torch.nn.Conv2d(3, 4, 1))
    with compute.autocast():
        assert layer(torch.zeros(1, 3, 2, 2)).dtype == dtype
    assert precision in compute.describe()


def test_the_number_of_threads_is_set() -> None:
    before = torch.get_num_threads()
    try:
        Compute.from_settings(ComputeSettings(device="cpu", threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_is_chosen_where_there_is_one() -> None:
    assert Compute.from_settings(ComputeSettings()).device.type == "cuda"


@pytest.mark.parametrize(
    ("listed", "expected"), [("", []), ("3", ["3"]), ("0, GPU-8f,2", ["0", "GPU-8f", "2"])]
)
def test_visible_gpus_are_those_of_the_environment(
    listed: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == expected


def test_a_batch_sent_to_the_cpu_is_the_same() -> None:
    batch = torch.arange(6.0)
    assert Compute.from_settings(ComputeSettings(device="cpu")).send(batch) is batch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_batch_is_sent_to_the_gpu() -> None:
    batch = torch.arange(6.0)
    sent = Compute.from_settings(ComputeSettings()).send(batch)
    assert sent.device.type == "cuda" and torch.equal(sent.cpu(), batch)
