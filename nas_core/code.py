"""Digests of this package's source, so that results of one code are not taken for another's."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from nas_core.files import digest_of, file_digest

_SHARED = (
    "compute.py",
    "data/transforms.py",
    "genotype.py",
    "metrics.py",
    "models",
    "seeds.py",
    "training/averaging.py",
    "training/losses.py",
    "training/steps.py",
)

# What decides the outcome; the stages search and train of dvc.yaml depend on it too.
SEARCH = (
    *_SHARED,
    "latency.py",
    "search",
    "space.py",
    "training/early_stopping.py",
    "training/proxy.py",
)
TRAINING = (*_SHARED, "labelling.py", "training/compiling.py", "training/full.py")
# What decides the reward of an architecture that no rule stops early.
PROXY = (*_SHARED, "training/proxy.py")


@cache
def code_digest(parts: tuple[str, ...]) -> str:
    """A digest of files and folders of nas_core, named relative to it."""
    package = Path(__file__).resolve().parent
    paths = [package / part for part in parts]
    files = sorted(f for path in paths for f in ([path] if path.is_file() else path.rglob("*.py")))
    return digest_of([[str(file.relative_to(package)), file_digest(file)] for file in files])
