"""A project to search in."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "project")
