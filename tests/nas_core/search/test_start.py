"""search.start_from: networks that every strategy begins with."""

import json
from pathlib import Path

import pytest

from nas_core.base.errors import RunError, SettingsError
from nas_core.config import LatencySettings, NetworkSettings, SearchSettings
from nas_core.search.costs import Costs
from nas_core.search.rounds import Rounds
from nas_core.search.start import check_start, start_networks
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.genotype import Genotype

NAMES = ("camvid0", "arch0", "arch1")


def costs_in(folder: Path) -> Costs:
    return Costs(
        folder / "latency.json", NetworkSettings(), 11, (360, 480), LatencySettings(), folder
    )


def settings_of(**changes: object) -> SearchSettings:
    return SearchSettings.model_validate({"batch_size": 2, "start_from": NAMES, **changes})


@pytest.mark.parametrize("strategy", ["ppo", "reinforce", "evolution", "pareto", "random"])
def test_they_are_proposed_first_and_learned_from(tmp_path: Path, strategy: str) -> None:
    settings = settings_of(strategy=strategy)
    start = start_networks(settings, tmp_path)
    assert start == [ARCHITECTURES[name] for name in NAMES]

    def rounds() -> Rounds:
        """As of a process that goes on."""
        return Rounds(tmp_path, settings, 0, costs_in(tmp_path), start)

    ids: list[str] = []
    for number in range(3):
        one = rounds()
        ids += [proposal.genotype.id for proposal in one.propose(number)]
        assert [p.genotype.id for p in rounds().propose(number)] == ids[-2:]
        costs = [(1.0,), (2.0,)] if strategy == "pareto" else None
        assert one.learn([0.5, 0.25], costs)["reward_mean"] == 0.375
    assert ids[:3] == [genotype.id for genotype in start]
    assert len(set(ids)) == len(ids)


def test_the_controller_has_their_probabilities(tmp_path: Path) -> None:
    """Else it could not learn from them as from its own."""
    settings = settings_of(strategy="ppo")
    start = start_networks(settings, tmp_path)
    proposals = Rounds(tmp_path, settings, 0, costs_in(tmp_path), start).propose(0)
    assert all(len(one.log_probs) == len(one.choices) for one in proposals)
    assert all(max(one.log_probs) <= 0 for one in proposals)


def test_what_is_not_there_or_named_twice_is_refused(tmp_path: Path) -> None:
    same = tmp_path / "same.json"
    same.write_text(json.dumps(ARCHITECTURES["arch0"].to_dict()))
    for names, message in (
        (["arch7"], r"search\.start_from: unknown architecture 'arch7'"),
        (["arch0", str(same)], r"search\.start_from: arch0 and .*same\.json are one network"),
        ([str(tmp_path / "none.json")], r"search\.start_from: .*none\.json"),
    ):
        with pytest.raises(SettingsError, match=message):
            start_networks(settings_of(start_from=names), tmp_path)


def test_one_over_a_limit_is_refused(tmp_path: Path) -> None:
    settings = settings_of(constraints={"max_parameters": 220_000})
    start: list[Genotype] = start_networks(settings, tmp_path)
    with pytest.raises(RunError, match=r"start_from: arch0 is over .*max_parameters"):
        check_start(start, settings, costs_in(tmp_path))
    check_start(start, settings_of(), costs_in(tmp_path))
