import pytest
import torch
from torch import nn

from nas_core.training.averaging import PolyakAverage


def _model(value: float) -> nn.Module:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    with torch.no_grad():
        model[0].weight.fill_(value)
    return model


def _set(model: nn.Module, value: float, mean: float) -> None:
    with torch.no_grad():
        model[0].weight.fill_(value)
        model[1].running_mean.fill_(mean)
        model[1].num_batches_tracked += 1


def test_follows_the_definition_with_its_warm_up() -> None:
    model = _model(1.0)
    average = PolyakAverage(model, 0.4)
    expected, mean = 1.0, 0.0
    for n, value in enumerate([5.0, -2.0, 7.0, 3.0, 0.5, 1.5]):
        _set(model, value, value / 2)
        average.update_parameters(model)
        decay = min(0.4, (1 + n) / (10 + n)) if n else 0.0  # the first one is a copy
        expected = decay * expected + (1 - decay) * value
        mean = decay * mean + (1 - decay) * value / 2
    averaged = average.module
    assert averaged[0].weight.item() == pytest.approx(expected)
    assert averaged[1].running_mean.item() == pytest.approx(mean)
    assert averaged[1].num_batches_tracked.item() == 6


def test_leaves_the_model_alone_and_is_in_eval_mode() -> None:
    model = _model(1.0)
    average = PolyakAverage(model, 0.9)
    _set(model, 2.0, 0.0)
    average.update_parameters(model)
    assert model.training and not average.module.training
    assert model[0].weight.item() == 2.0
