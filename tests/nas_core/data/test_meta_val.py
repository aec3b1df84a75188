from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_core.config import MetaValSettings
from nas_core.data.meta_val import MAX_FACTOR, MetaVal, choose_meta_val


def split_of(sizes: list[int]) -> tuple[list[str], list[str]]:
    """Names and groups; names are not padded, so their order as text is another one."""
    groups = [f"r{number}" for number, size in enumerate(sizes) for _ in range(size)]
    frames = [frame for size in sizes for frame in range(size)]
    names = [f"{group}_{frame}" for group, frame in zip(groups, frames, strict=True)]
    order = np.argsort(names)
    return [names[row] for row in order], [groups[row] for row in order]


def choose(sizes: list[int], fraction: float = 0.1, by: str = "groups", seed: int = 0) -> MetaVal:
    settings = MetaValSettings.model_validate({"fraction": fraction, "by": by, "seed": seed})
    return choose_meta_val(*split_of(sizes), settings)


def test_frames_are_drawn_one_by_one() -> None:
    chosen = choose([20, 20], 0.2, "frames", seed=4)
    assert chosen.val.tolist() == sorted(np.random.default_rng(4).permutation(40)[:8])
    assert (chosen.way, chosen.num_shared) == ("frames", 8)
    assert sum(chosen.groups.values()) == 8


def test_images_that_are_their_own_groups_are_drawn_alike_by_groups() -> None:
    own, drawn = choose([1] * 40, seed=3), choose([1] * 40, by="frames", seed=3)
    assert own.val.tolist() == drawn.val.tolist()
    assert own.reason == "each image is its own group" and own.groups == {}
    assert str(own) == (
        "meta-val: 4 images, meta-train: 36; drawn one by one (each image is its own group)"
    )


def test_of_many_groups_whole_ones_are_held_out() -> None:
    chosen = choose([12] * 20)
    assert chosen.way == "groups" and len(chosen.val) == 24 and len(chosen.train) == 216
    assert chosen.reason == "2 of 20" and chosen.num_shared == 0
    assert sorted(chosen.groups.values()) == [12, 12]
    others = {tuple(choose([12] * 20, seed=seed).groups) for seed in range(6)}
    assert len(others) > 1


def test_of_three_recordings_each_gives_a_block_with_gaps() -> None:
    chosen = choose([62, 101, 204])
    assert chosen.way == "blocks" and "3 groups" in chosen.reason
    assert chosen.groups == {"r0": 6, "r1": 10, "r2": 21}
    # Gaps of 3, 5 and 10 frames, where the block is not at an end.
    assert 367 - 37 - 2 * 18 <= len(chosen.train) <= 367 - 37 - 18


def test_five_groups_too_large_to_come_near_the_share_give_blocks() -> None:
    chosen = choose([40] * 5)
    assert (chosen.way, chosen.reason) == (
        "blocks",
        "no whole groups come to about search.meta_val.fraction",
    )


def test_groups_without_room_for_a_gap_are_drawn_one_by_one() -> None:
    chosen = choose([2, 2], 0.5)
    assert (chosen.way, chosen.reason) == (
        "frames",
        "the groups are too small for blocks with gaps",
    )
    assert len(chosen.val) == len(chosen.train) == 2


@pytest.mark.parametrize("by", ["frames", "groups"])
@pytest.mark.parametrize("sizes", [[30], [3], [1, 1, 1], [1, 1, 30], [6] * 6, [3, 50, 2, 1, 1, 7]])
@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_a_fraction_leaves_neither_part_empty(by: str, sizes: list[int], fraction: float) -> None:
    chosen = choose(sizes, fraction, by)
    assert len(chosen.val) >= 1 and len(chosen.train) >= 2


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12).filter(lambda s: sum(s) >= 3),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_whatever_the_groups(sizes: list[int], fraction: float, seed: int) -> None:
    chosen = choose(sizes, fraction, seed=seed)
    names, groups = split_of(sizes)
    train, val = set(chosen.train.tolist()), set(chosen.val.tolist())
    num = len(names)
    asked = max(1, min(round(num * fraction), num - 2))
    assert not train & val and len(train) >= 2
    assert chosen.val.tolist() == sorted(val) and chosen.train.tolist() == sorted(train)
    assert len(val) == sum(chosen.groups.values()) or not chosen.groups
    if chosen.way == "groups":
        assert not {groups[row] for row in train} & {groups[row] for row in val}
        assert len(train) + len(val) == num
        assert asked / MAX_FACTOR <= len(val) <= asked * MAX_FACTOR
        return
    assert len(val) == asked
    if chosen.way == "blocks":
        by_frame = sorted(range(num), key=lambda row: (groups[row], int(names[row].split("_")[1])))
        for pair in pairwise(by_frame):
            if groups[pair[0]] == groups[pair[1]]:
                assert not ({*pair} & train and {*pair} & val)
