"""What the lines of a journal say together.

A checksum tells that a line is as it was written, not that a search wrote it: so each line is held
against the settings of the search and the lines before it. Without torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from nas_core.base.setting_types import Section
from nas_core.config import ConstraintSettings, RewardSettings
from nas_core.search.rewards import CandidateCost, shaped_reward
from nas_core.space.genotype import Genotype

if TYPE_CHECKING:
    from nas_core.search.journal import Confirmation, Header, Record

_SHARES = ("mean_iou", "frequency_weighted_iou", "mean_accuracy", "reward")
# A mean may be above 1, and a power computed elsewhere be another, by the rounding of a float.
_ROUNDING = 1e-6


class History:
    """The lines of a journal as far as they are known."""

    def __init__(self, header: Header) -> None:
        self._reward = _settings(header, "reward", RewardSettings())
        self._limits = _settings(header, "constraints", ConstraintSettings(max_parameters=None))
        self._last: Record | None = None
        self._num_trained = 0
        self._trained: dict[str, Record] = {}
        self._seeds: dict[str, list[int]] = {}

    def check_record(self, new: Record) -> None:
        """See that this may be the next record.

        Raises:
            ValueError, GenotypeError: it cannot; the message names what is wrong.
        """
        for problem in self._of_record(new):
            raise ValueError(problem)

    def check_confirmation(self, new: Confirmation) -> None:
        """As `check_record`."""
        for problem in self._of_confirmation(new):
            raise ValueError(problem)

    def add_record(self, new: Record) -> None:
        self._last = new
        if new.candidate is not None:
            self._num_trained = new.candidate
            self._trained[new.id] = new
            self._seeds[new.id] = [new.seed]

    def add_confirmation(self, new: Confirmation) -> None:
        self._seeds[new.confirms].append(new.seed)

    def _of_record(self, new: Record) -> Iterator[str]:
        index, last_round = (self._last.index + 1, self._last.round) if self._last else (0, -1)
        if new.index != index:
            yield f"record {new.index}, expected {index}"
        if new.candidate not in (None, self._num_trained + 1):
            yield f"candidate {new.candidate}, expected {self._num_trained + 1}"
        if new.round not in {max(0, last_round), last_round + 1}:
            yield f"round {new.round}, expected {max(0, last_round)} or the next one"
        # A GenotypeError names what is wrong as well.
        found = Genotype.from_dict(new.genotype).id
        if new.id != found:
            yield f"id {new.id}, but its genotype has the id {found}"
        yield from self._of_network(new)
        for key, value, most in (
            ("num_parameters", new.num_parameters, self._limits.max_parameters),
            ("macs", new.macs, self._limits.max_macs),
            ("latency_ms", new.latency_ms, self._limits.max_latency_ms),
        ):
            if value is not None and most is not None and value > most:
                yield f"{key} is {value}, and the search refuses more than {most}"
        yield from self._of_scores(new, new)

    def _of_network(self, new: Record) -> Iterator[str]:
        """Whether it is trained once, and what repeats it is the same."""
        before = self._trained.get(new.id)
        if new.candidate is not None and before:
            yield f"candidate {new.id} is there twice: record {before.index} is its training"
        if new.candidate is None and not before:
            yield f"a repeat of {new.id}, which no record before it trained"
        if new.candidate is None and before:
            for key in ("reward", "num_parameters", "macs", "seed"):
                if getattr(new, key) != getattr(before, key):
                    yield (
                        f"{key} is {getattr(new, key)}, but {getattr(before, key)} in record "
                        f"{before.index}, which it repeats"
                    )

    def _of_confirmation(self, new: Confirmation) -> Iterator[str]:
        candidate = self._trained.get(new.confirms)
        if candidate is None or candidate.status != "finished":
            yield f"confirms {new.confirms}, which is no candidate that finished"
            return
        seeds = self._seeds[new.confirms]
        if new.run != len(seeds):
            yield f"confirmation {new.run} of {new.confirms}, expected {len(seeds)}"
        if new.seed in seeds:
            which = "its own training" if new.seed == seeds[0] else "an earlier confirmation"
            yield f"confirms {new.confirms} with seed {new.seed}, which is that of {which}"
        yield from self._of_scores(new, candidate)

    def _of_scores(self, new: Record | Confirmation, candidate: Record) -> Iterator[str]:
        shares = [("scores", score) for score in new.scores]
        shares += [(key, new.metrics[key]) for key in _SHARES if key in new.metrics]
        for key, share in shares:
            if not 0 <= share <= 1 + _ROUNDING:
                yield f"{key}: {share} is not from 0 to 1"
        if new.reward is None:
            return
        if new.reward < 0:
            yield f"reward: {new.reward} is below 0"
        cost = CandidateCost(candidate.num_parameters, candidate.macs, candidate.latency_ms)
        if self._reward.cost == "latency_ms" and cost.latency_ms is None:
            yield "latency_ms is missing, and the reward includes it"
        elif new.scores:
            expected = shaped_reward(new.scores[-1], cost, self._reward)
            if not math.isclose(new.reward, expected, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
                yield f"reward is {new.reward}, but the last of its scores gives {expected:.6g}"
        elif self._reward.cost == "none" and new.reward > 1 + _ROUNDING:
            yield f"reward: {new.reward} is above 1"


Known = TypeVar("Known", bound=Section)


def _settings(header: Header, key: str, default: Known) -> Known:
    """A section of the search's settings; `default` where it isn't one of this version."""
    search = header.settings.get("search")
    section = search.get(key) if isinstance(search, dict) else None
    if not isinstance(section, dict):
        return default
    try:
        return type(default).model_validate({**default.model_dump(), **section})
    except ValidationError:
        return default
