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
from typing import Any, ClassVar, get_args

from nas_core.base.errors import GenotypeError, RunError, first_line
from nas_core.config import SearchSettings, StrategyName
from nas_core.space.decisions import SPACE, Space
from nas_core.space.genotype import Genotype

STRATEGIES: tuple[StrategyName, ...] = get_args(StrategyName)
# What torch, numpy and our own code raise for a state that is not one of theirs.
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, GenotypeError)
# How often a round draws again, for each of its proposals: what the limits refused, before it gives
# up, and what was proposed before, until it proposes that once more.
MAX_DRAWS = 100

# The name of the limit that an architecture exceeds, or None.
Refusal = Callable[[Genotype], str | None]


@dataclass(frozen=True)
class Proposal:
    """An architecture to train, and its choices, one for each decision of the space."""

    genotype: Genotype
    choices: tuple[int, ...]
    log_probs: tuple[float, ...] = ()
    """Of each choice, as the controller drew them; empty from other strategies."""


@dataclass(frozen=True)
class Result:
    """What became of a proposal. Reward None: its training failed, and it teaches nothing."""

    proposal: Proposal
    reward: float | None
    costs: tuple[float, ...] = ()
    """What else is to be small, for a strategy that weighs it itself."""

    def __post_init__(self) -> None:
        if self.reward is not None and not math.isfinite(self.reward):
            raise ValueError(f"reward is {self.reward}: a failed candidate's reward is None")


@dataclass(frozen=True)
class _Round:
    proposals: tuple[Proposal, ...]
    num_refused: int
    num_known: int
    """Draws of what was proposed before, whether drawn again or not."""


