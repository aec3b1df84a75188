"""A network as an ONNX graph: what `nas export` ships, and what a search's latencies are of."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from nas_core.models.depthwise import plain_convolutions
from nas_core.models.folding import fold_batch_norms

INPUT, OUTPUT = "image", "logits"
OPSET = 18
# Decoders of the search space halve the size up to 27 times. Tracing keeps which of two features
# is the larger one, so their sizes must differ in the example: as long as one side is 16384 or
# less, features that are equal there are equal in every image.
_EXAMPLE_SIZE = (32, 2**14)


def onnx_graph(network: nn.Module, size: tuple[int, int] | None = None) -> onnx.ModelProto:
    """A network in eval mode on the CPU, its batch norms folded as far as they can be.

    Args:
        network: takes images (N, 3, H, W). What it gives first is the graph's `OUTPUT`.
        size: height and width, for one image of this size alone; any batch and size if None.
    """
    axes = {0: "batch", 2: "height", 3: "width"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        path = Path(folder) / "model.onnx"
        # The tracer warns of the comparisons of sizes that _EXAMPLE_SIZE is for. It is the older
        # exporter: the newer one cannot leave such comparisons open, and needs onnxscript.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            # Ours are made of many operations.
            plain_convolutions(copy.deepcopy(network)).eval(),
            (torch.zeros(1, 3, *(size or _EXAMPLE_SIZE)),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=None if size else {INPUT: axes, OUTPUT: axes},
        )
        model = onnx.load(path)
    _name_weights_alone(model.graph)
    fold_batch_norms(model)
    onnx.checker.check_model(model)
    return model


def _name_weights_alone(graph: onnx.GraphProto) -> None:
    """Take out the `Identity`s that the exporter gives equal weights, which new networks have."""
    weights = {entry.name for entry in graph.initializer}
    copies = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Identity" and node.input[0] in weights
    }
    kept = [node for node in graph.node if node.output[0] not in copies]
    for node in kept:
        names = [copies.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(names)
    del graph.node[:]
    graph.node.extend(kept)
