"""What a search is: the folder of all that decides what it finds, and the seeds of its candidates.

The folder's name ends in a digest of data, encoder weights, seed, precision, the settings of the
search and the code that carries it out. The number of candidates is not part of it: raising it
continues the search; nor is how its best are confirmed, which changes no proposal; nor are sections
of other strategies; nor, where it depends on no latency, what measures one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue

from nas_core.base.code import SEARCH, code_digest
from nas_core.base.errors import RunError
from nas_core.base.files import digest_of
from nas_core.base.seeds import derive_seed
from nas_core.config import SearchSettings, Settings, StrategySettings
from nas_core.models.compute import Compute
from nas_core.search.costs import needs_latency
from nas_core.search.journal import FORMAT, Header, Journal, Record
from nas_core.space.genotype import Genotype
from nas_core.training.early_stopping import stopping_thresholds
from nas_core.training.proxy_task import num_validations

# Settings of a search that may change between its beginning and its end.
UNBINDING = {"num_candidates", "max_failures", "start_from", "confirm"}

Identity = dict[str, JsonValue]
"""All that decides a result."""


def search_identity(
    settings: Settings,
    data_hash: str,
    encoder_digest: str,
    compute: Compute,
    start: Sequence[Genotype],
) -> Identity:
    """All that decides what a search finds.

    Args:
        start: the networks of `search.start_from`, which may have several names.
    """
    search = settings.search
    unbinding: dict[str, Any] = dict.fromkeys({*UNBINDING, *_of_other_strategies(search)}, True)
    unbinding["latency"] = {"time_limit"} if needs_latency(search) else True
    return {
        **conditions(settings, data_hash, encoder_digest, compute, SEARCH),
        "start": [genotype.id for genotype in start],
        "network": settings.network.model_dump(mode="json"),
        "search": search.model_dump(mode="json", exclude=unbinding),
    }


def _of_other_strategies(settings: SearchSettings) -> set[str]:
    """The sections that decide nothing with this strategy."""
    return {
        name
        for name, section in settings
        if isinstance(section, StrategySettings) and settings.strategy not in section.strategies
    }


def conditions(
    settings: Settings, data_hash: str, encoder_digest: str, compute: Compute, entry: str
) -> Identity:
    """What decides the rewards beside the settings of search and network.

    Args:
        data_hash: see `PreparedData.search_hash`.
        entry: the module of the code, see `code_digest`.
    """
    return {
        "data": data_hash,
        "encoder": f"{settings.network.encoder} {encoder_digest}",
        "seed": settings.seed,
        "bf16": compute.bf16,
        "device": compute.device.type,
        "torch": torch.__version__,
        "code": code_digest(entry),
    }


def search_folder(searches: Path, name: str, identity: Identity) -> Path:
    return searches / f"{name}-{digest_of(identity)}"


def changed_parts(old: Identity, new: Identity) -> set[str]:
    """The keys that differ between two identities.

    `settings` in place of `search`, if there are other settings and none has another value: so it
    is where a version of this program knows settings that another one does not.
    """
    changed = {key for key in {*new, *old} if old.get(key) != new.get(key)}
    before, now = (dict(_leaves(values.get("search"))) for values in (old, new))
    if before.keys() != now.keys() and all(before[key] == now[key] for key in before.keys() & now):
        changed = changed - {"search"} | {"settings"}
    return changed


def _leaves(values: JsonValue, key: str = "") -> Iterator[tuple[str, JsonValue]]:
    if not isinstance(values, dict):
        yield key, values
        return
    for name, value in values.items():
        yield from _leaves(value, f"{key}.{name}")


def open_journal(path: Path, settings: Settings, identity: Identity) -> Journal:
    """Begin the journal of a search, or go on with it; see `Journal`.

    Raises:
        RunError: see `Journal.open` and `Journal.create`, or it is the journal of another search.
    """
    if path.exists():
        journal = Journal.open(path)
        if changed := changed_parts(journal.header.identity, identity):
            journal.close()
            raise RunError(
                f"{path}, line 1: the journal of another search, by {', '.join(sorted(changed))}: "
                "move it back to its own folder"
            )
        return journal
    header = Header(format=FORMAT, settings=settings.model_dump(mode="json"), identity=identity)
    return Journal.create(path, header)


# What a user has not set himself.
_REASONS = {
    "data": "the prepared data",
    "encoder": "the encoder's weights",
    "bf16": "the precision",
    "device": "the kind of device",
    "torch": "torch's version",
    "code": "the code of the search",
    "settings": "the settings that there are",
}


def why_anew(folder: Path, name: str, identity: Identity) -> str | None:
    """A warning, if there is a search that differs in nothing but what the user did not set."""
    others = [p for p in folder.parent.glob(f"{name}-*/journal.jsonl") if p.parent != folder]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            other = Journal.read(path).header.identity
        except RunError:
            continue
        changed = changed_parts(other, identity)
        if changed <= _REASONS.keys():
            reasons = " and ".join(words for key, words in _REASONS.items() if key in changed)
            return (
                f"{folder.name} begins anew beside {path.parent.name}, which cannot be gone on "
                f"with: {reasons} changed since"
            )
    return None


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
    num = num_validations(settings.proxy)
    return stopping_thresholds(scores, num, settings.early_stopping, rng)
