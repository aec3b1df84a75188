"""The loop that the benchmark compares with computes what the project's training computes."""

import copy
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn import functional

from benchmarks import baseline
from benchmarks.baseline import build_baseline, train_baseline
from nas_core.base.seeds import seeded
from nas_core.config import DatasetSettings, MetaValSettings, ProxySettings, SyntheticSettings
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.models.compute import Compute
from nas_core.models.decoder import Decoder
from nas_core.models.depthwise import DepthwiseConv2d, plain_convolutions
from nas_core.models.encoder import Encoder
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training import steps
from nas_core.training.proxy import train_candidate
from nas_core.training.proxy_task import build_proxy_task

COMPUTE = Compute(torch.device("cpu"), bf16=False)
META_VAL = MetaValSettings(fraction=0.2)
# One step an epoch: a batch holds all 10 images that are not in meta-val.
ONE_STEP = ProxySettings(height=48, width=64, batch_size=16, epochs_a=1, epochs_b=0, agg_size=16)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    root = tmp_path_factory.mktemp("scenes")
    sizes = SyntheticSettings(num_train=12, num_val=2, num_test=2, height=48, width=64)
    return prepare(
        DatasetSettings(kind="synthetic", path="raw", synthetic=sizes), root, root / "prepared"
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_first_step_has_the_loss_of_the_projects(scenes: PreparedData, name: str) -> None:
    genotype = ARCHITECTURES[name]
    task = build_proxy_task(scenes, None, ONE_STEP, COMPUTE, meta_val=META_VAL, seed=3)
    theirs = build_baseline(scenes, None, ONE_STEP, COMPUTE.device, meta_val=META_VAL, seed=3)
    assert theirs.meta_val.names == task.meta_val.names
    expected = train_candidate(task, genotype, seed=1)
    found = train_baseline(theirs, genotype, seed=1)
    assert found.losses["a"] == pytest.approx(expected.losses["a"], abs=1e-4)
    assert len(found.scores) == len(expected.scores) == 1


def test_the_rates_are_those_of_the_projects(
    scenes: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: dict[ModuleType, list[float]] = {}

    def record(module: ModuleType, name: str) -> None:
        original = getattr(module, name)

        def spy(*args: Any) -> Any:
            (optimizer,) = (each for each in args if isinstance(each, torch.optim.Optimizer))
            rates.setdefault(module, []).extend(g["lr"] for g in optimizer.param_groups)
            return original(*args)

        monkeypatch.setattr(module, name, spy)

    record(steps, "optimise")
    record(baseline, "_step")
    settings = ONE_STEP.model_copy(update={"batch_size": 4, "epochs_b": 2})
    task = build_proxy_task(scenes, None, settings, COMPUTE, meta_val=META_VAL, seed=3)
    train_candidate(task, ARCHITECTURES["arch0"], seed=1)
    theirs = build_baseline(scenes, None, settings, COMPUTE.device, meta_val=META_VAL, seed=3)
    train_baseline(theirs, ARCHITECTURES["arch0"], seed=1)
    assert len(rates[steps]) == 2 + 2 * 4
    assert rates[baseline] == pytest.approx(rates[steps])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_convolutions_compute_the_same(name: str) -> None:
    network = seeded(0, lambda: Segmenter(Encoder(), Decoder(ARCHITECTURES[name], 11, 16, 1)))
    plain = plain_convolutions(copy.deepcopy(network))
    assert not any(isinstance(module, DepthwiseConv2d) for module in plain.modules())
    assert list(plain.state_dict()) == list(network.state_dict())
    COMPUTE.place(network)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 48, 64, generator=generator)
    masks = torch.randint(11, (4, 48, 64), generator=generator)
    losses, gradients = [], []
    for module in (network, plain):
        loss = functional.cross_entropy(module(images), masks)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    # Loose, for ReLUs and max pools that rounding switches.
    assert (gradients[1] - gradients[0]).norm() < 1e-2 * gradients[0].norm()
