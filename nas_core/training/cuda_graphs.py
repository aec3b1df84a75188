"""Training passes as CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
