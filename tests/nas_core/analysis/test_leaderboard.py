from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from flows.cli.tables import candidates_table
from nas_core.analysis.leaderboard import (
    leaderboard,
    read_leaderboard,
    read_ranking,
    read_search,
)
from nas_core.base.errors import RunError
from nas_core.config import Settings
from nas_core.search.journal import Confirmation, Header, Journal, Record
from nas_core.search.searched import searched_genotypes
from nas_core.space.genotype import Genotype
from tasks.results import write_search_results

GENOTYPE: dict[str, list[list[int]]] = {
    "templates": [[3, 0, 1], [4, 1, 1], [3, 1, 1]],
    "structure": [[0, 1, 0, 0, 1], [2, 1, 2, 1, 0], *[[0, 1, 2, 0, 0]] * 5],
}
NETWORKS = [
    {**GENOTYPE, "structure": [*GENOTYPE["structure"][:6], [0, 1, in2, repeats, 0]]}
    for in2 in range(2)
    for repeats in range(4)
]
IDS = [Genotype.from_dict(network).id for network in NETWORKS]
COLUMNS = [
    "rank",
    "candidate",
    "id",
    "status",
    "reward",
    "reward_error",
    "seeds",
    "failed_seeds",
    "quality",
    "mean_iou",
    "frequency_weighted_iou",
    "mean_accuracy",
    "num_parameters",
    "macs",
    "latency_ms",
    "seconds",
    "genotype",
]


def make_table(folder: Path, rows: list[tuple[str, float | None]]) -> pd.DataFrame:
    """Of the networks in their order; a repeat is of the one before it."""
    num_trained = 0
    with Journal.create(
        folder / "journal.jsonl", Header(format=1, settings={}, identity={})
    ) as journal:
        for index, (status, reward) in enumerate(rows):
            network = index - (status == "repeat")
            num_trained += status != "repeat"
            metrics = {
                "mean_iou": 0.3,
                "frequency_weighted_iou": 0.6,
                "mean_accuracy": 0.4,
                "reward": reward,
            }
            journal.append(
                Record(
                    index=index,
                    round=0,
                    candidate=None if status == "repeat" else num_trained,
                    id=IDS[network],
                    genotype=NETWORKS[network],
                    status=status,
                    reward=reward,
                    metrics={} if reward is None else metrics,
                    num_parameters=200_000 + network,
                    macs=10**9 * 5,
                    seed=1000,
                    seconds={} if reward is None else {"a": 1.5, "b": 2.25},
                    reason="it broke" if status == "failed" else "",
                )
            )
        return leaderboard(journal.candidates)


def test_best_first_and_failed_last(tmp_path: Path) -> None:
    table = make_table(
        tmp_path,
        [
            ("failed", None),
            ("finished", 0.3),
            ("stopped early", 0.0),
            ("finished", 0.5),
            ("repeat", 0.5),
            ("failed", None),
            ("finished", 0.3),
        ],
    )
    assert list(table.columns) == COLUMNS
    assert table["id"].tolist() == [IDS[index] for index in (3, 1, 6, 2, 0, 5)]
    assert table["candidate"].tolist() == [4, 2, 6, 3, 1, 5]
    assert table["rank"].tolist() == [1, 2, 3, 4, pd.NA, pd.NA]
    assert table["reward"].dropna().tolist() == [0.5, 0.3, 0.3, 0.0]
    assert table["status"].tolist()[-3:] == ["stopped early", "failed", "failed"]
    best, worst = table.iloc[0], table.iloc[-1]
    assert best["mean_iou"] == 0.3
    assert best["frequency_weighted_iou"] == 0.6
    assert best["mean_accuracy"] == 0.4
    assert best["num_parameters"] == 200_003
    assert best["macs"] == 5 * 10**9
    assert best["seconds"] == 3.75
    assert pd.isna(worst["mean_iou"])
    assert Genotype.from_dict(json.loads(best["genotype"])).to_dict() == NETWORKS[3]


@pytest.mark.parametrize(
    "rows",
    [[], [("failed", None)], [("finished", 0.5), ("failed", None)]],
    ids=["none", "only failed", "some"],
)
def test_columns_and_types_do_not_depend_on_the_rows(
    tmp_path: Path, rows: list[tuple[str, float | None]]
) -> None:
    table = make_table(tmp_path, rows)
    assert len(table) == len(rows)
    full = make_table(tmp_path / "full", [("finished", 0.5)])
    assert table.dtypes.to_dict() == full.dtypes.to_dict()
    table.to_parquet(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table)
    assert table.to_csv(index=False).count("\n") == len(rows) + 1


def confirm(folder: Path, *confirmations: tuple[str, int, float | None]) -> None:
    with Journal.open(folder / "journal.jsonl") as journal:
        for one, run, reward in confirmations:
            known = {} if reward is None else {"reward": reward, "scores": (reward,)}
            journal.append(
                Confirmation(
                    confirms=one,
                    run=run,
                    status="failed" if reward is None else "finished",
                    metrics={} if reward is None else {"mean_iou": 0.5},
                    seed=run,
                    seconds={"a": 1.0},
                    reason="it broke" if reward is None else "",
                    **known,
                )
            )


