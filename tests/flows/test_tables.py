"""Tables of the command line in a terminal of 80 columns."""

import io
from pathlib import Path

from rich.console import Console

from flows.cli.tables import candidates_table, print_comparison
from nas_core.analysis.comparison import ComparedSearch, compare_searches
from nas_core.analysis.leaderboard import leaderboard
from nas_core.config import Settings
from nas_core.space.architectures import ARCHITECTURES
from tests.nas_core.analysis.searches import failed, real_candidates, record_of


def test_a_candidate_takes_a_line_of_80_columns() -> None:
    rows = real_candidates(3)
    table = leaderboard(
        [
            record_of(rows[0], 1000),
            record_of(rows[1], 1001, status="stopped early", scores=(0.3,), reward=0.3),
            failed(rows[2], 1002, "the loss is not finite"),
        ]
    )
    shown = io.StringIO()
    Console(file=shown, width=80).print(candidates_table("synthetic-0123abcd", table, top=10))
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for row, ended in zip(rows, ("", "early", "failed"), strict=True):
        (line,) = [line for line in lines if row["id"] in line]
        assert line.rstrip("│ ").endswith(ended)
    assert len([line for line in lines if line.startswith("│")]) == 3


def test_an_architecture_with_a_name_has_it_in_place_of_its_id() -> None:
    (row,) = real_candidates(1)
    record = record_of({**row, "id": ARCHITECTURES["arch0"].id}, 1000)
    shown = io.StringIO()
    table = candidates_table("synthetic-0123abcd", leaderboard([record]), top=10)
    Console(file=shown, width=80).print(table)
    assert "│ arch0 " in shown.getvalue() and record.id not in shown.getvalue()


def test_a_strategy_takes_a_line_of_80_columns(tmp_path: Path) -> None:
    records = [record_of(row, index) for index, row in enumerate(real_candidates(12))]
    searches = [ComparedSearch("ppo-independent", seed, f"s{seed}", records) for seed in range(3)]
    shown = io.StringIO()
    report = compare_searches(searches, 10).figures
    print_comparison(Console(file=shown, width=80), tmp_path, Settings(), report)
    (line,) = [line for line in shown.getvalue().splitlines() if "ppo-independent" in line]
    assert len(line) <= 80 and "0, 1, 2" in line and "…" not in line
