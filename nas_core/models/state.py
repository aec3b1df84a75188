"""State dicts as values, and as files of torch.save."""

from __future__ import annotations

import hashlib
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from nas_core.base.errors import WeightsError, first_line, shown
from nas_core.base.files import check_regular

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

# What weights are handed on in, for networks that compute in float32.
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_tensor(
    name: str, found: Any, wanted: Tensor, dtypes: Collection[torch.dtype] = ()
) -> None:
    """See that `found` can take the place of the parameter or buffer `wanted`.

    Args:
        dtypes: what `found` may be of; the type of `wanted` if empty.

    Raises:
        ValueError: it is no tensor, is not dense or not in memory, is of another type or shape, or
            has values that are not finite in the type of `wanted`, or variances below 0.
    """
    dtypes = dtypes or (wanted.dtype,)
    if _kind(found) != "" or found.dtype not in dtypes or found.shape != wanted.shape:
        types = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(
            f"{shown(name)[1:-1]} is {_described(found)}, expected {types} {list(wanted.shape)}"
        )
    if not (found.isfinite().all() and found.to(wanted.dtype).isfinite().all()):
        raise ValueError(f"{name} has values that are not finite")
    if name.endswith("running_var") and (found < 0).any():
        raise ValueError(f"{name} has negative values, and it is of variances")


def _kind(found: Any) -> str:
    """What makes it no dense tensor in memory, in words; empty if it is one."""
    if not isinstance(found, Tensor):
        return type(found).__name__
    if found.is_nested:
        return "a nested tensor"
    if found.layout is not torch.strided:
        return f"a tensor of layout {found.layout}"
    return "a tensor without values" if found.is_meta else ""


def _described(found: Any) -> str:
    return _kind(found) or f"{found.dtype} {list(found.shape)}"


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
        try:
            check_tensor(name, tensor, tensor)
        except ValueError as error:
            raise WeightsError(f"{source}: {error}") from None


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
        with warnings.catch_warnings():
            # Of kinds of tensors that are refused afterwards.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        # Without a number it is no error of the system: the content made no sense.
        if error.errno is None:
            raise ValueError(first_line(error)) from None
        raise
    except DAMAGED as error:
        # torch advises to load without a check, which would execute what the file says.
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
            reason = "no file of torch.save with tensors and plain values alone"
            raise ValueError(reason) from None
        raise ValueError(first_line(error)) from None


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        # torch.save compresses nothing, so a small file that claims much is a bomb.
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("it claims to hold more than it has bytes")
        # torch.load does not look at the checksums.
        if damaged := archive.testzip():
            raise ValueError(f"wrong checksum of {damaged}")
