import json
import os
import secrets
import shutil
from pathlib import Path

# Both are read when Ray is imported. The workers inherit them.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.scaling import main

pytestmark = pytest.mark.slow

APP = typer.Typer()
APP.command()(main)
ROOT = Path(__file__).parents[2]
SMALL = (
    "dataset.synthetic.num_train=10",
    "dataset.synthetic.num_val=2",
    "dataset.synthetic.num_test=2",
    "dataset.synthetic.height=48",
    "dataset.synthetic.width=64",
    "search.proxy.height=48",
    "search.proxy.width=64",
    "search.proxy.epochs_a=1",
    "compute.precision=fp32",
)


def test_one_and_two_workers_of_both_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    settings = [part for setting in SMALL for part in ("-S", setting)]
    result = CliRunner().invoke(APP, ["-p", "synthetic", *settings, "--pairs", "1", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert set(figures) == {"device", "num_candidates", "process", "ray"}
    assert figures["num_candidates"] == 2 and "1 threads" in figures["device"]
    for kind in ("process", "ray"):
        one, two, ratio = (
            figures[kind][key]
            for key in ("candidates_per_hour_1", "candidates_per_hour_2", "ratio")
        )
        assert one > 0 and two > 0 and ratio == two / one
