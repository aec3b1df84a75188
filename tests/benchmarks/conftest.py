"""A project for the benchmarks that train, on small synthetic scenes."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "dataset.synthetic.num_train=10",
    "dataset.synthetic.num_val=2",
    "dataset.synthetic.num_test=2",
    "dataset.synthetic.height=48",
    "dataset.synthetic.width=64",
    "search.proxy.height=48",
    "search.proxy.width=64",
    "search.proxy.epochs_a=1",
    "encoder.weights=none",
    "compute.precision=fp32",
)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The project is set up; these are the options with which a benchmark takes it."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    return ["-p", "synthetic", *(part for setting in SMALL for part in ("-S", setting))]
