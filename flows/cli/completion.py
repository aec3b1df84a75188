"""What a shell offers at the Tab key. No import here takes long: somebody waits at each press."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from nas_core.base.errors import NasError
from nas_core.base.paths import searches_folder, shipped_models
from nas_core.base.project import find_project, project_dir
from nas_core.loading import profiles
from nas_core.space.architectures import ARCHITECTURES

# Those of flows.servers.deployments, which imports Prefect.
DEPLOYED_FLOWS = ("nas-search", "nas-verify")
_MOST = 1000  # of a folder; a shell asks before it shows so many

Completer = Callable[[str], list[str]]


def _in_project(names: Callable[[Path], Iterable[str]]) -> Completer:
    """The names that begin with what is typed; none outside a project."""

    def complete(incomplete: str) -> list[str]:
        try:
            found = sorted({*names(project_dir())})
        except (NasError, OSError):
            return []
        return [name for name in found if name.startswith(incomplete)][:_MOST]

    return complete


def _with_files(names: Completer, suffix: str) -> Completer:
    """Files with a suffix, and the folders on the way, after the names."""

    def complete(incomplete: str) -> list[str]:
        above, slash, _ = incomplete.rpartition("/")
        typed = above + slash
        try:
            with os.scandir(Path(typed or ".").expanduser()) as entries:
                there = sorted(
                    f"{typed}{entry.name}{'/' if entry.is_dir() else ''}"
                    for entry in entries
                    if entry.is_dir() or entry.name.endswith(suffix)
                )
        except OSError:
            there = []
        files = [path for path in there if path.startswith(incomplete)]
        return [*names(incomplete), *(files if incomplete else ())][:_MOST]

    return complete


def _models(incomplete: str) -> list[str]:
    """Those of the project, and of this program."""
    try:
        known = shipped_models(find_project())
    except (NasError, OSError):
        return []
    return [name for name in known if name.startswith(incomplete)]


def _genotypes(root: Path) -> Iterable[str]:
    yield from ARCHITECTURES
    yield from (path.name for path in searches_folder(root).glob("*/candidates/*"))


def _searches(root: Path) -> Iterable[str]:
    return (path.parent.name for path in searches_folder(root).glob("*/journal.jsonl"))


def _deployments(root: Path) -> Iterable[str]:
    return (f"{flow}/{profile}" for flow in DEPLOYED_FLOWS for profile in profiles(root))


profile_names = _in_project(profiles)
search_names = _in_project(_searches)
deployment_names = _in_project(_deployments)
genotype_names = _with_files(_in_project(_genotypes), ".json")
model_names = _with_files(_models, ".safetensors")
