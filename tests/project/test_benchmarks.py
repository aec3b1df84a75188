"""The benchmark that reads a finished search, as a person calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_core.search.journal import Header, Journal, Record
from nas_core.space.decisions import sample

ROOT = Path(__file__).parents[2]
HEADER = Header(
    format=1,
    settings={
        "seed": 3,
        "search": {"early_stopping": {"enabled": False, "delta": 0.4, "decay": 0.95}},
    },
    identity={},
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A search of eight candidates of which the better ones come last."""
    (tmp_path / "params.yaml").write_text("name: small\n")
    path = tmp_path / "artifacts" / "searches" / "small-1234" / "journal.jsonl"
    path.parent.mkdir(parents=True)
    with Journal.create(path, HEADER) as journal:
        for index in range(8):
            journal.append(_record(index, (0.2 + index / 20, 0.3 + index / 20), "finished"))
    return tmp_path


def _record(index: int, scores: tuple[float, ...], status: Any) -> Record:
    genotype = sample(np.random.default_rng(index))
    return Record(
        index=index,
        round=0,
        candidate=index + 1,
        id=genotype.id,
        genotype=genotype.to_dict(),
        status=status,
        reward=scores[-1],
        scores=scores,
        num_parameters=1,
        macs=1,
        seed=0,
        seconds={"stage_a": 4.0, "stage_b": 2.0, "validation": 2.0},
    )


def early_stopping(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.early_stopping", *arguments],
        cwd=ROOT,
        env={**os.environ, "NAS_PROJECT_DIR": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_rules_are_replayed(project: Path) -> None:
    done = early_stopping(project, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["search"], figures["candidates"]) == ("small-1234", 8)
    rules = figures["rules"]
    assert next(iter(rules)) == "delta 0.4, decay 0.95"  # the search's own
    for outcome in rules.values():
        # Each is better than all before it: none stops in this order, some do in others.
        assert outcome["own_order"] == {"saved": 0, "lost": 0, "kendall_tau": pytest.approx(1)}
        saved = outcome["random_orders"]["saved"]
        assert saved["p5"] <= saved["mean"] <= saved["p95"] <= 3 / 8
    half, two_thirds = (rules[f"upper {s} go on"]["random_orders"] for s in ("1/2", "2/3"))
    assert half["saved"]["mean"] > two_thirds["saved"]["mean"] > 0
    shown = early_stopping(project).stdout
    assert "upper 1/2" in shown and "0.02 h" in shown


def test_a_search_that_stopped_early_is_refused(project: Path) -> None:
    (path,) = project.glob("artifacts/searches/*/journal.jsonl")
    with Journal.open(path) as journal:
        journal.append(_record(8, (0.1,), "stopped early"))
    done = early_stopping(project)
    assert done.returncode == 1 and "search.early_stopping.enabled=false" in done.stderr
    assert "Traceback" not in done.stderr
