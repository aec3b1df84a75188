"""The LSTM controller: a distribution over the sequences of decisions that make a genotype."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_core.base.errors import RunError
from nas_core.space.decisions import DECISIONS, Decision
from nas_core.space.genotype import NUM_TAPS

NUM_UNITS = 100
NUM_LSTM_LAYERS = 2
INIT_RANGE = 0.1


class Controller(nn.Module):
    """LSTM with one step for each tap, then one for each decision.

    The learned first input goes into the steps of the taps and of the first decision. After
    that each step gets the embedding of the decision before it (ENAS, arXiv 1802.03268) or, if
    not `autoregressive`, the first input again: then the decisions are independent of each
    other, as in the code of the search space's authors.

    There is a linear layer, and an embedding, for each kind of decision. Each input choice has
    its own, since the pool grows. All of them are stacked, as rows of one matrix; the k-th
    choice of decision d has row `starts[d] + k`.

    Args:
        generator: gives the initial weights, U(-0.1, 0.1); the global one is left alone.
    """

    starts: Tensor
    rows: Tensor
    padding: Tensor

    def __init__(
        self,
        generator: torch.Generator,
        autoregressive: bool = True,
        decisions: Sequence[Decision] = DECISIONS,
    ) -> None:
        super().__init__()
        self.autoregressive = autoregressive
        self.decisions = tuple(decisions)
        starts, num_rows = _stack_heads(self.decisions)
        # On the meta device the layers' own initialisation, from the global generator, is no work.
        with torch.device("meta"):
            self.first_input = nn.Parameter(torch.empty(NUM_UNITS))
            self.lstm = nn.LSTM(NUM_UNITS, NUM_UNITS, NUM_LSTM_LAYERS)
            self.head = nn.Linear(NUM_UNITS, num_rows)
            if autoregressive:
                self.embedding = nn.Embedding(num_rows, NUM_UNITS)
        self.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-INIT_RANGE, INIT_RANGE, generator=generator)

        num_choices = torch.tensor([decision.num_choices for decision in self.decisions])
        choice = torch.arange(int(num_choices.max()))
        padding = choice >= num_choices[:, None]
        start_of = torch.tensor(starts)
        self.register_buffer("starts", start_of, persistent=False)
        self.register_buffer("padding", padding, persistent=False)
        rows = (start_of[:, None] + choice).masked_fill(padding, 0)
        self.register_buffer("rows", rows, persistent=False)

    @torch.no_grad()
    def sample(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw sequences of decisions.

        Returns:
            Choices, int64, and their log-probabilities, both (num, decisions).

        Raises:
            RunError: learning has made the probabilities NaN.
        """
        inputs = self.first_input.expand(1, num, NUM_UNITS)
        state = None
        for _ in range(NUM_TAPS):
            _, state = self.lstm(inputs, state)
        choices, log_probs = [], []
        for decision, start in zip(self.decisions, self.starts.tolist(), strict=True):
            hidden, state = self.lstm(inputs, state)
            rows = slice(start, start + decision.num_choices)
            logits = F.linear(hidden[0], self.head.weight[rows], self.head.bias[rows])
            of_each = F.log_softmax(logits, dim=1)
            if not of_each.isfinite().all():
                raise RunError(
                    "the controller's probabilities are not finite: lower "
                    "search.controller.learning_rate, or begin a new search"
                )
            choice = torch.multinomial(of_each.exp(), 1, generator=generator)
            choices.append(choice)
            log_probs.append(of_each.gather(1, choice))
            if self.autoregressive:
                inputs = self.embedding(start + choice.T)
        return torch.cat(choices, dim=1), torch.cat(log_probs, dim=1)

    def evaluate(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of given choices, and the entropies of the distributions they met.

        Args:
            choices: (N, decisions), int64.

        Returns:
            Log-probabilities and entropies in nats, both (N, decisions).
        """
        hidden, _ = self.lstm(self._inputs(choices))
        logits = self.head(hidden[NUM_TAPS:])
        rows = self.rows[:, None].expand(-1, len(choices), -1)
        logits = logits.gather(2, rows).masked_fill(self.padding[:, None], -torch.inf)
        of_each = F.log_softmax(logits, dim=2)
        log_probs = of_each.gather(2, choices.T[..., None]).squeeze(2)
        # 0 * log(0) counts as 0.
        finite = of_each.masked_fill(self.padding[:, None], 0.0)
        entropies = -(of_each.exp() * finite).sum(dim=2)
        return log_probs.T, entropies.T

    def _inputs(self, choices: Tensor) -> Tensor:
        """What goes into the LSTM, (taps + decisions, N, units), when `choices` are made."""
        num_steps = NUM_TAPS + len(self.decisions)
        if not self.autoregressive:
            return self.first_input.expand(num_steps, len(choices), NUM_UNITS)
        first = self.first_input.expand(NUM_TAPS + 1, len(choices), NUM_UNITS)
        fed_back = self.embedding((choices + self.starts)[:, :-1].T)
        return torch.cat([first, fed_back])


def _stack_heads(decisions: Sequence[Decision]) -> tuple[list[int], int]:
    """The first row of each decision's head in the stacked matrix, and the number of rows."""
    heads: list[Hashable] = [
        position if decision.kind == "input" else decision.kind
        for position, decision in enumerate(decisions)
    ]
    num_choices: dict[Hashable, int] = {}
    for head, decision in zip(heads, decisions, strict=True):
        # Where stride 2 is not allowed, stride has one choice: the first of the shared head's.
        num_choices[head] = max(num_choices.get(head, 0), decision.num_choices)
    start: dict[Hashable, int] = {}
    num_rows = 0
    for head, num in num_choices.items():
        start[head] = num_rows
        num_rows += num
    return [start[head] for head in heads], num_rows
