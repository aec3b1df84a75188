"""Encoders beside MobileNetV2: what they are, what they cost, and a search on one."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import get_model

from nas_core.base.errors import SettingsError, WeightsError
from nas_core.base.paths import prepared_folder
from nas_core.base.seeds import seeded
from nas_core.config import Settings
from nas_core.data.preparing import prepare
from nas_core.deploy import export
from nas_core.deploy.predict import Predictor
from nas_core.loading import validate_settings
from nas_core.models.checkpoint import NetworkCard, load_segmenter, save_segmenter
from nas_core.models.cost import count_parameters, encoder_cost, measure_cost
from nas_core.models.encoder import TAP_STRIDES, Encoder, load_encoder_weights
from nas_core.models.segmenter import Segmenter
from nas_core.search.loop import Search
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.genotype import Genotype
from nas_core.training.side_by_side import evaluate, train
from nas_core.workers.local import InProcessWorkers
from tests.tiny import tiny

pytestmark = pytest.mark.usefixtures("one_thread")

TORCHVISION = {
    "mobilenet_v3_small": (16, 24),
    "mobilenet_v3_large": (24, 40),
    "efficientnet_b0": (24, 40),
}
SMALL = "mobilenet_v3_small_x0.5"
OF_TIMM = "timm/mobilenetv3_small_050"
FORM = {"num_classes": 3, "agg_size": 8, "sep_repeats": 1}


def blocks_of(name: str, taps: tuple[Tensor, Tensor], images: Tensor, whole: nn.Module) -> None:
    """Each tap is what the last block of torchvision's at its stride gives."""
    found = {}
    features = images
    for block in whole.features:
        features = block(features)
        for stride in TAP_STRIDES:
            if features.shape[3] == images.shape[3] // stride:
                found[stride] = features
    for stride, tap in zip(TAP_STRIDES, taps, strict=True):
        torch.testing.assert_close(tap, found[stride], msg=name)


@pytest.mark.parametrize(("name", "channels"), TORCHVISION.items())
def test_those_of_torchvision_give_its_last_features_at_each_stride(
    name: str, channels: tuple[int, int]
) -> None:
    whole = get_model(name, weights=None).eval()
    encoder = Encoder(name).eval()
    state = whole.state_dict()
    encoder.load_state_dict({key: state[key] for key in encoder.state_dict()})
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        blocks_of(name, encoder(images), images, whole)
    assert encoder.tap_channels == channels


@pytest.mark.parametrize("name", ["mobilenet_v2", *TORCHVISION, SMALL, OF_TIMM])
def test_parameters_and_macs_are_those_of_the_network(name: str) -> None:
    size = (50, 67)
    genotype = ARCHITECTURES["arch0"]
    network = Segmenter.build(genotype, **FORM, encoder=name).eval()
    macs = 0

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal macs
        assert isinstance(module, nn.Conv2d)
        macs += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.randn(1, 3, *size))
    cost = measure_cost(genotype, **FORM, input_size=size, encoder=name)
    own = sum(parameter.numel() for parameter in network.parameters())
    assert (cost.num_parameters, cost.macs) == (own, macs)
    assert count_parameters(genotype, **FORM, encoder=name) == own
    assert encoder_cost(name, size)[0] == sum(p.numel() for p in network.encoder.parameters())


def test_a_width_multiplies_channels() -> None:
    assert Encoder("mobilenet_v2_x0.5").tap_channels == (16, 16)
    assert Encoder("mobilenet_v3_large_x0.75").tap_channels == (24, 32)


