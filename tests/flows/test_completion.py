"""What a shell offers at the Tab key, asked as the shell asks."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import completion
from flows.servers.deployments import FLOWS, deployment_names

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_PROJECT_DIR", str(ROOT))
    monkeypatch.chdir(ROOT)


def test_names_of_the_project_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completion.profile_names("syn") == ["synthetic"]
    assert completion.model_names("arch0") == ["arch0-camvid"]
    assert completion.model_names("models/camvid0") == ["models/camvid0-camvid.safetensors"]
    assert completion.deployment_names("") == sorted(deployment_names(ROOT))
    assert completion.deployment_names("nas-s")[0].startswith("nas-search/")
    assert set(completion.DEPLOYED_FLOWS) == set(FLOWS)
    (tmp_path / "params.yaml").touch()
    search = tmp_path / "artifacts" / "searches" / "tiny-1"
    (search / "candidates" / "0123456789ab").mkdir(parents=True)
    (search / "journal.jsonl").touch()
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    assert completion.search_names("") == ["tiny-1"]
    assert completion.genotype_names("") == ["0123456789ab", "arch0", "arch1", "camvid0"]
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path / "none"))
    assert completion.profile_names("") == []


def test_a_shell_does_not_wait_for_torch() -> None:
    code = """
import os, sys
os.environ |= {"_NAS_COMPLETE": "complete_bash", "COMP_WORDS": "nas run nas-search/sy",
               "COMP_CWORD": "2"}
from flows.cli.main import app
try:
    app(prog_name="nas")
finally:
    print(sorted({"torch", "numpy", "pandas", "prefect", "mlflow"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["nas-search/synthetic", "[]"], done.stderr