def test_confirmed_ones_are_ranked_by_their_means(tmp_path: Path) -> None:
    rows: list[tuple[str, float | None]] = [("finished", 0.5), ("finished", 0.4), ("finished", 0.3)]
    make_table(tmp_path / "one", rows)
    confirm(tmp_path / "one", (IDS[0], 1, 0.3), (IDS[1], 1, 0.44), (IDS[1], 2, None))
    name, table = read_ranking(tmp_path)
    assert name == "one"
    assert table["id"].tolist() == [IDS[1], IDS[0], IDS[2]]
    assert table["rank"].tolist() == [1, 2, 3]
    assert table["reward"].tolist() == pytest.approx([0.42, 0.4, 0.3])
    assert table["seeds"].tolist() == [2, 2, 1]
    assert table["failed_seeds"].tolist() == [1, 0, 0]
    pooled = ((2 * 0.02**2 + 2 * 0.1**2) / 2) ** 0.5
    assert table["reward_error"].tolist()[:2] == pytest.approx([pooled / 2**0.5] * 2)
    assert pd.isna(table["reward_error"].iloc[2])
    assert table["mean_iou"].tolist() == pytest.approx([0.4, 0.4, 0.3])
    assert table["seconds"].tolist() == pytest.approx([5.75, 4.75, 3.75])


def test_what_is_trained_fully_is_chosen_by_the_mean(tmp_path: Path) -> None:
    make_table(tmp_path / "one", [("finished", 0.5), ("finished", 0.4)])
    confirm(tmp_path / "one", (IDS[0], 1, 0.2), (IDS[1], 1, 0.4))
    _, table = read_ranking(tmp_path)
    table.to_parquet(tmp_path / "candidates.parquet")
    assert read_leaderboard(tmp_path / "candidates.parquet")["id"].iloc[0] == IDS[1]
    settings, folder = Settings(name="one"), tmp_path / "one"
    journal = Journal.read(folder / "journal.jsonl")
    metrics = write_search_results(
        tmp_path, settings, folder, journal.candidates, journal.confirmations
    )
    assert (metrics.best, metrics.best_reward, metrics.num_confirmed) == (IDS[1], 0.4, 2)
    assert metrics.best_reward_error and metrics.mean_reward == pytest.approx(0.45)


def test_a_mean_is_shown_with_its_error(tmp_path: Path) -> None:
    make_table(tmp_path / "one", [("finished", 0.5), ("finished", 0.4)])
    confirm(tmp_path / "one", (IDS[0], 1, 0.46), (IDS[0], 2, None))
    console = Console(width=80, file=io.StringIO())
    console.print(candidates_table(*read_ranking(tmp_path), top=5))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "0.4800±.0200" in text and "2 seeds, 1" in text and "failed" in text
    assert "0.4000 " in text


def test_searches_are_found_by_name_or_the_latest(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no search yet"):
        read_search(tmp_path / "searches")
    for age, name in enumerate(["camvid-1", "other-3", "camvid-2"]):
        make_table(tmp_path / name, [("finished", 0.1), ("repeat", 0.1)][: 2 - age % 2])
        os.utime(tmp_path / name / "journal.jsonl", (1000 - age, 1000 - age))
    name, candidates = read_search(tmp_path)
    assert name == "camvid-1"
    assert [candidate.id for candidate in candidates] == [IDS[0]]
    assert read_search(tmp_path, "other-3")[0] == "other-3"
    with pytest.raises(
        RunError, match=r"no search 'camvid'; there are: camvid-1, camvid-2, other-3"
    ):
        read_search(tmp_path, "camvid")


def test_genotypes_of_all_searches(tmp_path: Path) -> None:
    assert searched_genotypes(tmp_path) == {}
    make_table(tmp_path / "a", [("finished", 0.1), ("failed", None)])
    make_table(tmp_path / "b", [("finished", 0.1), ("repeat", 0.1), ("finished", 0.2)])
    networks = [Genotype.from_dict(network) for network in NETWORKS[:3]]
    assert searched_genotypes(tmp_path) == dict(zip(IDS, networks, strict=False))


def another_format(path: Path) -> None:
    path.write_text('{"format":2,"settings":{},"identity":{}}\n')


def illegal_genotype(path: Path) -> None:
    text = path.read_text().replace("[0,1,0,0,1]", "[0,9,0,0,1]")
    path.write_text(re.sub(r',"checksum":"\w+"', "", text))


def changed_reward(path: Path) -> None:
    path.write_text(path.read_text().replace('"reward":0.1', '"reward":0.9'))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (another_format, "line 1: a journal of format 2"),
        (illegal_genotype, "line 2: genotype: layer 0: in2"),
        (changed_reward, "line 2 does not have the checksum"),
        (lambda path: path.write_bytes(b""), "line 1: the header is missing"),
    ],
)
def test_a_journal_that_cannot_be_read_is_left_out_with_a_warning(
    tmp_path: Path,
    damage: Callable[[Path], object],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_table(tmp_path / "old", [("finished", 0.1)])
    damage(tmp_path / "old" / "journal.jsonl")
    with pytest.raises(RunError, match=r"no journal\.jsonl there can be read"):
        read_search(tmp_path)
    assert searched_genotypes(tmp_path) == {}
    make_table(tmp_path / "new", [("finished", 0.2)])
    os.utime(tmp_path / "new" / "journal.jsonl", (1000, 1000))
    assert searched_genotypes(tmp_path).keys() == {IDS[0]}
    assert read_search(tmp_path)[0] == "new"
    (warning,) = caplog.messages
    assert warning.endswith("; this search is left out") and warning.count("\n") == 0
    assert f"old/journal.jsonl, {reason}" in warning


def test_a_journal_that_is_asked_for_is_not_left_out(tmp_path: Path) -> None:
    for name in ("old", "new"):
        make_table(tmp_path / name, [("finished", 0.1)])
    another_format(tmp_path / "old" / "journal.jsonl")
    with pytest.raises(RunError, match=r"old/journal\.jsonl, line 1: a journal of format 2"):
        read_search(tmp_path, "old")
