"""The links of the documents, and the places that they name."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def listed(pattern: str) -> list[str]:
    command = ["git", "ls-files", pattern]
    return subprocess.check_output(command, cwd=ROOT, text=True).split()


LISTED, CODE = listed("*.md"), listed("*.py")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# `one` and `another` in `the/file.py`, or of it
PLACED = re.compile(r"((?:`[\w.]+`(?:, | and )?)+) (?:in|of) `([\w/]+\.py)`")


def anchors(path: Path) -> set[str]:
    """Those of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    words = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in words}


@pytest.mark.parametrize("name", LISTED)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        path = (ROOT / name).parent / place if place else ROOT / name
        assert path.exists(), f"{name}: {link}"
        if anchor:
            assert anchor in anchors(path), f"{name}: {link}"


def files(name: str) -> list[str]:
    """The files that a document may mean by a path."""
    return [path for path in CODE if f"/{path}".endswith(f"/{name.lstrip('/')}")]


@cache
def defined(path: str) -> set[str]:
    """What a module defines, methods with the names of their classes."""
    names = set()
    for node in ast.parse((ROOT / path).read_bytes()).body:
        if isinstance(node, ast.ClassDef):
            inner = (one for one in node.body if isinstance(one, ast.FunctionDef))
            names |= {node.name, *(f"{node.name}.{one.name}" for one in inner)}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {one.id for one in node.targets if isinstance(one, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@pytest.mark.parametrize("name", [name for name in LISTED if name != "CHANGELOG.md"])
def test_what_is_named_is_where_the_page_says(name: str) -> None:
    text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
    for path in re.findall(r"[\w/]+\.py\b", text):
        assert files(path), f"{name}: {path}"
    for there, path in PLACED.findall(text):
        known = set().union(*map(defined, files(path)))
        for one in re.findall(r"`([\w.]+)`", there):
            assert one == "Field" or one in known, f"{name}: {one} in {path}"
    known = set().union(*(defined(path) for path in CODE if not path.startswith("tests/")))
    for one in re.findall(r"\b[A-Z][a-z]\w*\.[a-z]\w+\b", text):
        assert one in known or one.endswith((".md", ".txt")), f"{name}: {one}"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
