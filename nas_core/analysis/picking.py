"""One network to choose from all that a project has searched and trained.

Scores are compared only where the same was measured: full trainings with one recipe on one data
set by their mIoU on val, candidates by the reward of one proxy task. A score on test is never
looked at: what is chosen by it would be worth less than it says. Without torch and pandas.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from pydantic import JsonValue

from nas_core.base.documents import Document
from nas_core.base.errors import RunError, shown, some_of
from nas_core.config import NetworkSettings
from nas_core.search.journal import Journal
from nas_core.search.latencies import LATENCY_FILE, Latencies, with_latencies
from nas_core.search.ranking import Ranked, ranking
from nas_core.search.searched import journals, readable
from nas_core.training.record import Recipe, Training

log = logging.getLogger(__name__)

# What decides a reward, of the settings of a search.
_SCORING = ("proxy", "meta_val", "reward", "early_stopping")
# And what of a search's identity does not: other seeds and other ways through the space.
_NOT_SCORING = {"seed", "start", "search"}

Evidence = Literal["trained", "proxy"]


class Limits(Document):
    """What a network may cost at most; None: anything."""

    parameters: int | None = None
    macs: int | None = None
    latency_ms: float | None = None


class KnownNetwork(Document):
    """A network, what it costs, and what is known of it."""

    id: str
    num_parameters: int
    macs: int
    latency_ms: float | None
    """As its search measured it; None if none did."""
    latency_by: str | None
    """How that was, in words."""
    score: float
    """val mIoU or reward, from 0 to 1: the mean over the seeds."""
    score_error: float | None
    """The standard error of the mean; None with one seed."""
    seeds: int
    training_seeds: list[int]
    """Of its full trainings; empty if it has none."""
    verified: bool
    """Whether each of its full trainings was scored on test, once it was finished."""
    source: str
    """Name of its search, or of the folder of its first training."""


class Group(Document):
    """The networks within the limits whose scores compare, the best first."""

    data: str
    """Name of the data set."""
    evidence: Evidence
    """trained: fully, with one recipe. proxy: on one proxy task."""
    settings: dict[str, dict[str, JsonValue]]
    """Sections of the settings that they have in common: of trainings the recipe."""
    sources: list[str]
    """The searches, or the folders of the trainings."""
    num_within: int
    networks: list[KnownNetwork]
    """The best of them."""


class Picks(Document):
    """Of each data set the groups, that with the strongest evidence first."""

    limits: Limits
    num_networks: int
    """That have a score."""
    num_over: int
    """Of these, over a limit."""
    num_unmeasured: int
    """Of these, left out as their latency is not known."""
    groups: list[Group]


@dataclass(frozen=True)
class _Found:
    """A network with a score, and by what it is compared with others."""

    data: str
    evidence: Evidence
    measured_by: str
    settings: dict[str, dict[str, JsonValue]]
    """With the section network: one genotype is another network on another encoder."""
    network: KnownNetwork

    @property
    def key(self) -> tuple[str, str, str]:
        """Of the network."""
        return self.data, json.dumps(self.settings["network"], sort_keys=True), self.network.id


def pick(
    searches: Path, trainings: Path, limits: Limits, num: int, names: Sequence[str] = ()
) -> Picks:
    """The best networks within limits.

    A network that is trained fully counts by that, and no more by what the proxy task said of it.

    Args:
        searches: the folder of all searches.
        trainings: the folder of all full trainings. One without a score on val is left out.
        num: networks of each group.
        names: of searches, whose networks alone are looked at; all networks if empty.

    Raises:
        RunError: nothing has a score, nothing is within the limits, there is no search of a name,
            its journal or latencies cannot be read, or there is a limit of latency and the searches
            measured theirs in different ways. Where no search is named, a journal that
            cannot be read is left out, with a warning, as is a training.json.
    """
    paths = {path.parent.name: path for path in journals(searches)}
    for name in names:
        if name not in paths:
            raise RunError(f"{searches}: no search {shown(name)}; there are: {some_of(paths)}")
    # As everywhere: a search that is asked for is not left out.
    named = [(paths[name], Journal.read(paths[name])) for name in dict.fromkeys(names)]
    chosen = named or readable(paths.values())
    candidates = [found for path, journal in chosen for found in _candidates(path.parent, journal)]
    if limits.latency_ms is not None:
        _check_one_way([one.network for one in candidates], searches)
    latencies = {
        one.key: one.network.model_dump(include={"latency_ms", "latency_by"})
        for one in candidates
        if one.network.latency_ms is not None
    }
    trained = list(_trained(trainings, latencies))
    if names:
        searched = {one.key for one in candidates}
        trained = [one for one in trained if one.key in searched]
    known = {one.key for one in trained}
    rest = [one for one in candidates if one.key not in known]
    return _picks([*trained, *_without_repeats(rest)], limits, num, searches)


def _check_one_way(networks: Iterable[KnownNetwork], searches: Path) -> None:
    """Raise a RunError unless the searches measured their latencies alike."""
    measured = {one.source: one.latency_by for one in networks if one.latency_by is not None}
    ways: dict[str, list[str]] = {}
    for name, way in sorted(measured.items()):
        ways.setdefault(way, []).append(name)
    if len(ways) > 1:
        listed = "; ".join(f"{some_of(those, most=2)} {way}" for way, those in ways.items())
        raise RunError(
            f"{searches}: latencies of different kinds do not compare ({listed}); name the "
            "searches of one kind"
        )


def _picks(found: Sequence[_Found], limits: Limits, num: int, searches: Path) -> Picks:
    if not found:
        raise RunError(f"{searches}: no network has a score yet; start a search with `nas search`")
    over = [one for one in found if _is_over(one.network, limits)]
    unmeasured = [
        one
        for one in found
        if one not in over and limits.latency_ms is not None and one.network.latency_ms is None
    ]
    groups: dict[tuple[str, bool, str], list[_Found]] = {}
    for one in found:
        if one not in over and one not in unmeasured:
            key = (one.data, one.evidence == "proxy", one.measured_by)
            groups.setdefault(key, []).append(one)
    if not groups:
        raise RunError(_nothing_within([one.network for one in found], limits, len(unmeasured)))
    return Picks(
        limits=limits,
        num_networks=len(found),
        num_over=len(over),
        num_unmeasured=len(unmeasured),
        groups=[_group(groups[key], num) for key in sorted(groups)],
    )


def _group(members: Sequence[_Found], num: int) -> Group:
    first = members[0]
    # A mean and a single reward do not compare, see `ranking`.
    by_luck = first.evidence == "proxy"
    ordered = sorted(
        (one.network for one in members),
        key=lambda network: (by_luck and network.seeds == 1, -network.score, network.id),
    )
    return Group(
        data=first.data,
        evidence=first.evidence,
        settings=first.settings,
        sources=sorted({network.source for network in ordered}),
        num_within=len(ordered),
        networks=ordered[:num],
    )


def _is_over(network: KnownNetwork, limits: Limits) -> bool:
    pairs = (
        (network.num_parameters, limits.parameters),
        (network.macs, limits.macs),
        (network.latency_ms, limits.latency_ms),
    )
    return any(cost is not None and most is not None and cost > most for cost, most in pairs)


def _nothing_within(networks: Sequence[KnownNetwork], limits: Limits, num_unmeasured: int) -> str:
    least = (
        [f"{min(one.num_parameters for one in networks):,} parameters"]
        if (limits.parameters is not None)
        else []
    )
    if limits.macs is not None:
        least.append(f"{min(one.macs for one in networks):,} MACs")
    measured = [one.latency_ms for one in networks if one.latency_ms is not None]
    if limits.latency_ms is not None:
        least.append(f"{min(measured):.1f} ms" if measured else "no latency that was measured")
    unmeasured = f"; of {num_unmeasured} the latency is not known" if num_unmeasured else ""
    return (
        f"none of {len(networks)} networks is within the limits; the least that one has: "
        f"{', '.join(least)}{unmeasured}"
    )


def _candidates(folder: Path, journal: Journal) -> Iterable[_Found]:
    """Those of a search that have a reward."""
    records, way = journal.candidates, "by an earlier version, in PyTorch"
    if (path := folder / LATENCY_FILE).exists():
        known = Latencies.read(path)
        records = with_latencies(records, known.milliseconds)
        way = known.measured_by.in_words()
    data = str(journal.header.settings.get("name", folder.name.rpartition("-")[0]))
    settings = _sections(journal)
    conditions = _conditions(journal, settings["network"])
    for one in ranking(records, journal.confirmations):
        if one.reward is not None:
            network = _candidate(one, one.reward, folder.name, way)
            yield _Found(data, "proxy", conditions, settings, network)


def _sections(journal: Journal) -> dict[str, dict[str, JsonValue]]:
    """Those that make networks of the genotypes; as by default where an old journal lacks them."""
    found: dict[str, dict[str, JsonValue]] = {
        "network": NetworkSettings().model_dump(mode="json"),
        "encoder": {},
    }
    for name, known in found.items():
        section = journal.header.settings.get(name)
        known |= section if isinstance(section, dict) else {}
    return found


def _candidate(one: Ranked, reward: float, search: str, way: str) -> KnownNetwork:
    return KnownNetwork(
        id=one.record.id,
        num_parameters=one.record.num_parameters,
        macs=one.record.macs,
        latency_ms=one.record.latency_ms,
        latency_by=None if one.record.latency_ms is None else way,
        score=reward,
        score_error=one.reward_error,
        seeds=len(one.runs),
        training_seeds=[],
        verified=False,
        source=search,
    )


def _conditions(journal: Journal, network: dict[str, JsonValue]) -> str:
    """What two searches share if their rewards compare."""
    identity, settings = journal.header.identity, journal.header.settings
    section: Any = identity.get("search") or settings.get("search")
    scoring = {key: section.get(key) for key in _SCORING} if isinstance(section, dict) else {}
    reward = scoring.get("reward")
    if isinstance(reward, dict) and reward.get("cost") == "latency_ms":
        scoring["latency"] = section.get("latency")
    rest = {key: value for key, value in identity.items() if key not in _NOT_SCORING}
    return json.dumps([rest, scoring, network], sort_keys=True)


def _without_repeats(candidates: Iterable[_Found]) -> list[_Found]:
    """Of a network that several searches scored alike the score over the most seeds."""
    kept: dict[tuple[str, str, str], _Found] = {}
    for one in candidates:
        key = (one.data, one.measured_by, one.network.id)
        if key not in kept or one.network.seeds > kept[key].network.seeds:
            kept[key] = one
    return list(kept.values())


def _trained(
    trainings: Path, latencies: Mapping[tuple[str, str, str], Mapping[str, Any]]
) -> Iterable[_Found]:
    """The networks with a score on val, each over the seeds of one recipe."""
    alike: dict[tuple[str, str, str], list[tuple[str, bool, Training]]] = {}
    for path in sorted(trainings.glob("*/training.json")):
        try:
            training = Training.read(path)
        except RunError as error:
            log.warning("%s; this training is left out", error)
            continue
        if "mean_iou" in training.val:
            recipe = (training.recipe or Recipe()).model_dump()
            same = [training.data_hash, training.splits, list(training.input_size), recipe]
            key = (
                training.data or training.data_hash or "not recorded",
                json.dumps(same, sort_keys=True),
                training.id,
            )
            is_tested = path.with_name("test.json").is_file()
            alike.setdefault(key, []).append((path.parent.name, is_tested, training))
    for (data, measured_by, identity), runs in alike.items():
        by_seed = {one.seed: one.val["mean_iou"] for _, _, one in runs}
        scores = list(by_seed.values())
        folder, _, first = runs[0]
        network = KnownNetwork(
            id=identity,
            num_parameters=first.num_parameters,
            macs=first.macs,
            latency_ms=None,
            latency_by=None,
            score=fmean(scores),
            score_error=stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None,
            seeds=len(scores),
            training_seeds=sorted(by_seed),
            verified=all(is_tested for _, is_tested, _ in runs),
            source=folder,
        )
        settings = (first.recipe or Recipe()).model_dump()
        found = _Found(data, "trained", measured_by, settings, network)
        measured = network.model_copy(update=latencies.get(found.key))
        yield replace(found, network=measured)
