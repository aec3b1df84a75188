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
SHORT = (
    "search.num_candidates=4",
    "search.batch_size=2",
    "search.proxy.epochs_b=0",
    "search.proxy.agg_size=8",
    "search.evolution.population_size=2",
    "search.evolution.sample_size=2",
    "network.agg_size=8",
    "runner.workers=1",
    "compute.threads=1",
)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The project is set up; these are the options with which a benchmark takes it."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    return ["-p", "synthetic", *set_options(*SMALL)]


@pytest.fixture
def small_search(small: list[str]) -> list[str]:
    """With the options of a search of four networks, too."""
    return [*small, *set_options(*SHORT)]


def set_options(*settings: str) -> list[str]:
    """Options by which a command takes these settings."""
    return [part for setting in settings for part in ("-S", setting)]
