import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import gpu

APP = typer.Typer()
APP.command()(gpu.main)


def test_the_dry_run_goes_on_where_its_time_was_up(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    out = tmp_path / "out"

    def call(minutes: float) -> tuple[dict[str, object], list[str]]:
        done = CliRunner().invoke(APP, ["--dry-run", "--minutes", str(minutes), "--out", str(out)])
        assert done.exit_code == 0, done.output
        return json.loads((out / "results.json").read_text()), done.stdout.splitlines()

    monkeypatch.setattr(gpu.Box, "seconds_left", 0.0)
    found, lines = call(9)
    assert found["done"] == [] and "best: not begun" in lines
    monkeypatch.undo()
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    found, lines = call(30)
    assert found["done"] == [*gpu.STEPS]
    assert found["tests"]["exit"] == 0
    rates = found["rates"]
    assert rates.keys() == {"baseline_candidates_per_hour", "1", "2"}
    assert all(rate > 0 for num in ("1", "2") for rate in rates[num].values())
    assert [len(found[name]["best"]) for name in gpu.SEARCHES] == [2, 2]
    assert "winner: 2 of 2 trainings" in lines
    # What is done is not done again.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again, _ = call(30)
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert again == found and not changed


def test_a_folder_that_cannot_be_used_is_named(small: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(APP, ["--out", str(tmp_path), "-S", f"dataset.path={os.devnull}"])
    assert done.exit_code == 1 and os.devnull in done.output
