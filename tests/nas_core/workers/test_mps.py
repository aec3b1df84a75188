"""The service is a script here that keeps a diary: the real one wants a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nas_core.config import RunnerSettings, Settings
from nas_core.models.compute import Compute
from nas_core.workers import mps, room
from nas_core.workers.mps import CONTROL, PIPES, start_mps
from nas_core.workers.room import GIB, make_workers

sys.path.append(str(Path(__file__).parents[2] / "standins"))

import standin_calls as calls

SCRIPT = f"""#!/bin/sh
echo "$* $(cat) ${PIPES} ${{CUDA_VISIBLE_DEVICES-all}}" >> "$(dirname "$0")/diary"
"""


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / CONTROL
    path.write_text(SCRIPT)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(mps, "USUAL_PIPES", str(tmp_path / "none"))
    monkeypatch.setattr(mps, "USES_GPU", "")  # it does
    return path


def diary(control: Path) -> list[str]:
    return (control.parent / "diary").read_text().splitlines()


def test_workers_that_share_a_gpu_share_it_through_the_service(
    control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(runner=RunnerSettings(workers=3))
    compute = Compute(torch.device("cuda:0"), False)
    about = {"most": 3, "num_bytes": GIB, "time_limit": 120}
    monkeypatch.setattr(room, "_places_on_gpus", lambda *of: 3)
    workers = make_workers(settings, compute, **about)
    with workers:
        assert "3 share a GPU: MPS lets them use it at the same time" in workers.about
        (started,) = diary(control)
        pipes = workers.call(calls.variable, PIPES)
        assert Path(pipes).is_dir() and started == f"-d  {pipes} all"
    assert diary(control)[1:] == [f" quit {pipes} all"] and not Path(pipes).exists()
    workers.close()
    assert len(diary(control)) == 2


def test_why_there_is_none(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control.write_text("#!/bin/sh\nexit 1\n")
    assert start_mps()[0] is None and "take turns on it, for MPS does not start" in start_mps()[1]
    monkeypatch.setenv("PATH", str(control.parent / "empty"))
    assert start_mps() == (None, f"they take turns on it, for {CONTROL} is not there")
    (control.parent / "control").touch()
    monkeypatch.setenv(PIPES, str(control.parent))
    assert start_mps() == (None, "MPS runs already")


def test_a_service_through_which_nobody_gets_to_a_gpu_is_ended(
    control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mps, "USES_GPU", f"import os; raise SystemExit('{PIPES}' in os.environ)")
    found, said = start_mps()
    assert found is None and "no process can use it through MPS" in said
    started, ended = diary(control)
    pipes = started.split()[1]
    assert ended == f" quit {pipes} all" and not Path(pipes).exists()


def test_a_gpu_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", mps.USES_GPU], capture_output=True, check=False)
    assert done.returncode == (0 if torch.cuda.is_available() else 1)