def test_those_of_timm_give_its_features_and_nothing_behind_them(tmp_path: Path) -> None:
    kind = OF_TIMM.removeprefix("timm/")
    whole = timm.create_model(kind).eval()
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    weights = load_encoder_weights("whole.safetensors", tmp_path, OF_TIMM)
    assert weights is not None
    encoder = Encoder(OF_TIMM).eval()
    encoder.load_state_dict(weights)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        taps = encoder(images)
        maps = whole.forward_intermediates(images, intermediates_only=True)
    for stride, tap in zip(TAP_STRIDES, taps, strict=True):
        expected = [one for one in maps if one.shape[3] == 96 // stride][-1]
        torch.testing.assert_close(tap, expected)
    used = set()
    for name, module in encoder.named_modules():
        module.register_forward_hook(lambda *_, name=name: used.add(name))
    with torch.no_grad():
        encoder(images)
    owners = {name.rpartition(".")[0] for name, _ in encoder.named_parameters()}
    assert owners <= used


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mobilnet_v2", "did you mean mobilenet_v2?"),
        ("resnet18", "there are mobilenet_v2, "),
        ("mobilenet_v2_x0.05", "a width is from 0.1 to 4.0"),
        ("mobilenet_v2_x1.0", "that of 1.0 goes without saying"),
        ("efficientnet_b0_x0.5", "has one width alone"),
        ("timm/mobilenetv9", "timm has no such model"),
        ("timm/resnet18.no_such_tag", "Invalid pretrained tag"),
        ("timm/hf-hub:someone/something", "timm has no such model"),
        ("timm/../file", "timm has no such model"),
        ("timm/vit_tiny_patch16_224", "takes images less"),
        ("timm/swin_tiny_patch4_window7_224", "no feature maps at 1/4 and 1/8"),
        ("timm/deit_tiny_patch16_224", "no feature maps at 1/4 and 1/8"),
    ],
)
def test_what_is_no_encoder_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"network\.encoder") as refused:
        load_encoder_weights("none", tmp_path, name)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    torch.save(get_model("mobilenet_v3_small", weights=None).state_dict(), tmp_path / "small.pt")
    assert load_encoder_weights("small.pt", tmp_path, "mobilenet_v3_small")
    for name in ("mobilenet_v2", "mobilenet_v3_large", SMALL, OF_TIMM):
        with pytest.raises(WeightsError, match=r"small\.pt"):
            load_encoder_weights("small.pt", tmp_path, name)
    with pytest.raises(SettingsError, match=rf"there are none of {SMALL}"):
        load_encoder_weights("imagenet", tmp_path, SMALL)


def settings_with(encoder: str) -> Settings:
    return validate_settings(tiny(network={"encoder": encoder}), "tiny")


@pytest.mark.parametrize("name", [SMALL, OF_TIMM])
def test_a_search_a_training_and_a_shipped_file(name: str, tmp_path: Path) -> None:
    settings = settings_with(name)
    prepare(settings.dataset, tmp_path, prepared_folder(tmp_path, settings))
    with Search.open(settings, tmp_path, InProcessWorkers()) as search:
        first, *_ = search.run()
    own = search.folder
    folder = own / "candidates" / first.id
    assert load_segmenter(folder / "weights.safetensors")[1].encoder == name
    genotype = Genotype.from_dict(first.genotype)
    num_classes = len(load_segmenter(folder / "weights.safetensors")[1].classes)
    assert first.num_parameters == count_parameters(
        genotype, num_classes=num_classes, agg_size=8, sep_repeats=1, encoder=name
    )
    with InProcessWorkers() as workers:
        training = train(workers, settings, tmp_path, first.id, genotype)
        evaluate(workers, settings, tmp_path, first.id, training)
    segmenter, card = load_segmenter(training / "model.safetensors")
    assert card.encoder == name
    image = np.random.default_rng(0).integers(0, 256, (45, 61, 3), dtype=np.uint8)
    labels = Predictor.load(training / "model.safetensors")(image)
    assert labels.shape == (45, 61)
    session = export.session(export.onnx_model(segmenter, card), 1)
    found = export.compare(segmenter, session, [image[None]])
    assert found.logits < 1e-3
    # Another encoder is another search.
    with Search.open(settings_with("mobilenet_v2"), tmp_path, InProcessWorkers()) as search:
        assert search.folder != own and not search.candidates


def test_a_file_of_before_says_nothing_of_an_encoder(tmp_path: Path) -> None:
    card = NetworkCard(ARCHITECTURES["arch0"], ("a", "b"), ((0, 0, 0), (1, 1, 1)), 8, 1)
    assert "encoder" not in card.to_dict()
    assert NetworkCard.from_dict(card.to_dict()) == card
    other = NetworkCard(
        ARCHITECTURES["arch0"], ("a", "b"), ((0, 0, 0), (1, 1, 1)), 8, 1, encoder=SMALL
    )
    save_segmenter(tmp_path / "other.safetensors", seeded(0, other.build).eval(), other)
    assert load_segmenter(tmp_path / "other.safetensors")[1] == other
