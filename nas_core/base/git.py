"""Git, as it finds a folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# Set in hooks and aliases of git: with them it would speak of another repository. As
# `git rev-parse --local-env-vars` lists them, without those that are of its settings.
_OF_A_REPOSITORY = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
}


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What git says in `folder`, in English.

    Raises:
        OSError: there is no git that can be run.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _OF_A_REPOSITORY}
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        env={**environment, "LC_ALL": "C"},
        check=False,
    )
