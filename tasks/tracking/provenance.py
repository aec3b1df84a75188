"""Tags that say what a run was made from."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "prefect", "mlflow", "dvc", "numpy")


def provenance_tags(
    root: Path, *, profile: str, data_hash: str, seed: int, device: str
) -> dict[str, str]:
    """Commit, data hash, seed, device, profile and the versions of Python and the packages."""
    commit = git_commit(root)
    return {
        "commit": commit,
        "mlflow.source.git.commit": commit,  # the column "Version" of MLflow's page
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
    "unknown" where there is no git, no checkout or no commit.
    """
    head = _git(root, "rev-parse", "HEAD")
    if not head:
        return "unknown"
    but_lock = ("--", ":/", ":(exclude)dvc.lock")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", *but_lock)
    return f"{head}-dirty" if changes else head


def _git(root: Path, *arguments: str) -> str:
    try:
        process = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return process.stdout.strip() if process.returncode == 0 else ""
