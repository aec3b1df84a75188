"""A small project whose parts the tests damage."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_core.base.files import write_json
from nas_core.base.seeds import seeded
from nas_core.data import camvid
from nas_core.models.checkpoint import NetworkCard, save_segmenter
from nas_core.search.journal import Header, Journal, Record
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.decisions import sample

ROOT = Path(__file__).resolve().parents[2]


def draw(path: Path, height: int = 24, width: int = 40, seed: int = 0) -> None:
    """An image of noise, or a mask of zeros and ones by the name of its folder."""
    rng = np.random.default_rng(seed)
    if path.parent.name == "masks":
        Image.fromarray(rng.integers(0, 2, (height, width), dtype=np.uint8)).save(path)
    else:
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def own_dataset(folder: Path) -> None:
    """A dataset of five images, divided by dataset.yaml."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for seed, name in enumerate("abcde"):
            draw(folder / kind / f"{name}.png", seed=seed)
    (folder / "dataset.yaml").write_text("classes: [road, sky]\nsplit: {val: 0.2}\n")


@pytest.fixture(scope="session")
def whole_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a search, a finished training, images and a dataset."""
    root = tmp_path_factory.mktemp("whole") / "project"
    root.mkdir()
    shutil.copyfile(ROOT / "params.yaml", root / "params.yaml")
    shutil.copytree(ROOT / "profiles", root / "profiles")
    rng = np.random.default_rng(0)
    journal = root / "artifacts" / "searches" / "small-1234" / "journal.jsonl"
    with Journal.create(journal, Header(format=1, settings={}, identity={})) as opened:
        for index in range(5):
            genotype = sample(rng)
            opened.append(
                Record(
                    index=index,
                    round=0,
                    candidate=index + 1,
                    id=genotype.id,
                    genotype=genotype.to_dict(),
                    status="finished",
                    reward=0.1 * index,
                    num_parameters=1,
                    macs=1,
                    seed=0,
                )
            )
    training = root / "artifacts" / "trainings" / "arch1-0123"
    card = NetworkCard(ARCHITECTURES["arch1"], camvid.CLASSES, camvid.PALETTE, 8, 1)
    network = seeded(1, card.build)
    save_segmenter(training / "model.safetensors", network, card)
    size = {"num_parameters": sum(one.numel() for one in network.parameters())}
    write_json(training / "training.json", TRAINING | size)
    own_dataset(root / "own")
    for name in ("images", "empty"):
        (root / name).mkdir()
    draw(root / "images" / "a.png")
    return root


TRAINING = {
    "label": "arch1",
    "id": ARCHITECTURES["arch1"].id,
    "identity": "0123",
    "num_parameters": 1,
    "macs": 1,
    "seed": 0,
    "splits": "train",
    "device": "cpu",
    "started": 1.0,
    "finished": 2.0,
    "val": {"mean_iou": 0.5},
    "history": [{"epoch": 1, "loss": 1.0}],
}


@pytest.fixture
def project(whole_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder, with a pipe that nobody writes to."""
    root = tmp_path / "project"
    shutil.copytree(whole_project, root)
    os.mkfifo(root / "PIPE")
    monkeypatch.setenv("NAS_PROJECT_DIR", str(root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(root)
    return root
