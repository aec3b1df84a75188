"""The device and the precision that everything trains and predicts in."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from nas_core.base.errors import SettingsError
from nas_core.config import ComputeSettings

Module = TypeVar("Module", bound=nn.Module)

# Options of glibc's mallopt, from its malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


@dataclass(frozen=True)
class Compute:
    """A device, and bf16 autocast on it or not."""

    device: torch.device
    bf16: bool

    @classmethod
    def from_settings(cls, settings: ComputeSettings) -> Compute:
        """Choose the device and precision, and set the number of CPU threads.

        Raises:
            SettingsError: the device asked for is not there.
        """
        if settings.threads:
            torch.set_num_threads(settings.threads)
        device = torch.device(settings.device if settings.device != "auto" else _best_device())
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise SettingsError(
                f"compute.device = {settings.device!r}: this machine has "
                f"{torch.cuda.device_count()} CUDA devices; set compute.device to auto or cpu"
            )
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise SettingsError(
                "compute.device = 'mps': this machine has no GPU of Apple's, or torch is built "
                "without it; set compute.device to auto or cpu"
            )
        bf16 = settings.precision == "bf16" or (
            settings.precision == "auto" and _computes_bf16(device)
        )
        return cls(device, bf16)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        # Each weight is used once in a pass, and CUDA graphs do not go with the cache.
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.bf16, cache_enabled=False
        ):
            yield

    def place(self, module: Module) -> Module:
        """Move a network to the device, in the layout that convolutions are fastest in."""
        return module.to(self.device).to(memory_format=torch.channels_last)

    def send(self, batch: Tensor) -> Tensor:
        """A batch in memory, on the device. A GPU copies it while the CPU goes on."""
        if self.device.type != "cuda" or batch.is_cuda:
            return batch.to(self.device)
        return batch.pin_memory().to(self.device, non_blocking=True)

    def describe(self) -> str:
        """The device in words, for the record: `cuda: NVIDIA ..., bf16`."""
        name = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else f"{platform.machine()}, {torch.get_num_threads()} threads"
        )
        return f"{self.device.type}: {name}, {'bf16' if self.bf16 else 'fp32'}"


def keep_freed_memory() -> None:
    """From now on malloc keeps what this process frees, for its next tensors; only glibc's does.

    Blocks of 32 MiB and more, as the activations of a full training are, go back to the system
    otherwise, which clears their pages each time that it hands them out. `benchmarks/malloc.py`
    measures what that takes.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(index) for index in range(torch.cuda.device_count())]
    return [name.strip() for name in listed.split(",") if name.strip()]


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _computes_bf16(device: torch.device) -> bool:
    """Whether bf16 has instructions of its own there; emulated, it is slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    capability = torch.cpu.get_capabilities()
    return bool(capability.get("avx512_bf16") or capability.get("amx_bf16"))
