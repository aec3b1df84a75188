"""Who proposes architectures: the interface of all search strategies.

A search goes in rounds: `ask` for proposals, train them, `tell` their rewards. Several rounds may
be open at a time; they are told in the order in which they were asked for.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from nas_core.config import SearchSettings
from nas_core.errors import GenotypeError, RunError, first_line
from nas_core.genotype import Genotype
from nas_core.space import decode

STRATEGIES = ("ppo", "reinforce", "evolution", "random")
# What torch, numpy and our own code raise for a state that is not one of theirs.
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, GenotypeError)
# How often a round draws again what the limits refused, before it gives up.
MAX_DRAWS = 100

# The name of the limit that an architecture exceeds, or None.
Refusal = Callable[[Genotype], str | None]


@dataclass(frozen=True)
class Proposal:
    """An architecture to train, and its choices, one for each of `space.DECISIONS`."""

    genotype: Genotype
    choices: tuple[int, ...]
    log_probs: tuple[float, ...] = ()
    """Of each choice, as the controller drew them; empty from other strategies."""

    @classmethod
    def from_choices(cls, choices: Sequence[int], log_probs: Sequence[float] = ()) -> Proposal:
        return cls(decode(choices), tuple(choices), tuple(log_probs))


@dataclass(frozen=True)
class Result:
    """What became of a proposal. Reward None: its training failed, and it teaches nothing."""

    proposal: Proposal
    reward: float | None

    def __post_init__(self) -> None:
        if self.reward is not None and not math.isfinite(self.reward):
            raise ValueError(f"reward is {self.reward}: a failed candidate's reward is None")


@dataclass(frozen=True)
class _Round:
    proposals: tuple[Proposal, ...]
    num_refused: int

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> _Round:
        pairs = zip(state["choices"], state["log_probs"], strict=True)
        proposals = tuple(Proposal.from_choices(*pair) for pair in pairs)
        return cls(proposals, int(state["num_refused"]))


class Strategy(ABC):
    """Proposes architectures and learns from their rewards.

    The same seed and the same rewards give the same proposals. `state_dict` is all that the
    future depends on: a strategy that is restored from it goes on bit for bit.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self._open: deque[_Round] = deque()

    @property
    def open_rounds(self) -> list[list[Proposal]]:
        """The proposals of the rounds that have not been told yet, the oldest first."""
        return [list(opened.proposals) for opened in self._open]

    def ask(self, num_proposals: int, refusal: Refusal = lambda genotype: None) -> list[Proposal]:
        """Open a round, and return its proposals. They may repeat each other, and earlier ones.

        Args:
            refusal: names the limit that an architecture exceeds, or None. One that is refused is
                drawn again; it teaches the strategy nothing.

        Raises:
            RunError: after `MAX_DRAWS` draws for each proposal too few were within the limits.
        """
        kept: list[Proposal] = []
        refused: Counter[str] = Counter()
        while (missing := num_proposals - len(kept)) > 0:
            if refused.total() + len(kept) >= MAX_DRAWS * num_proposals:
                raise RunError(_too_few(len(kept), refused))
            for proposal in self._draw(missing):
                limit = refusal(proposal.genotype)
                if limit is None:
                    kept.append(proposal)
                else:
                    refused[limit] += 1
        self._open.append(_Round(tuple(kept), refused.total()))
        return kept

    def tell(self, results: Sequence[Result]) -> dict[str, float]:
        """Close the oldest open round with a result for each of its proposals, and learn.

        Args:
            results: in the order of `ask`.

        Returns:
            Diagnostics of the learning by name; `reward_mean` is the mean reward of the round,
            `refused_share` that of the draws over a limit. Empty when every result is a failure:
            then nothing was learned.

        Raises:
            ValueError: no round is open, or the results are not those of its proposals.
        """
        if not self._open:
            raise ValueError("tell: no round is open, ask first")
        oldest = self._open[0]
        if tuple(result.proposal for result in results) != oldest.proposals:
            raise ValueError("tell: expected one result for each proposal, in their order")
        rewards = [result.reward for result in results]
        known = [reward for reward in rewards if reward is not None]
        diagnostics: dict[str, float] = {}
        if known:
            diagnostics = {
                "reward_mean": math.fsum(known) / len(known),
                "refused_share": oldest.num_refused / (oldest.num_refused + len(rewards)),
                **self._learn(results),
            }
        self._open.popleft()
        return diagnostics

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state, open rounds included: tensors and plain values only."""
        opened = [
            {
                "choices": [list(proposal.choices) for proposal in one.proposals],
                "log_probs": [list(proposal.log_probs) for proposal in one.proposals],
                "num_refused": one.num_refused,
            }
            for one in self._open
        ]
        return {"strategy": self.name, "open": opened, **copy.deepcopy(self._state())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            RunError: the state is of another strategy, or malformed.
        """
        if state.get("strategy") != self.name:
            raise RunError(
                f"the state is of strategy {state.get('strategy')!s:.40}, not {self.name}: go on "
                "with the strategy that the search began with, or begin a new one"
            )
        try:
            self._load(copy.deepcopy(state))
            self._open = deque(_Round.from_state(one) for one in state["open"])
        except _MALFORMED as error:
            raise RunError(
                f"the state of strategy {self.name} is malformed ({first_line(error)}): restore it "
                "from a copy, or remove the run's folder to begin again"
            ) from None

    @abstractmethod
    def _draw(self, num: int) -> list[Proposal]:
        """`num` proposals; called again in the same round when some were refused."""

    @abstractmethod
    def _learn(self, results: Sequence[Result]) -> dict[str, float]:
        """Learn from the open round's results, of which at least one has a reward."""

    @abstractmethod
    def _state(self) -> dict[str, Any]: ...

    @abstractmethod
    def _load(self, state: dict[str, Any]) -> None: ...


def make_strategy(settings: SearchSettings, seed: int) -> Strategy:
    """The strategy that the settings name."""
    # Here, since these modules import this one.
    from nas_core.search.evolution import Evolution
    from nas_core.search.ppo import PPO
    from nas_core.search.random_search import RandomSearch
    from nas_core.search.reinforce import Reinforce

    match settings.strategy:
        case "ppo":
            return PPO(settings.controller, seed)
        case "reinforce":
            return Reinforce(settings.controller, seed)
        case "evolution":
            return Evolution(settings.evolution, seed)
        case "random":
            return RandomSearch(seed)


def _too_few(num_kept: int, refused: Counter[str]) -> str:
    limit, times = refused.most_common(1)[0]
    return (
        f"of {num_kept + refused.total()} proposals {num_kept} were within search.constraints; "
        f"{limit} refused most ({times}): raise it"
    )
