"""Who is trained again, from made-up rewards."""

from __future__ import annotations

import numpy as np

from nas_core.search.journal import Confirmation, Record
from nas_core.search.racing import Race, hopeless, open_round
from tests.nas_core.search.test_journal import make_record

# Two good ones, one close behind them, three that are clearly worse; the noise is 0.004.
TRUE = (0.60, 0.598, 0.594, 0.56, 0.55, 0.54)


def drawn(seed: int, num: int = 10) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return [[float(value) for value in rng.normal(true, 0.004, num)] for true in TRUE]


def play(rewards: list[list[float]], top: int, max_seeds: int) -> list[int]:
    """How many further rewards each got."""
    known: list[list[float | None]] = [[values[0]] for values in rewards]
    while True:
        number, lacking = open_round(known, top, max_seeds)
        if not lacking:
            return [len(values) - 1 for values in known]
        for index in lacking:
            assert len(known[index]) == number
            known[index].append(rewards[index][number])


def test_what_is_hopeless_is_dropped_and_near_ties_go_on() -> None:
    for seed in range(20):
        good, good_too, close, *worse = play(drawn(seed), top=2, max_seeds=5)
        assert good == good_too == 5 or good == good_too == close
        assert all(num == 1 for num in worse)


def test_the_race_ends_when_the_best_are_told_apart() -> None:
    assert play(drawn(0), top=3, max_seeds=5) == [1] * 6
    assert play(drawn(0), top=6, max_seeds=5) == [0] * 6, "all of them are wanted"
    assert play(drawn(0)[:1], top=1, max_seeds=5) == [0]


def test_no_one_gets_more_seeds_than_there_are() -> None:
    equal = [[0.5, 0.6] * 5, [0.6, 0.5] * 5]
    assert play(equal, top=1, max_seeds=3) == [3, 3]
    assert play([[0.5] * 5, [0.5] * 5], top=1, max_seeds=3) == [3, 3], "a tie without any noise"
    assert play([[0.5] * 5, [0.4] * 5], top=1, max_seeds=3) == [1, 1]


def test_a_failed_training_neither_drops_nor_saves() -> None:
    assert open_round([[0.6, None], [0.5, 0.51], [0.6, 0.59]], 1, 2) == (2, [0, 2])
    assert open_round([[0.6, None], [0.5, None]], 1, 2) == (2, [0, 1])
    assert open_round([[0.6, None, None], [0.5, None, None]], 1, 2) == (2, [])


def test_a_round_asks_for_what_it_lacks_alone() -> None:
    assert open_round([[0.6], [0.59, 0.6], [0.58]], 1, 3) == (1, [0, 2])
    # Rewards of a later round do not count in an earlier one.
    assert open_round([[0.6, 0.6, 0.1], [0.59, 0.6], [0.2, 0.2]], 1, 2) == (2, [1])


def test_the_level_of_the_test_is_that_of_one_comparison() -> None:
    """With equal networks a tenth of those that are compared with the best of two is dropped."""
    rng = np.random.default_rng(0)
    num = 4000
    dropped = sum(
        bool(hopeless([list(rng.normal(0.5, 0.01, 4)), list(rng.normal(0.5, 0.01, 4))], 1))
        for _ in range(num)
    )
    # Either may be the lower one: twice the level.
    assert abs(dropped / num - 0.2) < 0.02


def confirmations(identifier: str, *rewards: float | None) -> list[Confirmation]:
    return [
        Confirmation(
            confirms=identifier,
            run=number,
            status="finished" if reward is not None else "failed",
            reward=reward,
            scores=() if reward is None else (reward,),
            seed=number,
            reason="" if reward is not None else "no luck",
        )
        for number, reward in enumerate(rewards, start=1)
    ]


def candidates() -> list[Record]:
    statuses = ["finished", "stopped early", "finished", "failed", "finished", "finished"]
    rewards = [0.4, 0.9, 0.6, None, 0.5, 0.6]
    return [
        make_record(index, status, reward=reward)
        for index, (status, reward) in enumerate(zip(statuses, rewards, strict=True))
    ]


def test_the_best_that_finished_race_in_the_order_of_their_rewards() -> None:
    records = candidates()
    race = Race(candidates=3, max_seeds=2, top=1)
    first = race.open_runs(records, [])
    assert [(record.index, number) for record, number in first] == [(2, 1), (5, 1), (4, 1)]
    one = confirmations(records[5].id, 0.6)
    assert [record.index for record, _ in race.open_runs(records, one)] == [2, 4]
    all_of_them = one + confirmations(records[2].id, 0.601) + confirmations(records[4].id, 0.5)
    assert [(record.index, n) for record, n in race.open_runs(records, all_of_them)] == [
        (2, 2), (5, 2),
    ]  # fmt: skip
    for number in (0, 1):
        assert Race(candidates=number, max_seeds=2, top=1).open_runs(records, []) == []


def test_confirmations_of_others_do_not_matter() -> None:
    records = candidates()
    race = Race(candidates=2, max_seeds=1, top=1)
    others = confirmations(records[0].id, 0.9, 0.9)
    assert race.open_runs(records, others) == race.open_runs(records, [])
