"""The rounds of a search, and the file of their diagnostics."""

from pathlib import Path

import pytest

from nas_core.base.errors import RunError
from nas_core.config import (
    ConstraintSettings,
    ControllerSettings,
    LatencySettings,
    NetworkSettings,
    SearchSettings,
)
from nas_core.search.costs import Costs
from nas_core.search.journal import Record
from nas_core.search.rounds import ROUNDS_FILE, STATE_FILE, Rounds

NUM_ROUNDS = 3


def settings_of(strategy: str, rounds_ahead: int = 0) -> SearchSettings:
    return SearchSettings.model_validate(
        {
            "strategy": strategy,
            "batch_size": 2,
            "rounds_ahead": rounds_ahead,
            "controller": ControllerSettings(epochs=1),
            "constraints": ConstraintSettings(max_parameters=None),
        }
    )


def costs_of(folder: Path) -> Costs:
    return Costs(folder / "latency.json", NetworkSettings(), 2, (32, 32), LatencySettings(), folder)


def rounds_of(folder: Path, settings: SearchSettings) -> Rounds:
    return Rounds(folder, settings, 0, costs_of(folder))


def run_search(folder: Path, settings: SearchSettings) -> list[Record]:
    """Rounds with made-up rewards, and a failure, as a journal has them."""
    records: list[Record] = []
    rounds = rounds_of(folder, settings)
    for number in range(NUM_ROUNDS):
        rewards = [0.1 * number, None]
        for reward, proposal in zip(rewards, rounds.propose(number), strict=True):
            records.append(
                Record(
                    index=len(records),
                    round=number,
                    candidate=len(records) + 1,
                    id=proposal.genotype.id,
                    genotype=proposal.genotype.to_dict(),
                    status="failed" if reward is None else "finished",
                    reward=reward,
                    num_parameters=1,
                    macs=1,
                    seed=0,
                    reason="no finite loss" if reward is None else "",
                )
            )
        rounds.learn(rewards)
    return records


@pytest.mark.parametrize(("strategy", "ahead"), [("ppo", 0), ("ppo", 1), ("evolution", 0)])
def test_lost_diagnostics_are_made_again(tmp_path: Path, strategy: str, ahead: int) -> None:
    settings = settings_of(strategy, ahead)
    records = run_search(tmp_path, settings)
    path = tmp_path / ROUNDS_FILE
    whole = path.read_bytes()
    assert not rounds_of(tmp_path, settings).lack_diagnostics()
    for damage in (b"", whole[: whole.index(b"\n") + 1], None):
        path.unlink() if damage is None else path.write_bytes(damage)
        rounds = rounds_of(tmp_path, settings)
        assert rounds.lack_diagnostics()
        assert rounds.rebuild_diagnostics(records) == NUM_ROUNDS
        assert path.read_bytes() == whole and not rounds.lack_diagnostics()


def test_diagnostics_that_cannot_be_made_again_are_left_out(tmp_path: Path) -> None:
    settings = settings_of("random")
    records = run_search(tmp_path, settings)
    whole = rounds_of(tmp_path, settings).diagnostics
    (tmp_path / ROUNDS_FILE).unlink()
    records[2] = records[2].model_copy(update={"id": "another"})
    rounds = rounds_of(tmp_path, settings)
    assert rounds.rebuild_diagnostics(records) == 1
    assert not rounds.lack_diagnostics()
    assert rounds_of(tmp_path, settings).diagnostics == {0: whole[0], 1: {}, 2: {}}


@pytest.mark.parametrize(
    "content",
    [
        "nonsense", "{", "[]", "null", "{}", '{"reward_mean": 1}', '{"round": Infinity}',
        '{"round": 1e400}', '{"round": 0, "loss": Infinity}', '{"round": 0, "loss": NaN}',
        '{"round": 0, "loss": 1e308}', '{"round": "0"}', '{"round": true}', '{"round": 0, "a": []}',
        "\n", "[" * 100_000, '{"round": 0}\n{"round"', '{"round": 0.5}', '{"round": -1}',
        '{"round": 0}\n{"round": 0}',
    ],
)  # fmt: skip
def test_damaged_diagnostics_are_refused_in_a_line(tmp_path: Path, content: str) -> None:
    (tmp_path / ROUNDS_FILE).write_text(f"{content}\n")
    with pytest.raises(RunError, match=r"rounds\.jsonl cannot be read: .*; delete it") as error:
        rounds_of(tmp_path, settings_of("random"))
    assert len(str(error.value).splitlines()) == 1


def test_a_diagnostic_that_is_not_finite_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_core.search.random_search import RandomSearch

    monkeypatch.setattr(RandomSearch, "_learn", lambda self, results: {"loss": float("nan")})
    settings = settings_of("random")
    run_search(tmp_path, settings)
    found = rounds_of(tmp_path, settings).diagnostics
    assert len(found) == NUM_ROUNDS and all("loss" not in values for values in found.values())


def test_the_strategy_of_another_process_goes_on_as_the_one_in_memory(tmp_path: Path) -> None:
    settings = settings_of("ppo", rounds_ahead=1)
    one = rounds_of(tmp_path / "one", settings)
    for number in range(NUM_ROUNDS):
        other = rounds_of(tmp_path / "other", settings)
        assert other.current == number
        for ahead in (0, 1):
            found, expected = other.propose(number + ahead), one.propose(number + ahead)
            assert [p.genotype.id for p in found] == [p.genotype.id for p in expected]
        assert other.learn([0.1, None]) == one.learn([0.1, None])
    for name in (ROUNDS_FILE, STATE_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_half_written_line_is_dropped_and_its_round_learned_from_again(tmp_path: Path) -> None:
    settings = settings_of("random")
    rounds = rounds_of(tmp_path, settings)
    rounds.propose(0)
    rounds.learn([0.1, 0.2])
    path = tmp_path / ROUNDS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:10])
    again = rounds_of(tmp_path, settings)
    assert again.current == 1 and not again.lack_diagnostics()
    again.learn([0.3, 0.4])
    assert path.read_bytes().startswith(whole) and path.read_bytes().count(b"\n") == 2
    assert [*rounds_of(tmp_path, settings).diagnostics] == [0, 1]


def test_a_round_that_was_not_closed_is_closed_again(tmp_path: Path) -> None:
    settings = settings_of("ppo")
    rounds = rounds_of(tmp_path, settings)
    for rewards in ([0.1, 0.2], [0.3, 0.4]):
        before = (tmp_path / STATE_FILE).read_bytes() if rounds.current else b""
        rounds.propose(rounds.current)
        rounds.learn(rewards)
    files = {name: (tmp_path / name).read_bytes() for name in (STATE_FILE, ROUNDS_FILE)}
    (tmp_path / STATE_FILE).write_bytes(before)  # killed between the line and the state
    again = rounds_of(tmp_path, settings)
    assert again.current == 1
    again.propose(1)
    again.learn([0.3, 0.4])
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
