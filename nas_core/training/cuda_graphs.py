"""A training step as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

# Before capturing, as torch asks for: libraries choose their kernels, optimisers make their state.
_NUM_WARM_UPS = 3


class GraphedStep:
    """A step that a GPU replays as one CUDA graph, for batches of one shape.

    That spares the CPU the launching of each of its many short kernels. It is captured at the first
    call, with the autocast that it has there, which must not cache. What it changes cannot be
    copied from then on, and must stay where it is.

    Args:
        step: takes tensors of a batch and gives one; it may not wait for the GPU.
        state: all tensors that the step changes. Those that are there only after a first step begin
            with zeros.
    """

    def __init__(self, step: Callable[..., Tensor], state: Callable[[], Sequence[Tensor]]) -> None:
        self.step, self.state = step, state
        self._batch: list[Tensor] | None = None
        self._graph = torch.cuda.CUDAGraph()
        self._found = torch.empty(0)

    def __call__(self, *batch: Tensor) -> Tensor:
        if self._batch is None:
            self._capture(batch)
        assert self._batch is not None
        for kept, given in zip(self._batch, batch, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._found.clone()

    def _capture(self, batch: Sequence[Tensor]) -> None:
        self._batch = [one.clone() for one in batch]
        _warn_of_no_streams()
        with unchanged(self.state):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_NUM_WARM_UPS):
                    self.step(*self._batch)
            torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self._graph):
            self._found = self.step(*self._batch)


def _warn_of_no_streams() -> None:
    """The warm-up's nodes are of another stream, of which each backward pass would warn.

    torch 2.9 does not warn yet, and has no such function.
    """
    graph = torch.autograd.graph
    if hasattr(graph, "set_warn_on_accumulate_grad_stream_mismatch"):
        graph.set_warn_on_accumulate_grad_stream_mismatch(False)


@contextmanager
def unchanged(state: Callable[[], Sequence[Tensor]]) -> Iterator[None]:
    """Give tensors their values back; those that are there only after it get zeros."""
    before = {id(one): (one, one.detach().clone()) for one in state()}
    try:
        yield
    finally:
        with torch.no_grad():
            for one in state():
                if id(one) in before:
                    one.copy_(before[id(one)][1])
                else:
                    one.zero_()
