"""torch.compile, where it works."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from nas_core.errors import first_line

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
