"""What results depend on: the code that makes them, found from its imports.

So results of one code are not taken for another's. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nas_core.base.files import digest_of

# The modules that make each kind of result.
SEARCH = "nas_core.search.loop"
TRAINING = "nas_core.training.full"
PROXY = "nas_core.training.proxy"
# Prepared data counts by what it holds, see `PreparedData.content_hash`.
PREPARING = "nas_core.data.preparing"

ROOT = Path(__file__).resolve().parents[2]
# Python 3.11 fails with a SystemError where two threads parse at the same time.
_PARSING = threading.Lock()
PACKAGES = frozenset({"nas_core", "tasks", "flows"})
# What decides where and how things are written or carried out, and no result.
PLUMBING = frozenset(
    {
        "flows.context",
        "flows.run_logs",
        "flows.servers.orphans",
        "flows.signals",
        "nas_core.base.addresses",
        "nas_core.base.closing",
        "nas_core.base.code",
        "nas_core.base.documents",
        "nas_core.base.errors",
        "nas_core.base.files",
        "nas_core.base.letters",
        "nas_core.base.locks",
        "nas_core.base.logs",
        "nas_core.base.paths",
        "nas_core.base.problems",
        "nas_core.base.project",
        "nas_core.base.setting_types",
        "nas_core.config",
        "nas_core.loading",
        "nas_core.workers.ray_cluster",
        "nas_core.search.progress",
        "nas_core.workers.local",
        "nas_core.workers.mps",
        "nas_core.workers.room",
        "nas_core.base.yaml_files",
        "tasks.search_log",
        "tasks.tracking.registry",
        "tasks.tracking.provenance",
        "tasks.tracking.store",
        "tasks.tracking.tracker",
    }
)


def code_digest(entry: str) -> str:
    """A digest of the code that decides what a module makes."""
    return digest_of(meanings((entry,)))


@cache
def meanings(entries: Sequence[str], without: frozenset[str] = frozenset()) -> dict[str, str]:
    """A digest of the code of each module that decides what `entries` make, by its name.

    Those are the modules that they import, in functions too, and that these import, without
    `PLUMBING` and what only prepared data depends on: of the modules that prepare data those
    count that are used here as well, and not what these import.

    Args:
        without: further modules that do not count.
    """
    is_prepared = PREPARING in entries
    ends = frozenset[str]() if is_prepared else imported((PREPARING,), PLUMBING)
    found = _modules(entries, PLUMBING | without, ends)
    return {name: one.meaning for name, one in sorted(found.items())}


def imported(entries: Sequence[str], left_out: Collection[str] = frozenset()) -> frozenset[str]:
    """The modules of this project that these import, directly or not, with their packages.

    Args:
        left_out: not followed.
    """
    return frozenset(_modules(entries, left_out))


@dataclass(frozen=True)
class _Module:
    """What counts of a module.

    Attributes:
        names: what it imports of this project: modules, or what is in them.
        meaning: a digest of its syntax tree.
    """

    names: tuple[str, ...]
    meaning: str


def _modules(
    entries: Sequence[str], left_out: Collection[str], ends: Collection[str] = ()
) -> dict[str, _Module]:
    """See `imported`: the modules by name; what `ends` import does not count."""
    found: dict[str, _Module] = {}
    waiting = list(entries)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in left_out:
            found[name] = _read(_file(name).read_bytes())
            waiting += [one for one in _packages(name) if _file(one).is_file()]
            if name not in ends:
                waiting += [one for one in found[name].names if _file(one).is_file()]
    return found


def _packages(name: str) -> Iterator[str]:
    """Those that Python loads before a module."""
    package = name.rpartition(".")[0]
    while package:
        yield package
        package = package.rpartition(".")[0]


@cache
def _read(source: bytes) -> _Module:
    """Once for each module: most are below several entries, and reading takes a second in all."""
    with _PARSING:
        tree = ast.parse(source)
    names = tuple(name for name in _imports(tree) if name.split(".")[0] in PACKAGES)
    text = repr(_plain(_WithoutTexts().visit(tree)))
    return _Module(names, hashlib.sha256(text.encode()).hexdigest()[:16])


def _plain(node: Any) -> Any:
    """A tree as tuples. What is not there is left out: each version of Python adds to nodes.

    `ast.unparse` and `ast.dump` write one tree in several ways, by that version.
    """
    if isinstance(node, ast.AST):
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node))
        return type(node).__name__, *(field for field in fields if field[1] not in (None, ()))
    if isinstance(node, list):
        return tuple(map(_plain, node))
    return node


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)
            # A name may be that of a module, or of something in it.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _file(name: str) -> Path:
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


class _WithoutTexts(ast.NodeTransformer):
    """Takes docstrings, and texts below attributes, out of a tree."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)
