import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_long_search_in_small(tmp_path: Path, prefect_server: str) -> None:
    places = {"PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": prefect_server}
    environment = {**os.environ, **places}
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", "--candidates", "30", "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    figures = json.loads(found.stdout)
    assert figures["candidates"] == 30
    assert 0.9 < figures["memory_mib_ratio"] < 1.1
    assert figures["resume_seconds"] > 0 and figures["leaderboard_seconds"] > 0
