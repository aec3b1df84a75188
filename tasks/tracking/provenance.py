"""Tags that say what a run was made from."""

from __future__ import annotations

import logging
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from shlex import quote

from nas_core.base.errors import first_line
from nas_core.base.git import git

# What git says where there is nothing wrong.
_NO_COMMIT = ("not a git repository", "Needed a single revision")

PACKAGES = ("torch", "torchvision", "prefect", "mlflow", "dvc", "numpy")


def provenance_tags(
    root: Path, *, profile: str, data_hash: str, seed: int, device: str, source: str
) -> dict[str, str]:
    """Commit, data hash, seed, device, profile and the versions of Python and the packages.

    Args:
        source: what makes the run, as the name of a flow.
    """
    commit = git_commit(root)
    return {
        "commit": commit,
        # The columns "Version" and "Source" of MLflow's page.
        "mlflow.source.git.commit": commit,
        "mlflow.source.name": source,
        "mlflow.source.type": "PROJECT",
        "data_hash": data_hash,
        "seed": str(seed),
        "device": device,
        "profile": profile,
        "version.python": platform.python_version(),
        **{f"version.{package}": version(package) for package in PACKAGES},
    }


def git_commit(root: Path) -> str:
    """HEAD of the checkout at `root`, with `-dirty` if a tracked file differs from it.

    dvc.lock at `root` does not count: DVC changes it while its stages run.
    "unknown" where there is no git, no checkout or no commit, with the reason if git refuses; then
    a warning says what to do, once in a process.
    """
    try:
        head = _git(root, "rev-parse", "--verify", "HEAD")
        but_lock = ("--", ":/", ":(exclude)dvc.lock")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", *but_lock)
    except OSError:
        return "unknown"
    except subprocess.CalledProcessError as error:
        reason = first_line(error.stderr)
        if any(usual in reason for usual in _NO_COMMIT):
            return "unknown"
        _warn(f"the commit is recorded as unknown, for git says of {root}: {_advice(reason, root)}")
        # Without paths: models are handed on with it.
        told = reason.removeprefix("fatal: ").partition(" in repository")[0].partition("'")[0]
        return f"unknown ({told.strip()})"
    return f"{head}-dirty" if changes else head


def _git(root: Path, *arguments: str) -> str:
    process = git(root, *arguments)
    process.check_returncode()
    return process.stdout.strip()


def _advice(reason: str, root: Path) -> str:
    if "dubious ownership" not in reason:
        return reason
    command = f"git config --global --add safe.directory {quote(str(root))}"
    return f"{reason}; if you trust it, run: {command}"


@lru_cache
def _warn(message: str) -> None:
    logging.getLogger(__name__).warning(message)
