"""The folder of one search, and its rounds.

A search goes in rounds: the strategy proposes a batch, the new ones are trained, the strategy
learns. `strategy.pt` holds the strategy as it was after the last round that it learned from, so
that after a crash the rounds that follow are proposed again, the same, and only what the journal
lacks is trained.

`search.rounds_ahead` rounds are proposed before the one before them is learned from. When they were
proposed in truth makes no difference: a round is learned from after those have been, always.

The folder's name ends in a digest of all that decides what a search finds: data, encoder
weights, seed, precision, the settings of the search and the code that carries it out. The number of
candidates is not part of it: raising it continues the search.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from nas_core.code import SEARCH, code_digest
from nas_core.compute import Compute
from nas_core.config import SearchSettings, Settings
from nas_core.errors import RunError, first_line, shown
from nas_core.files import MAX_JSON, digest_of, read_limited, write_bytes
from nas_core.search.costs import Costs
from nas_core.search.journal import Record, Value, load_state, save_state
from nas_core.search.strategy import Proposal, Result, Strategy, make_strategy
from nas_core.seeds import derive_seed
from nas_core.training.early_stopping import stopping_thresholds

# Settings of a search that may change between its beginning and its end.
UNBINDING = {"num_candidates", "max_failures"}
STATE_FILE = "strategy.pt"
ROUNDS_FILE = "rounds.jsonl"
_ROUND = TypeAdapter(dict[str, Value])


def search_identity(
    settings: Settings, data_hash: str, encoder_digest: str, compute: Compute
) -> dict[str, Any]:
    """All that decides what a search finds, as plain values."""
    return {
        "data": data_hash,
        "encoder": encoder_digest,
        "seed": settings.seed,
        "bf16": compute.bf16,
        "network": settings.network.model_dump(mode="json"),
        "search": settings.search.model_dump(mode="json", exclude=UNBINDING),
        "code": code_digest(SEARCH),
    }


def search_folder(searches: Path, name: str, identity: dict[str, Any]) -> Path:
    return searches / f"{name}-{digest_of(identity)}"


def current_round(folder: Path) -> int:
    """The number of the round that has not been learned from yet."""
    path = folder / STATE_FILE
    if not path.exists():
        return 0
    number = load_state(path).get("round")
    if type(number) is not int or number < 0:
        raise RunError(f"{path}: round is {shown(number)}: remove the run's folder to begin again")
    return number


def propose(
    folder: Path, settings: SearchSettings, seed: int, costs: Costs, number: int
) -> list[Proposal]:
    """The proposals of round `number`, which is the current one or at most `rounds_ahead` later.

    Raises:
        RunError: no network, or too few of the proposals, are within search.constraints.
    """
    costs.check_limits(settings.constraints)
    strategy = _restore(folder, settings, seed)
    index = number - current_round(folder)
    _open_rounds(strategy, index + 1, settings, costs)
    return strategy.open_rounds[index]


def learn(
    folder: Path,
    settings: SearchSettings,
    seed: int,
    costs: Costs,
    rewards: Sequence[float | None],
) -> dict[str, float]:
    """Close the current round with a reward for each proposal, None for a failed one.

    Returns:
        The strategy's diagnostics.
    """
    closed = current_round(folder)
    strategy = _restore(folder, settings, seed)
    _open_rounds(strategy, settings.rounds_ahead + 1, settings, costs)
    pairs = zip(strategy.open_rounds[0], rewards, strict=True)
    diagnostics = strategy.tell([Result(*pair) for pair in pairs])
    # First, so that no closed round lacks them. After a crash between the two the round is closed
    # again, with the same diagnostics.
    _write_rounds(folder, {**round_diagnostics(folder), closed: diagnostics})
    save_state(folder / STATE_FILE, {"round": closed + 1, "strategy": strategy.state_dict()})
    return diagnostics


def round_diagnostics(folder: Path) -> dict[int, dict[str, float]]:
    """What `learn` returned for each round so far, by its number, as far as it was finite.

    Raises:
        RunError: the file of them is damaged.
    """
    path = folder / ROUNDS_FILE
    if not path.exists():
        return {}
    try:
        lines = read_limited(path, MAX_JSON).splitlines()
        rounds = [_ROUND.validate_json(line, strict=True) for line in lines]
        numbers = [values.pop("round") for values in rounds]
        if not all(number >= 0 and number.is_integer() for number in numbers):
            raise ValueError("the number of a round is none")
        if len(set(numbers)) < len(numbers):
            raise ValueError("a round is there twice")
        return dict(zip(map(int, numbers), rounds, strict=True))
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        if isinstance(error, ValidationError):
            reason = first_line(error.errors()[0]["msg"])
        raise RunError(
            f"{path} cannot be read: {reason}; delete it, and the search makes it again when it "
            "goes on"
        ) from None


def lacks_diagnostics(folder: Path) -> bool:
    """Whether the diagnostics of a round that was learned from are lost.

    Raises:
        RunError: the file of them is damaged.
    """
    return not set(range(current_round(folder))) <= round_diagnostics(folder).keys()


def rebuild_diagnostics(
    folder: Path, settings: SearchSettings, seed: int, costs: Costs, records: Sequence[Record]
) -> int:
    """Make the file of diagnostics again, by proposing and learning what the search did.

    Where the proposals come out otherwise, as on another machine they may, the rounds from there
    on stay without.

    Args:
        records: of the search's journal.

    Returns:
        How many rounds have diagnostics again.
    """
    strategy = make_strategy(settings, seed)
    rebuilt: dict[int, dict[str, float]] = {}
    closed = range(current_round(folder))
    for number in closed:
        _open_rounds(strategy, settings.rounds_ahead + 1, settings, costs)
        proposals = strategy.open_rounds[0]
        known = [record for record in records if record.round == number]
        if [proposal.genotype.id for proposal in proposals] != [record.id for record in known]:
            break
        results = [Result(one, record.reward) for one, record in zip(proposals, known, strict=True)]
        rebuilt[number] = strategy.tell(results)
    without: dict[int, dict[str, float]] = {number: {} for number in closed}
    _write_rounds(folder, {**without, **rebuilt, **round_diagnostics(folder)})
    return len(rebuilt)


def candidate_seed(seed: int, genotype_id: str) -> int:
    """The seed of a candidate's training: one network, one seed, whenever it is proposed."""
    return derive_seed(seed, "candidate", genotype_id)


