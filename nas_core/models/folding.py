"""Batch norms behind a concatenation, folded into the convolutions before it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

# They keep which of two values is the larger one, so that a rising function may be applied before.
_ORDER_KEEPING = ("MaxPool", "Expand")


def fold_batch_norms(model: onnx.ModelProto) -> int:
    """Fold the batch norms that a concatenation and a ReLU surround; returns how many.

    A batch norm in eval mode is z -> s z + b of each channel. With s > 0 it may stand before a
    max pool, and with b <= 0 too before a ReLU, as relu(s relu(z) + b) = relu(s z + b): then the
    convolution that gives z takes it. One stays where that holds not for all of its channels, or
    where what is concatenated was resized behind its ReLU.
    """
    graph = model.graph
    weights = {entry.name: entry for entry in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    num_folded = 0
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        joined = makers.get(norm.input[0])
        (after, *others) = users.get(norm.output[0], [None])
        if joined is None or joined.op_type != "Concat" or others:
            continue
        if after is None or after.op_type != "Relu" or len(users[joined.output[0]]) > 1:
            continue
        found = [_convolution(name, makers, users) for name in joined.input]
        if None in found:
            continue
        convolutions = [entry for entry in found if entry is not None]
        sizes = [weights[conv.input[1]].dims[0] for conv, _ in convolutions]
        scale, shift = _scale_and_shift(norm, weights)
        parts = np.cumsum(sizes)[:-1]
        scales, shifts = np.split(scale, parts), np.split(shift, parts)
        if (scale <= 0).any() or any(
            behind_relu and (part > 0).any()
            for (_, behind_relu), part in zip(convolutions, shifts, strict=True)
        ):
            continue
        for (conv, _), s, b in zip(convolutions, scales, shifts, strict=True):
            _scale(conv, s, b, graph, weights)
        after.input[0] = joined.output[0]
        graph.node.remove(norm)
        num_folded += 1
    _remove_unused(graph)
    return num_folded


def _convolution(
    name: str, makers: dict[str, onnx.NodeProto], users: dict[str, list[onnx.NodeProto]]
) -> tuple[onnx.NodeProto, bool] | None:
    """The one that gives `name` to nobody else, and whether a ReLU lies between."""
    behind_relu = False
    while True:
        node = makers.get(name)
        # Who asks for the size alone does not see the values.
        if node is None or sum(user.op_type != "Shape" for user in users[name]) > 1:
            return None
        if node.op_type == "Conv":
            return node, behind_relu
        if node.op_type == "Relu":
            behind_relu = True
        elif node.op_type not in _ORDER_KEEPING:
            return None
        name = node.input[0]


def _scale_and_shift(
    norm: onnx.NodeProto, weights: dict[str, onnx.TensorProto]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    gamma, beta, mean, variance = (
        numpy_helper.to_array(weights[name]).astype(np.float64) for name in norm.input[1:5]
    )
    epsilon = next(entry.f for entry in norm.attribute if entry.name == "epsilon")
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _scale(
    conv: onnx.NodeProto,
    scale: npt.NDArray[np.float64],
    shift: npt.NDArray[np.float64],
    graph: onnx.GraphProto,
    weights: dict[str, onnx.TensorProto],
) -> None:
    """Give a convolution weights of its own: others may share those that it has."""
    old = [numpy_helper.to_array(weights[name]) for name in conv.input[1:]]
    bias = old[1] if len(old) > 1 else np.zeros(len(scale))
    values = (old[0] * scale[:, None, None, None], bias * scale + shift)
    names = [f"{conv.name}/folded_{part}" for part in ("weight", "bias")]
    for name, value in zip(names, values, strict=True):
        weights[name] = numpy_helper.from_array(value.astype(np.float32), name)
        graph.initializer.append(weights[name])
    del conv.input[1:]
    conv.input.extend(names)


def _remove_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    for entry in [entry for entry in graph.initializer if entry.name not in used]:
        graph.initializer.remove(entry)
