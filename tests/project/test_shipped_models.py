"""The models in models/: each is whole, agrees with its card, and labels an image."""

from pathlib import Path

import numpy as np
import pytest

from nas_core.analysis.drawing import draw
from nas_core.base.files import file_digest
from nas_core.data import camvid
from nas_core.deploy.predict import Predictor, predict_files
from nas_core.deploy.shipping import ModelCard, render
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training.finding import find_weights

MODELS = Path(__file__).parents[2] / "models"
NAMES = [path.stem for path in sorted(MODELS.glob("*.safetensors"))]


def test_each_named_architecture_is_shipped() -> None:
    assert [f"{name}-camvid" for name in sorted(ARCHITECTURES)] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_agrees_with_its_card(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(MODELS.parent))
    assert find_weights(name) == MODELS / f"{name}.safetensors"
    card = ModelCard.read(MODELS / f"{name}.json")
    assert card.weights.sha256 == file_digest(MODELS / f"{name}.safetensors")
    assert (MODELS / f"{name}.md").read_text() == render(card)
    predictor = Predictor.load(name)
    architecture = name.removesuffix("-camvid")
    assert predictor.card.genotype == ARCHITECTURES[architecture]
    assert predictor.card.classes == tuple(card.classes) == camvid.CLASSES
    found = sum(parameter.numel() for parameter in predictor.segmenter.parameters())
    assert found == card.network.num_parameters < 280_000
    drawing = draw(
        predictor.card.genotype,
        architecture,
        num_classes=len(camvid.CLASSES),
        agg_size=card.network.agg_size,
        sep_repeats=card.network.sep_repeats,
        input_size=(360, 480),
    )
    # After a change of the drawing: nas describe NAME --draw models/NAME-camvid.svg
    assert (MODELS / f"{name}.svg").read_bytes() == drawing
    assert 0.5 < card.test.mean_iou < 1

    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    labels = predictor(image)
    assert labels.shape == (90, 120) and labels.max() < len(camvid.CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_scores_on_real_images_as_its_card_says(
    name: str, camvid_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(MODELS.parent))
    card = ModelCard.read(MODELS / f"{name}.json")
    pictures = sorted((camvid_dir / "test").glob("*.png"))[::24]
    report = predict_files(Predictor.load(name), pictures, tmp_path, camvid_dir / "testannot")
    # The card's figure is of all 233 images, this one of ten.
    assert report.metrics.mean_iou == pytest.approx(card.test.mean_iou, abs=0.1)