def candidate_thresholds(
    settings: SearchSettings, seed: int, number: int, earlier: Sequence[Record]
) -> list[float]:
    """The early-stopping thresholds of candidate `number`, from the `earlier` trained ones.

    Those are the candidates of the rounds that the strategy knew: so they depend neither on how
    long any training took nor on the number of workers.
    """
    rng = np.random.default_rng(derive_seed(seed, "thresholds", number - 1))
    scores = [record.scores for record in earlier if record.scores]
    return stopping_thresholds(scores, settings.proxy.num_validations, settings.early_stopping, rng)


def _write_rounds(folder: Path, rounds: Mapping[int, Mapping[str, float]]) -> None:
    lines = []
    for number, values in rounds.items():
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        lines.append(json.dumps({"round": number, **finite}) + "\n")
    write_bytes(folder / ROUNDS_FILE, "".join(lines).encode())


def _open_rounds(strategy: Strategy, num: int, settings: SearchSettings, costs: Costs) -> None:
    """Ask until `num` rounds are open."""
    limits = settings.constraints
    while len(strategy.open_rounds) < num:
        strategy.ask(settings.batch_size, lambda genotype: costs.refusal(genotype, limits))


def _restore(folder: Path, settings: SearchSettings, seed: int) -> Strategy:
    strategy = make_strategy(settings, seed)
    path = folder / STATE_FILE
    if path.exists():
        state = load_state(path).get("strategy")
        if not isinstance(state, dict):
            raise RunError(f"{path} lacks the strategy: remove the run's folder to begin again")
        try:
            strategy.load_state_dict(state)
        except RunError as error:
            raise RunError(f"{path}: {error}") from None
    return strategy
