"""Faster ways to run a network in training: CUDA graphs, and torch.compile where it works."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from nas_core.base.errors import first_line

log = logging.getLogger(__name__)


class CompiledNetwork:
    """A network by torch.compile, for batches of one shape; as it is where that fails.

    It is compiled at the first call, which takes minutes. What the network holds stays its own:
    weights, running statistics, training or evaluation mode.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.forward = torch.compile(network, dynamic=False)

    def __call__(self, images: Tensor) -> Tensor:
        try:
            logits: Tensor = self.forward(images)
        except TorchDynamoException as error:
            # Nothing has been computed by then, so the running statistics are as they were.
            log.warning("compute.compile has no effect: %s", first_line(error))
            self.forward = self.network
            logits = self.network(images)
        return logits


class GraphedNetwork:
    """A network whose passes a GPU replays as CUDA graphs, for training batches of one shape.

    That spares the CPU the launching of each of its many short kernels. The network is captured at
    the first call, with the autocast that it has there, which must not cache. From then on it
    cannot be copied; in evaluation mode it runs as it is.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.captured = False

    def __call__(self, images: Tensor) -> Tensor:
        if not self.captured:
            self._capture(images)
        logits: Tensor = self.network(images)
        return logits

    def _capture(self, images: Tensor) -> None:
        # Capturing takes some passes, which must not count in the running statistics.
        statistics = [buffer.clone() for buffer in self.network.buffers()]
        # They also leave nodes of another stream behind, of which each backward pass would warn.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        # An architecture need not use all of the encoder.
        torch.cuda.make_graphed_callables(self.network, (images.clone(),), allow_unused_input=True)
        for buffer, value in zip(self.network.buffers(), statistics, strict=True):
            buffer.copy_(value)
        self.captured = True
