"""State dicts as values, and as files of torch.save."""

from __future__ import annotations

import hashlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from nas_core.errors import WeightsError, first_line
from nas_core.files import check_regular

# What torch.load, zipfile and safetensors raise for damaged files, beside OSError.
DAMAGED = (
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    SafetensorError,
)


def state_digest(state: Mapping[str, Tensor] | None) -> str:
    """Hexadecimal SHA-256 over names, types, shapes and bytes of tensors; "none" for None."""
    if state is None:
        return "none"
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse values that are not finite, batch norm's statistics included.

    Raises:
        WeightsError: there is one. The message begins with `source`.
    """
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"{source}: {name} has values that are not finite")


def load_plain(path: Path) -> Any:
    """Tensors and plain values from a file of torch.save; nothing in it is executed.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is damaged or of another kind; with the reason on one line.
    """
    check_regular(path)
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        # Without a number it is no error of the system: the content made no sense.
        if error.errno is None:
            raise ValueError(first_line(error)) from None
        raise
    except DAMAGED as error:
        raise ValueError(first_line(error)) from None


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        # torch.save compresses nothing, so a small file that claims much is a bomb.
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("it claims to hold more than it has bytes")
        # torch.load does not look at the checksums.
        if damaged := archive.testzip():
            raise ValueError(f"wrong checksum of {damaged}")
