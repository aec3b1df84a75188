"""The strategies on tables of all networks: made-up ones in the format of TransNAS-Bench-101."""

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import pareto
from benchmarks.strategies import NUM_NETWORKS, NUM_ROUNDS, KnownSpace, play, read_tables
from nas_core.base.errors import RunError
from nas_core.config import SearchSettings
from nas_core.space.decisions import Decision

ROOT = Path(__file__).parents[2]
MICRO_FILE = "transnas_micro_segmentation.csv"
MACRO_FILE = "transnas_macro_segmentation.csv"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each operation 3 makes a micro network better, each module 4 a macro network."""
    folder = tmp_path_factory.mktemp("tables")
    with (folder / MICRO_FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"edge{edge}" for edge in range(6)), "val_accuracy"])
        for edges in itertools.product(range(4), repeat=6):
            writer.writerow([*edges, sum(edges)])
    with (folder / MACRO_FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "val_accuracy"])
        for length in (4, 5, 6):
            for modules in itertools.product(range(1, 5), repeat=length):
                # Some are missing in the real one too.
                if modules[0] != 1:
                    writer.writerow([modules, sum(modules)])
    return folder


def test_tables_are_spaces(folder: Path) -> None:
    tables = read_tables(folder)
    assert {name: len(known.accuracy) for name, known in tables.items()} == {
        "micro": 4**6,
        "macro": 3 * (4**3 + 4**4 + 4**5),
    }
    # The best, one of the six that come next, and a macro network whose last two are ignored.
    assert tables["micro"].num_better([18, 17, 16.5]).tolist() == [0, 1, 7]
    four = tables["macro"].space.decode((0, 3, 3, 3, 3, 1, 2))
    assert tables["macro"].accuracy[four.id] == 16
    assert tables["macro"].refusal(four) is None
    assert tables["macro"].refusal(tables["macro"].space.decode((0, 0, 3, 3, 3, 1, 2)))


@pytest.mark.parametrize("name", ["ppo", "evolution"])
def test_a_strategy_that_learns_beats_chance_and_does_not_repeat_itself(
    name: str, folder: Path
) -> None:
    known = read_tables(folder)["macro"]
    left = {}
    for strategy in (name, "random"):
        best, new_share = play(known, SearchSettings.model_validate({"strategy": strategy}), 0)
        assert len(best) == NUM_NETWORKS and best == sorted(best)
        assert new_share >= 0.9
        left[strategy] = known.num_better(best)[-1]
    assert left[name] < left["random"]


def test_a_search_of_few_networks_ends_and_counts_what_it_repeats() -> None:
    known = KnownSpace(
        (Decision("op", 3, 0), Decision("op", 3, 1)),
        lambda choices: str(tuple(choices)),
        {str((a, b)): 3.0 * a + b for a in range(3) for b in range(3)},
    )
    best, new_share = play(known, SearchSettings(strategy="random"), 0)
    assert best[8:] == [8.0] * (NUM_NETWORKS - 8)
    assert new_share == 9 / (NUM_ROUNDS * SearchSettings().batch_size)


def test_rows(folder: Path) -> None:
    options = ["--tables", str(folder), "--seeds", "2", "--json"]
    done = run(*options, "--strategy", "evolution", "--strategy", "random")
    assert done.returncode == 0, done.stderr
    rows = {(row["table"], row["strategy"]): row for row in json.loads(done.stdout)}
    assert list(rows) == list(itertools.product(("micro", "macro"), ("evolution", "random")))
    for (table, strategy), row in rows.items():
        known = read_tables(folder)[table]
        settings = SearchSettings.model_validate({"strategy": strategy})
        best = [play(known, settings, seed)[0][-1] for seed in (1000, 1001)]
        assert row["seeds"] == 2 and row["new_share"] == 1
        assert row["better_left"] == known.num_better(best).mean()
        assert len(row["curve"]) == NUM_NETWORKS
        assert row["curve"] == sorted(row["curve"], reverse=True)
        assert row["curve"][-1] == 1 + row["better_left"]


def test_a_front_is_compared_with_that_of_the_whole_table(folder: Path) -> None:
    assert pareto.hypervolume([(1, 4), (3, 6), (2, 3), (9, 9)], 5, 1) == 4 * 3 + 2 * 2
    for table, known in read_tables(folder).items():
        shares = {
            name: pareto.play(table, known, SearchSettings.model_validate({"strategy": name}), 0, 1)
            for name in ("pareto", "random")
        }
        assert 0 < shares["random"] < shares["pareto"] <= 1


def test_tables_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    done = run("--tables", str(tmp_path), "--seeds", "1")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{tmp_path / MICRO_FILE} cannot be read: No such file" in done.stderr
    assert "--tables" in done.stderr
    lines = (folder / MICRO_FILE).read_text().splitlines()
    for text, message in (
        ("edge0,edge1\n1,2\n", "is no table of TransNAS-Bench-101"),
        ("\n".join([*lines[:200], "a,0,0,0,0,0,1"]), "is no table of TransNAS-Bench-101"),
        ("\n".join(lines[:5]), "has 4 networks, expected 100 or more"),
        ("\x00", "has 0 networks"),
    ):
        (tmp_path / MICRO_FILE).write_text(text)
        with pytest.raises(RunError, match=message):
            read_tables(tmp_path)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.strategies", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(20)
@pytest.mark.parametrize("accuracy", ["nan", "101", "\0" + "1" * 200_000, "a" * 100_000, None])
def test_a_table_that_cannot_be_used_is_named(
    folder: Path, tmp_path: Path, accuracy: str | None
) -> None:
    path = tmp_path / MICRO_FILE
    if accuracy is None:
        os.mkfifo(path)
    else:
        path.write_text((folder / MICRO_FILE).read_text() + f"0,0,0,0,0,0,{accuracy}\n")
    with pytest.raises(RunError, match=MICRO_FILE) as error:
        read_tables(tmp_path)
    assert len(str(error.value)) < 500 + len(str(tmp_path))


def test_a_macro_network_that_is_none_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / MICRO_FILE, tmp_path)
    for arch in ("(1, 1, 1)", "(1, 1, 1, 5)", "1111", ""):
        (tmp_path / MACRO_FILE).write_text(f'arch,val_accuracy\n"{arch}",1\n')
        with pytest.raises(RunError, match=rf"{MACRO_FILE} is no table .*no macro network"):
            read_tables(tmp_path)
