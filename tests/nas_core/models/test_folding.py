"""Batch norms behind a concatenation, in the ONNX of a trained network."""

import copy

import onnx
import pytest
import torch

from nas_core.deploy.export import compare, onnx_model, session, synthetic
from nas_core.models.checkpoint import NetworkCard, load_segmenter
from nas_core.models.operations import Concatenation
from nas_core.models.segmenter import Segmenter
from nas_core.training.finding import find_weights


@pytest.fixture(scope="module")
def trained() -> tuple[Segmenter, NetworkCard]:
    return load_segmenter(find_weights("camvid0-camvid"))


def _norms(model: bytes) -> list[str]:
    nodes = onnx.load_from_string(model).graph.node
    return [node.name for node in nodes if node.op_type == "BatchNormalization"]


@pytest.mark.parametrize("size", [None, (64, 96)])
def test_those_without_a_resize_are_folded(
    trained: tuple[Segmenter, NetworkCard], size: tuple[int, int] | None
) -> None:
    segmenter, card = trained
    model = onnx_model(segmenter, card, size)
    assert len(_norms(model)) == 7  # of 13
    images = [(1, *(size or (97, 131)))]
    found = compare(segmenter, session(model, 1), synthetic(images))
    assert found.logits <= 1e-3 and found.labels <= 1e-3


@pytest.mark.parametrize(
    ("part", "value", "num_left"),
    [("weight", -1.0, 13), ("bias", 2.0, 10)],  # three stand behind pools alone
    ids=["falls", "lifts what a ReLU cut off"],
)
def test_one_that_does_not_commute_stays(
    trained: tuple[Segmenter, NetworkCard], part: str, value: float, num_left: int
) -> None:
    segmenter, card = copy.deepcopy(trained[0]), trained[1]
    for module in segmenter.modules():
        if isinstance(module, Concatenation):
            with torch.no_grad():
                getattr(module.bn, part)[3] = value
    model = onnx_model(segmenter, card)
    assert len(_norms(model)) == num_left
    found = compare(segmenter, session(model, 1))
    assert found.logits <= 1e-3 and found.labels <= 1e-3
