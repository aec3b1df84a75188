"""Tests that may be cut off at any time: those of a GPU first, and each one's outcome is kept.

A plugin of pytest, -p benchmarks.gpu.outcomes. NAS_TEST_OUTCOMES names a file of JSON lines; what
has an outcome there is left out, and so is what was begun twice and ended no test.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a machine without it has the rest of benchmarks.gpu
    import pytest

VARIABLE = "NAS_TEST_OUTCOMES"
BEGUN, PASSED, SKIPPED, FAILED = "begun", "passed", "skipped", "failed"
MOST_TRIES = 2


@dataclass
class Outcomes:
    """What became of tests, by their names for pytest."""

    of: dict[str, str]
    tries: Counter[str]

    @classmethod
    def read(cls, path: Path) -> Outcomes:
        """What a file holds, if it is there; a line that was cut off counts for nothing.

        Raises:
            OSError: it cannot be read.
        """
        found = cls({}, Counter())
        for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
            match _parsed(line):
                case [str(name), outcome] if outcome == BEGUN:
                    found.tries[name] += 1
                case [str(name), str(outcome)]:
                    found.of[name] = outcome
        return found

    @property
    def lost(self) -> list[str]:
        """Those that took the process down, or were cut off, each time."""
        return [
            name
            for name, number in self.tries.items()
            if number >= MOST_TRIES and name not in self.of
        ]

    def summary(self) -> dict[str, object]:
        counts = Counter(self.of.values())
        failed = [name for name, outcome in self.of.items() if outcome == FAILED]
        return {
            PASSED: counts[PASSED],
            SKIPPED: counts[SKIPPED],
            FAILED: failed,
            "lost": self.lost,
        }


def _parsed(line: str) -> object:
    try:
        parsed: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return parsed


def wants_gpu(item: pytest.Item) -> bool:
    reasons = [str(mark.kwargs.get("reason", "")) for mark in item.iter_markers("skipif")]
    return any("GPU" in reason for reason in reasons) or "cuda" in item.nodeid


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    outcomes = Outcomes.read(Path(os.environ[VARIABLE]))
    known = {*outcomes.of, *outcomes.lost}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in known])
    items[:] = sorted(
        (item for item in items if item.nodeid not in known),
        key=lambda item: not wants_gpu(item),
    )


def pytest_runtest_logstart(nodeid: str) -> None:
    _note(nodeid, BEGUN)


_worst: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed or (report.skipped and report.nodeid not in _worst):
        _worst[report.nodeid] = FAILED if report.failed else SKIPPED
    if report.when == "teardown":
        _note(report.nodeid, _worst.pop(report.nodeid, PASSED))


def _note(nodeid: str, outcome: str) -> None:
    with Path(os.environ[VARIABLE]).open("a") as file:
        file.write("\n" + json.dumps([nodeid, outcome]))  # the last line may be cut off
