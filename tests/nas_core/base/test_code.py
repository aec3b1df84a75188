"""What results depend on is found, all of it, and nothing else."""

import ast
import gc
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nas_core.base import code
from nas_core.base.code import PLUMBING, PREPARING, PROXY, SEARCH, TRAINING, imported, meanings

ROOT = Path(__file__).parents[3]
ENTRIES = (SEARCH, TRAINING, PROXY, PREPARING)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the library's code, whose digests are taken in place of the library's."""
    shutil.copytree(ROOT / "nas_core", tmp_path / "nas_core")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    return tmp_path


def digests() -> dict[str, dict[str, str]]:
    meanings.cache_clear()
    return {entry: meanings((entry,)) for entry in ENTRIES}


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    meanings.cache_clear()


@pytest.fixture(scope="module")
def before() -> dict[str, dict[str, str]]:
    """The library's own."""
    return digests()


def file(root: Path, module: str) -> Path:
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.fixture(scope="module")
def loaded_by() -> dict[str, list[str]]:
    """What each entry loads, as Python says it: in forks of a process with torch."""
    program = (
        "import importlib, os, sys, torch, torchvision, pandas\n"
        "for entry in sys.argv[1:]:\n"
        "    if not (child := os.fork()):\n"
        "        importlib.import_module(entry)\n"
        "        own = [n for n in sys.modules if n.split('.')[0] == 'nas_core']\n"
        "        print(entry, *own, flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    command = [sys.executable, "-c", program, *ENTRIES]
    output = subprocess.check_output(command, text=True, cwd=ROOT)
    return {entry: loaded for entry, *loaded in map(str.split, output.splitlines())}


@pytest.mark.parametrize("entry", ENTRIES)
def test_all_that_is_loaded_is_found(entry: str, loaded_by: dict[str, list[str]]) -> None:
    """What functions import later is found besides."""
    loaded = loaded_by[entry]
    assert len(loaded) > 10
    assert set(loaded) <= imported((entry,))


def test_a_module_that_only_a_function_imports_is_found() -> None:
    assert "nas_core.search.evolution" in meanings((SEARCH,))


def test_every_module_counts(before: dict[str, dict[str, str]], copy: Path) -> None:
    modules = {name for found in before.values() for name in found if file(copy, name).exists()}
    for module in modules:
        path = file(copy, module)
        path.write_text(path.read_text() + "\nADDED = 1\n")
    after = digests()
    for entry, found in before.items():
        assert found.keys() == after[entry].keys()
        assert {name for name in found if found[name] != after[entry][name]} == modules & {*found}


def test_comments_docstrings_and_layout_do_not_count(
    before: dict[str, dict[str, str]], copy: Path
) -> None:
    for module in {name for found in before.values() for name in found}:
        path = file(copy, module)
        if path.exists():
            text = path.read_text().replace('"""', '"""Another text. ', 1)
            path.write_text(f"# A comment.\n\n{text}\n\n# And one more.\n")
    assert digests() == before


def test_one_operation_changes_what_uses_it_and_nothing_else(
    before: dict[str, dict[str, str]], copy: Path
) -> None:
    path = file(copy, "nas_core.models.operations")
    path.write_text(path.read_text() + "\nADDED = 1\n")
    changed = {entry for entry, found in digests().items() if found != before[entry]}
    assert changed == {SEARCH, TRAINING, PROXY}


@pytest.mark.parametrize(
    ("module", "changed"),
    [
        ("nas_core.data.folder", {PREPARING}),
        ("nas_core.data.images", {PREPARING}),
        ("nas_core.data.inspection", {PREPARING}),
        ("nas_core.data.transforms", {SEARCH, TRAINING, PROXY}),
        ("nas_core.data.prepared", {SEARCH, TRAINING, PROXY, PREPARING}),
        ("nas_core.data.tiling", {TRAINING, PREPARING}),
        ("nas_core", {SEARCH, TRAINING, PROXY, PREPARING}),
        ("nas_core.search", {SEARCH}),
        ("nas_core.space.decisions", {SEARCH}),
        ("nas_core.search.loop", {SEARCH}),
        ("nas_core.search.evolution", {SEARCH}),
        ("nas_core.training.early_stopping", {SEARCH}),
        ("nas_core.training.full", {TRAINING}),
        ("nas_core.analysis.comparison", set()),
        ("nas_core.training.lifecycle", set()),
        ("nas_core.training.evaluation", set()),
        ("nas_core.workers.local", set()),
        ("nas_core.config", set()),
    ],
)
def test_what_a_change_touches(
    before: dict[str, dict[str, str]], copy: Path, module: str, changed: set[str]
) -> None:
    path = file(copy, module)
    path.write_text(path.read_text() + "\nADDED = 1\n")
    assert {entry for entry, found in digests().items() if found != before[entry]} == changed


def test_plumbing_is_there() -> None:
    assert [module for module in PLUMBING if not file(ROOT, module).exists()] == []


def test_of_the_rooms_that_make_results_nothing_is_plumbing() -> None:
    rooms = {"analysis", "data", "models", "search", "space", "training"}
    left_out = [name for name in PLUMBING if name.split(".")[1] in rooms]
    assert left_out == ["nas_core.search.progress"]  # it is told of candidates, and tells


def test_settings_hold_values_alone() -> None:
    """An identity has the values; what is computed from them is code, and would not count."""
    tree = ast.parse(file(ROOT, "nas_core.config").read_text())
    computed = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and not any("_validator(" in ast.unparse(one) for one in node.decorator_list)
    ]
    assert computed == ["most_at_a_time"]  # how many workers have work


def test_a_meaning_is_the_same_in_each_version_of_python() -> None:
    """Which write one syntax tree in several ways."""
    source = b"""
import a.b as c
from d import *

@one(two, *three, k=None)
async def f(x: int = 1, /, *y: str, z=b"\\x00", **w) -> None:
    with open(f"{x!r:>3} {y['a']} \\"b\\"" "c" f"{y}") as g, h:
        return lambda: [{**w, 1.5: ...}, (), x if not y else -z, (yield)]
    try:
        del x[1:2, ::3]
    except* (E, F) as e:
        raise g from e
    match x:
        case {"k": [A(b=1), *_], **rest} | None if x := 1j:
            global q
"""
    assert code._read(source).meaning == "c3aa3f367c127e82"


def test_several_threads_may_ask() -> None:
    """Also where the garbage collector lets another thread go on in the middle of a module."""

    def pause(*about: object) -> None:
        time.sleep(1e-4)

    before = gc.get_threshold()
    gc.set_threshold(500)
    gc.callbacks.append(pause)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: imported(("nas_core.base.code",)), range(8)))
    finally:
        gc.callbacks.remove(pause)
        gc.set_threshold(*before)
    assert len({*found}) == 1
