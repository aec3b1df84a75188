"""Who may import whom: flows -> tasks -> nas_core, and only tasks.tracking knows MLflow."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A part of the tree (the most specific one counts), and what it must not import.
FORBIDDEN = {
    "nas_core": {"tasks", "flows", "prefect", "mlflow", "dvc"},
    "tasks": {"flows", "mlflow", "dvc"},
    "tasks.tracking": {"flows", "prefect", "dvc"},
    "flows": {"mlflow", "dvc"},
}


def sources(root: Path) -> list[Path]:
    return sorted(p for part in ("nas_core", "tasks", "flows") for p in (root / part).rglob("*.py"))


def imported(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that a file imports, wherever it does so."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield node.lineno, ".".join([*base, *filter(None, [node.module])])
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def violations(root: Path) -> list[str]:
    found = []
    for path in sources(root):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        part = max((p for p in FORBIDDEN if f"{module}.".startswith(f"{p}.")), key=len)
        found += [
            f"{path.relative_to(root)}:{line} imports {name}"
            for line, name in imported(path, root)
            if name.partition(".")[0] in FORBIDDEN[part]
        ]
    return found


def test_every_layer_imports_only_those_below() -> None:
    assert len(sources(ROOT)) > 40
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "seen"),
    [
        ("nas_core/models/bad.py", "import prefect", "prefect"),
        ("nas_core/bad.py", "import numpy, mlflow.pytorch as m", "mlflow.pytorch"),
        ("nas_core/bad.py", "def f():\n    from dvc.repo import Repo", "dvc.repo"),
        ("nas_core/models/bad.py", "from ...tasks import dataset", "tasks"),
        ("nas_core/bad.py", "import importlib; importlib.import_module('mlflow')", "mlflow"),
        ("tasks/bad.py", "from flows.context import Context", "flows.context"),
        ("tasks/bad.py", "from mlflow import MlflowClient", "mlflow"),
        ("flows/bad.py", "try:\n    import mlflow\nexcept ImportError: pass", "mlflow"),
    ],
)
def test_a_forbidden_import_is_seen(tmp_path: Path, file: str, line: str, seen: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line)
    (found,) = violations(tmp_path)
    assert found.startswith(file)
    assert found.endswith(f"imports {seen}")


def test_what_is_allowed_is_no_violation(tmp_path: Path) -> None:
    (tmp_path / "tasks" / "tracking").mkdir(parents=True)
    (tmp_path / "tasks" / "tracking" / "store.py").write_text(
        "import mlflow\nimport nas_core.base.files"
    )
    (tmp_path / "tasks" / "tracking_of_others.py").write_text("from prefect import task")
    assert violations(tmp_path) == []


def test_a_class_has_a_name_of_its_own() -> None:
    """But for private ones."""
    names = Counter(
        node.name
        for path in sources(ROOT)
        for node in ast.parse(path.read_bytes()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, number in names.items() if number > 1] == []


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        ("nas_core.analysis.leaderboard, tasks.results", {"torch", "prefect", "mlflow"}),
        ("flows.servers.services", {"torch", "mlflow"}),
        ("tasks.tracking.store", {"torch", "prefect"}),
    ],
    ids=["nas leaderboard", "nas up and down", "the store of nas up"],
)
def test_commands_that_compute_nothing_do_not_wait_for_torch(
    modules: str, without: set[str]
) -> None:
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert without & set(done.stdout.split()) == set()


# Programs of their own, which take options themselves.
PROGRAMS = {"nas_core/deploy/measure.py", "nas_core/search/measuring.py"}
COMMAND = re.compile(r"`[^`]*`")
OPTION = re.compile(r"(^|[\s(])--[a-z]")


def test_the_library_names_no_options_of_commands() -> None:
    """Whoever calls it from Python has none; whole commands may be shown."""
    found = []
    for path in sources(ROOT):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("nas_core/") or name in PROGRAMS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        described = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        found += [
            f"{name}:{node.lineno} {node.value!r}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and node not in described
            and isinstance(node.value, str)
            and OPTION.search(COMMAND.sub("", node.value))
        ]
    assert found == []


def test_a_module_has_a_name_of_its_own() -> None:
    counts = Counter(path.name for path in sources(ROOT) if path.name != "__init__.py")
    assert [name for name, number in counts.items() if number > 1] == []