class Strategy(ABC):
    """Proposes architectures and learns from their rewards.

    The same seed and the same rewards give the same proposals. `state_dict` is all that the
    future depends on: a strategy that is restored from it goes on bit for bit.

    A training costs thousands of times what a draw does, and that of a known network tells nothing
    new: so what was proposed before, in whatever round, is drawn again. That teaches nothing,
    since a reward that is learned from twice would draw a controller to what it has already.
    """

    name: ClassVar[str]

    def __init__(self, space: Space = SPACE) -> None:
        self.space = space
        self._open: deque[_Round] = deque()
        self._known: set[str] = set()
        self._start: list[tuple[int, ...]] = []
        self._num_started = 0

    def start_from(self, choices: Sequence[Sequence[int]]) -> None:
        """Propose these first, before anything is drawn; see `Search.start_from`."""
        self._start = [tuple(one) for one in choices]

    @property
    def open_rounds(self) -> list[list[Proposal]]:
        """The proposals of the rounds that have not been told yet, the oldest first."""
        return [list(opened.proposals) for opened in self._open]

    def ask(self, num_proposals: int, refusal: Refusal = lambda genotype: None) -> list[Proposal]:
        """Open a round, and return its proposals.

        They are new, by `Genotype.id`, but where `MAX_DRAWS` draws for each gave too few of those:
        then the rest may repeat each other, and earlier ones.

        Args:
            refusal: names the limit that an architecture exceeds, or None. One that is refused is
                drawn again; it teaches the strategy nothing.

        Raises:
            RunError: after `MAX_DRAWS` draws for each proposal too few were within the limits,
                known ones included.
        """
        kept: list[Proposal] = []
        kept_ids: set[str] = set()
        refused: Counter[str] = Counter()
        known: list[Proposal] = []
        most = MAX_DRAWS * num_proposals
        for choices in self._start[self._num_started :][:num_proposals]:
            kept.append(self._given(choices))
            kept_ids.add(kept[-1].genotype.id)
            self._num_started += 1
        while len(kept) < num_proposals:
            if refused.total() + len(kept) >= most:
                num_missing = num_proposals - len(kept)
                if len(known) < num_missing:
                    raise RunError(_too_few(len(kept), refused))
                kept += known[:num_missing]
                break
            # As many as in all, since a controller draws one in the time of several.
            for proposal in self._draw(num_proposals):
                name = proposal.genotype.id
                if name in self._known or name in kept_ids:
                    known.append(proposal)
                    if len(known) <= most:
                        continue
                elif limit := refusal(proposal.genotype):
                    refused[limit] += 1
                    continue
                kept.append(proposal)
                kept_ids.add(name)
                if len(kept) == num_proposals:
                    break
        self._known |= kept_ids
        self._open.append(_Round(tuple(kept), refused.total(), len(known)))
        return kept

    def tell(self, results: Sequence[Result]) -> dict[str, float]:
        """Close the oldest open round with a result for each of its proposals, and learn.

        Args:
            results: in the order of `ask`.

        Returns:
            Diagnostics of the learning by name; `reward_mean` is the mean reward of the round,
            `refused_share` that of the new draws over a limit, `known_share` that of the draws
            which had been proposed before. Empty when every result is a failure: then nothing was
            learned.

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
            num_new = oldest.num_refused + len(rewards)
            diagnostics = {
                "reward_mean": math.fsum(known) / len(known),
                "refused_share": oldest.num_refused / num_new,
                "known_share": oldest.num_known / (oldest.num_known + num_new),
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
                "num_known": one.num_known,
            }
            for one in self._open
        ]
        return {
            "strategy": self.name,
            "open": opened,
            "known": sorted(self._known),
            "num_started": self._num_started,
            **copy.deepcopy(self._state()),
        }

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
            self._open = deque(self._round_of(one) for one in state["open"])
            known = state["known"]
            if not isinstance(known, list) or not all(isinstance(name, str) for name in known):
                raise TypeError("known is no list of ids")
            self._known = set(known)
            self._num_started = _count(state.get("num_started", 0))
            if self._num_started > len(self._known):
                raise ValueError("num_started is more than what was proposed")
        except _MALFORMED as error:
            raise RunError(
                f"the state of strategy {self.name} is malformed ({first_line(error)}): restore it "
                "from a copy, or remove the run's folder to begin again"
            ) from None

    def _propose(self, choices: Sequence[int], log_probs: Sequence[float] = ()) -> Proposal:
        return Proposal(self.space.decode(choices), tuple(choices), tuple(log_probs))

    def _given(self, choices: Sequence[int]) -> Proposal:
        """A proposal that was not drawn."""
        return self._propose(choices)

    def _round_of(self, state: Mapping[str, Any]) -> _Round:
        pairs = list(zip(state["choices"], state["log_probs"], strict=True))
        for choices, log_probs in pairs:
            if len(log_probs) not in (0, len(choices)) or not all(map(math.isfinite, log_probs)):
                raise ValueError("log_probs are not one finite number for each choice")
        proposals = tuple(self._propose(*pair) for pair in pairs)
        return _Round(proposals, _count(state["num_refused"]), _count(state["num_known"]))

    @abstractmethod
    def _draw(self, num: int) -> list[Proposal]:
        """`num` proposals; called again in the same round when some of them were not taken."""

    @abstractmethod
    def _learn(self, results: Sequence[Result]) -> dict[str, float]:
        """Learn from the open round's results, of which at least one has a reward."""

    @abstractmethod
    def _state(self) -> dict[str, Any]: ...

    @abstractmethod
    def _load(self, state: dict[str, Any]) -> None: ...


def make_strategy(settings: SearchSettings, seed: int, space: Space = SPACE) -> Strategy:
    """The strategy that the settings name, for networks of `space`."""
    # Here, since these modules import this one.
    from nas_core.search.evolution import Evolution
    from nas_core.search.pareto import Pareto
    from nas_core.search.ppo import PPO
    from nas_core.search.random_search import RandomSearch
    from nas_core.search.reinforce import Reinforce

    match settings.strategy:
        case "ppo":
            return PPO(settings.controller, seed, space)
        case "reinforce":
            return Reinforce(settings.controller, seed, space)
        case "evolution":
            return Evolution(settings.evolution, seed, space)
        case "pareto":
            return Pareto(settings.pareto, seed, space)
        case "random":
            return RandomSearch(seed, space)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!s:.40} is no number of proposals")
    return value


def _too_few(num_kept: int, refused: Counter[str]) -> str:
    limit, times = refused.most_common(1)[0]
    return (
        f"of {num_kept + refused.total()} proposals {num_kept} were within search.constraints; "
        f"{limit} refused most ({times}): raise it"
    )
