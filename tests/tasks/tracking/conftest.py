"""A real MLflow store on SQLite for each test."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nas_core.base.seeds import seeded
from nas_core.models.checkpoint import NetworkCard, save_segmenter
from nas_core.space.architectures import ARCHITECTURES
from tasks.tracking.store import tracking_uri
from tasks.tracking.tracker import Tracker

CARD = NetworkCard(
    ARCHITECTURES["arch0"], ("road", "sky", "tree"), ((128, 64, 128), (0, 0, 255), (0, 99, 0)), 8, 1
)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_segmenter(path, seeded(0, CARD.build).eval(), CARD)
    return path


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing may depend on the environment or land in the current folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.fixture
def root(tmp_path: Path, empty_store: Callable[[Path], None]) -> Path:
    """A project's folder with an empty store."""
    root = tmp_path / "project"
    (root / "artifacts").mkdir(parents=True)
    empty_store(root / "artifacts" / "mlflow.db")
    return root


@pytest.fixture
def tracker(root: Path) -> Tracker:
    return Tracker(tracking_uri("", root), "camvid", {"commit": "c0ffee", "seed": "0"}, root)
