"""A search's strategy and the rounds that it learned from, in memory and on the disk.

The strategy proposes a batch, the new ones are trained, the strategy learns. `strategy.pt` holds
it as it was after the last round that it learned from, so that after a crash the rounds that
follow are proposed again, the same, and only what the journal lacks is trained. `rounds.jsonl` has
the diagnostics of each round.

`search.rounds_ahead` rounds are proposed before the one before them is learned from. When they were
proposed in truth makes no difference: a round is learned from after those have been, always.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nas_core.base.errors import RunError, first_line, shown
from nas_core.base.files import MAX_JSON, append_line, read_limited, write_bytes
from nas_core.base.problems import in_words
from nas_core.config import SearchSettings
from nas_core.search.costs import Costs
from nas_core.search.journal import Record, Value, load_state, save_state
from nas_core.search.rewards import CandidateCost
from nas_core.search.strategy import Proposal, Result, Strategy, make_strategy
from nas_core.space.decisions import encode
from nas_core.space.genotype import Genotype

STATE_FILE = "strategy.pt"
ROUNDS_FILE = "rounds.jsonl"
_ROUND = TypeAdapter(dict[str, Value])


class Rounds:
    """The strategy, and the rounds that it has open or learned from.

    Attributes:
        current: the number of the oldest round that has not been learned from.
        diagnostics: what `learn` returned for each earlier round, by number, as far as finite.
    """

    def __init__(
        self,
        folder: Path,
        settings: SearchSettings,
        seed: int,
        costs: Costs,
        start: Sequence[Genotype] = (),
    ) -> None:
        """Go on from what the folder of the search holds; it may be empty.

        Args:
            start: networks that are proposed first.

        Raises:
            RunError: a file in it is damaged, or of another strategy.
        """
        self.settings, self.seed, self.costs = settings, seed, costs
        self._start = [encode(genotype) for genotype in start]
        self._state_path, self.path = folder / STATE_FILE, folder / ROUNDS_FILE
        self.current, self.strategy = restore(folder, settings, seed)
        self.strategy.start_from(self._start)
        self.diagnostics, self._size = _read_rounds(self.path, self.current)

    def check_recorded(self, records: Sequence[Record]) -> None:
        """Raise a RunError if the strategy has learned from rounds that the journal lacks."""
        known = records[-1].round + 1 if records else 0
        if self.current > known:
            raise RunError(
                f"{self._state_path} has learned from {self.current} rounds, and the journal has "
                f"{known}: restore the journal from a copy, or remove the run's folder to "
                "begin again"
            )

    def propose(self, number: int) -> list[Proposal]:
        """The proposals of round `number`, the current one or one of `rounds_ahead` after it.

        Raises:
            RunError: no network, or too few of the proposals, are within search.constraints.
        """
        self.costs.check_limits(self.settings.constraints)
        index = number - self.current
        self._open(self.strategy, index + 1)
        return self.strategy.open_rounds[index]

    def learn(
        self, rewards: Sequence[float | None], costs: Sequence[tuple[float, ...]] | None = None
    ) -> dict[str, float]:
        """Close the current round with a reward for each proposal, None for a failed one.

        Args:
            costs: what the strategy weighs against each reward, see `costs_of`.

        Returns:
            The strategy's diagnostics.

        Raises:
            RunError: the disk does not take it; then another `Rounds` goes on from before.
        """
        self._open(self.strategy, self.settings.rounds_ahead + 1)
        found = _tell(self.strategy, rewards, costs)
        # First, so that no closed round lacks them. After a crash between the two the round is
        # closed again, with the same diagnostics.
        self.diagnostics[self.current] = _finite(found)
        self._size = append_line(
            self.path, self._size, _line(self.current, self.diagnostics[self.current])
        )
        state = {"round": self.current + 1, "strategy": self.strategy.state_dict()}
        save_state(self._state_path, state)
        self.current += 1
        return found

    def lack_diagnostics(self) -> bool:
        """Whether the diagnostics of a round that was learned from are lost."""
        return not set(range(self.current)) <= self.diagnostics.keys()

    def rebuild_diagnostics(self, records: Sequence[Record]) -> int:
        """Make the file of diagnostics again, by proposing and learning what the search did.

        Where the proposals come out otherwise, as on another machine they may, the rounds from
        there on stay without.

        Args:
            records: of the search's journal.

        Returns:
            How many rounds have diagnostics again.
        """
        strategy = make_strategy(self.settings, self.seed)
        strategy.start_from(self._start)
        rebuilt: dict[int, dict[str, float]] = {}
        for number in range(self.current):
            self._open(strategy, self.settings.rounds_ahead + 1)
            proposals = strategy.open_rounds[0]
            known = [record for record in records if record.round == number]
            if [proposal.genotype.id for proposal in proposals] != [record.id for record in known]:
                break
            rebuilt[number] = _finite(
                _tell(
                    strategy,
                    [record.reward for record in known],
                    [costs_of(record, self.settings) for record in known],
                )
            )
        without: dict[int, dict[str, float]] = {number: {} for number in range(self.current)}
        self.diagnostics = {**without, **rebuilt, **self.diagnostics}
        content = b"".join(_line(*item) for item in self.diagnostics.items())
        write_bytes(self.path, content)
        self._size = len(content)
        return len(rebuilt)

    def _open(self, strategy: Strategy, num: int) -> None:
        """Ask until `num` rounds are open."""
        limits = self.settings.constraints
        while len(strategy.open_rounds) < num:
            strategy.ask(
                self.settings.batch_size, lambda genotype: self.costs.refusal(genotype, limits)
            )


def _tell(
    strategy: Strategy,
    rewards: Sequence[float | None],
    costs: Sequence[tuple[float, ...]] | None,
) -> dict[str, float]:
    costs = [()] * len(rewards) if costs is None else costs
    proposals = strategy.open_rounds[0]
    return strategy.tell(
        [Result(*one) for one in zip(proposals, rewards, costs, strict=True)],
    )


def costs_of(record: Record, settings: SearchSettings) -> tuple[float, ...]:
    """What the strategy weighs against the reward itself: of pareto, its costs."""
    if settings.strategy != "pareto":
        return ()
    cost = CandidateCost(record.num_parameters, record.macs, record.latency_ms)
    return tuple(cost.of(name) for name in settings.pareto.costs)


def restore(folder: Path, settings: SearchSettings, seed: int) -> tuple[int, Strategy]:
    """The number of the current round, and the strategy as the folder of a search holds it.

    Raises:
        RunError: its file is damaged, or of another strategy.
    """
    strategy = make_strategy(settings, seed)
    path = folder / STATE_FILE
    if not path.exists():
        return 0, strategy
    content = load_state(path)
    number, state = content.get("round"), content.get("strategy")
    if type(number) is not int or number < 0:
        raise RunError(f"{path}: round is {shown(number)}: remove the run's folder to begin again")
    if not isinstance(state, dict):
        raise RunError(f"{path} lacks the strategy: remove the run's folder to begin again")
    try:
        strategy.load_state_dict(state)
    except RunError as error:
        raise RunError(f"{path}: {error}") from None
    return number, strategy


def _read_rounds(path: Path, current: int) -> tuple[dict[int, dict[str, float]], int]:
    """The diagnostics by round, and the size of their lines in bytes.

    What a crash may have left behind does not count, and the next line takes its place: a
    half-written line, and that of the round that is still open.

    Raises:
        RunError: the file is damaged.
    """
    if not path.exists():
        return {}, 0
    try:
        whole, _, _ = read_limited(path, MAX_JSON).rpartition(b"\n")
        lines = [line + b"\n" for line in whole.split(b"\n")] if whole else []
        rounds = [_ROUND.validate_json(line, strict=True) for line in lines]
        numbers = [values.pop("round") for values in rounds]
        if not all(number >= 0 and number.is_integer() for number in numbers):
            raise ValueError("the number of a round is none")
        if len(set(numbers)) < len(numbers):
            raise ValueError("a round is there twice")
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        if isinstance(error, ValidationError):
            reason = in_words(error.errors()[0])
        raise RunError(
            f"{path} cannot be read: {reason}; delete it, and the search makes it again when it "
            "goes on"
        ) from None
    num_closed = next((n for n, number in enumerate(numbers) if number >= current), len(lines))
    closed = zip(map(int, numbers[:num_closed]), rounds[:num_closed], strict=True)
    return dict(closed), sum(map(len, lines[:num_closed]))


def _finite(diagnostics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in diagnostics.items() if math.isfinite(value)}


def _line(number: int, diagnostics: Mapping[str, float]) -> bytes:
    return (json.dumps({"round": number, **diagnostics}) + "\n").encode()
