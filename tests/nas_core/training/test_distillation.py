import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nas_core.base.errors import RunError, SettingsError, WeightsError
from nas_core.config import NetworkSettings, TrainSettings
from nas_core.data.prepared import PreparedData
from nas_core.data.transforms import normalise
from nas_core.models.checkpoint import NetworkCard, save_segmenter
from nas_core.models.compute import Compute
from nas_core.models.cost import form_of
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training.distillation import distillation_loss, load_teacher
from nas_core.training.full import FullResult, train_fully
from nas_core.training.full_task import FullTask

ARCH0 = ARCHITECTURES["arch0"]
NETWORK = NetworkSettings(agg_size=16, sep_repeats=1)
SETTINGS = TrainSettings(
    epochs=4, batch_size=6, crop_height=32, crop_width=48, warmup_steps=2, averaging=0.5
)
IGNORED = 255


def _teacher(data: PreparedData) -> Segmenter:
    torch.manual_seed(7)
    return Segmenter.build(ARCH0, **form_of(NETWORK, data.num_classes)).eval()


def _train(
    data: PreparedData, compute: Compute, checkpoint: Path, teacher: Segmenter | None, epochs: int
) -> FullResult:
    settings = SETTINGS.model_copy(update={"epochs": epochs})
    task = FullTask(data, None, NETWORK, settings, compute, teacher)
    return train_fully(task, ARCH0, seed=1, checkpoint=checkpoint)


def test_the_divergence_is_that_of_the_classes() -> None:
    shares = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
    taught, logits = (share.log().view(1, 2, 1, 1).expand(1, 2, 2, 2) for share in shares)
    masks = torch.zeros((1, 2, 2), dtype=torch.int64)
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert float(distillation_loss(logits, taught, masks, IGNORED)) == pytest.approx(expected)
    assert float(distillation_loss(taught + 3, taught, masks, IGNORED)) == pytest.approx(
        0, abs=1e-6
    )


def test_what_is_void_is_not_taught() -> None:
    logits = torch.randn((1, 3, 2, 2), requires_grad=True)
    taught, masks = torch.randn((1, 3, 2, 2)), torch.zeros((1, 2, 2), dtype=torch.int64)
    masks[0, 0] = IGNORED
    distillation_loss(logits, taught, masks, IGNORED).backward()
    gradient = logits.grad
    assert gradient is not None
    assert not gradient[:, :, 0].any() and gradient[:, :, 1].all()
    nothing = distillation_loss(logits, taught, torch.full_like(masks, IGNORED), IGNORED)
    assert nothing.item() == 0


def test_a_network_comes_nearer_to_its_teacher(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    teacher = _teacher(scenes)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    images = normalise(scenes.split("val").images[0][None])

    def away(network: Segmenter) -> float:
        with torch.no_grad():
            logits: list[Tensor] = [one(images) for one in (network, teacher)]
        return float(F.mse_loss(*(one.softmax(1) for one in logits)))

    taught = _train(scenes, compute, tmp_path / "taught.pt", teacher, 4)
    alone = _train(scenes, compute, tmp_path / "alone.pt", None, 4)
    assert away(taught.segmenter) < away(alone.segmenter)
    assert taught.history[0]["loss"] > alone.history[0]["loss"]
    assert all(value.equal(before[name]) for name, value in teacher.state_dict().items())


def test_another_teacher_is_another_training(
    scenes: PreparedData, compute: Compute, tmp_path: Path
) -> None:
    _train(scenes, compute, tmp_path / "c.pt", _teacher(scenes), 1)
    with pytest.raises(RunError, match="made with other settings"):
        _train(scenes, compute, tmp_path / "c.pt", None, 1)


def _written(data: PreparedData, path: Path, classes: tuple[str, ...]) -> None:
    network = _teacher(data)
    card = NetworkCard(ARCH0, classes, ((1, 2, 3),) * len(classes), NETWORK.agg_size, 1)
    save_segmenter(path, network, card)


def test_a_teacher_is_found_from_the_project(scenes: PreparedData, tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    _written(scenes, tmp_path / "training" / "model.safetensors", tuple(scenes.classes))
    settings = TrainSettings(teacher="training")
    teacher = load_teacher(settings, tmp_path, scenes.classes)
    assert teacher is not None
    found, state = teacher.state_dict(), _teacher(scenes).state_dict()
    assert all(found[name].equal(value) for name, value in state.items())
    assert load_teacher(TrainSettings(), tmp_path, scenes.classes) is None


def test_a_teacher_of_other_classes_is_refused(scenes: PreparedData, tmp_path: Path) -> None:
    others = ("sky", *(f"other{number}" for number in range(scenes.num_classes - 1)))
    _written(scenes, tmp_path / "t.safetensors", others)
    with pytest.raises(SettingsError, match=r"train\.teacher = 't\.safetensors': it labels sky, o"):
        load_teacher(TrainSettings(teacher="t.safetensors"), tmp_path, scenes.classes)


def test_a_teacher_that_is_not_there_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"train\.teacher: unknown model 'nobody': there are"):
        load_teacher(TrainSettings(teacher="nobody"), tmp_path)
