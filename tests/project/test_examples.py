"""The scripts of examples/, as a reader runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Runs a script and then says which of these packages it has loaded.
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("loaded:", *sorted({"prefect", "mlflow", "dvc"} & set(sys.modules)))
"""


@pytest.mark.timeout(900)
def test_a_search_without_servers(tmp_path: Path) -> None:
    script = ROOT / "examples" / "search_without_servers.py"
    lines = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(script), str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
        *said, loaded = done.stdout.splitlines()
        assert loaded == "loaded:", loaded
        lines.append(said[-1])
        # The second time nothing is trained.
        assert ("going on after 4 candidates" in done.stderr) == (len(lines) == 2)
        assert ("epoch 2/2" in done.stderr) == (len(lines) == 1)
    assert lines[0] == lines[1]
    assert "parameters, test mIoU 0." in lines[0]
    assert {path.name for path in tmp_path.iterdir()} == {"artifacts", "scenes"}
