"""Random numbers that depend on a seed and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import torch

Built = TypeVar("Built")


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2^31) for one use, the same in every process and on every machine."""
    text = ":".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def seeded(seed: int, build: Callable[[], Built]) -> Built:
    """Build a module whose initial weights come from `seed`; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
