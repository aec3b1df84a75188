"""The pipeline of dvc.yaml, run by DVC in a copy of the project on a few tiny images."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import DeploymentStatus
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from nas_core.config import SyntheticSettings
from nas_core.data.synthetic import draw_dataset
from nas_core.loading import load_settings
from nas_core.search.journal import Journal, Record
from nas_core.search.loop import Search
from nas_core.training.evaluation import PICTURES
from nas_core.workers.local import InProcessWorkers
from tests.tiny import lay_over, tiny

# The first test waits for the stages: two minutes on two cores that do nothing else.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[2]
IMAGES = {"num_train": 8, "num_val": 2, "num_test": 2, "height": 40, "width": 56}
PARAMS = tiny(
    dataset={"path": "drawn", "synthetic": IMAGES},
    search={"meta_val": {"fraction": 0.25}, "early_stopping": {"enabled": False}},
)


class Project:
    """A copy of what git knows of the project, with a git repository and settings of its own."""

    def __init__(self, root: Path, prefect_api: str) -> None:
        self.root = root
        listed = _output(["git", "ls-files", "-z"], ROOT)
        # Without the import of CamVid, whose source `dvc exp run` looks up on the internet.
        for name in {*listed.split("\0")} - {"", "data.dvc"}:
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        self.write_params(PARAMS)
        draw_dataset(root / "drawn", SyntheticSettings(**IMAGES))
        with (root / ".gitignore").open("a") as ignored:
            ignored.write("/drawn\n")
        scripts = Path(sys.executable).parent
        self.environment = {
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(root),
            "PREFECT_API_URL": prefect_api,
            "PREFECT_HOME": str(root.parent / "prefect"),
            "OMP_NUM_THREADS": "1",
        }
        for variable in ("NAS_PROJECT_DIR", "MLFLOW_TRACKING_URI"):
            self.environment.pop(variable, None)
        for command in (
            ["git", "init", "-q"],
            ["git", "config", "user.name", "Test"],
            ["git", "config", "user.email", "test@example.com"],
            ["git", "add", "."],
            ["git", "commit", "-qm", "A copy"],
        ):
            _output(command, root)

    def write_params(self, changes: dict[str, Any]) -> None:
        params = yaml.safe_load((self.root / "params.yaml").read_text())
        lay_over(params, changes)
        (self.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def run(self, *arguments: str) -> str:
        """Run Python with these arguments in the project; what it prints."""
        return _output([sys.executable, *arguments], self.root, self.environment)

    def dvc(self, *arguments: str) -> str:
        return self.run("-m", "dvc", *arguments)

    def lock(self, stage: str) -> Any:
        return yaml.safe_load((self.root / "dvc.lock").read_text())["stages"][stage]

    def results(self, stage: str) -> Path:
        return self.root / "artifacts" / "results" / "tiny" / stage

    def candidates(self) -> list[Record]:
        """What the journal of the only search holds; nothing before there is one."""
        journals = list(self.root.glob("artifacts/searches/*/journal.jsonl"))
        assert len(journals) <= 1
        return Journal.read(journals[0]).candidates if journals else []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Project:
    return Project(tmp_path_factory.mktemp("copy") / "project", prefect_server)


@pytest.fixture(scope="module")
def interrupted(project: Project) -> list[Record]:
    """The candidates of a search whose `dvc repro` was killed with all that it started."""
    with (project.root / "repro.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro"],
            cwd=project.root,
            env=project.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not project.candidates():
            assert process.poll() is None, (project.root / "repro.log").read_text()
            time.sleep(0.02)
    finally:
        with suppress(ProcessLookupError):  # it ended by itself, which is the failure
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return project.candidates()


@pytest.fixture(scope="module")
def reproduced(project: Project, interrupted: list[Record]) -> Project:
    """The project after `dvc repro` was called again."""
    assert not (project.results("search") / "candidates.parquet").exists()
    project.dvc("repro")
    return project


def test_all_stages_leave_their_results(reproduced: Project) -> None:
    files = {
        "search": {
            "candidates.parquet",
            "metrics.json",
            "pareto.csv",
            "pareto.png",
            "progress.csv",
            "summary.json",
        },
        "train": {"curves.csv", "metrics.json", "models", "summary.json", "trainings.json"},
        "evaluate": {"classes.csv", "metrics.json", "pictures", "summary.json"},
    }
    for stage, names in files.items():
        assert {p.name for p in reproduced.results(stage).iterdir()} == names
    metrics = json.loads((reproduced.results("evaluate") / "metrics.json").read_text())
    best = json.loads((reproduced.results("search") / "metrics.json").read_text())["best"]
    assert list(metrics) == [best]
    shown = json.loads(reproduced.dvc("metrics", "show", "--json"))[""]["data"]
    assert {(Path(path).parent.name, role, *values) for path, summary in shown.items()
            for role, values in summary["data"].items()} == {
        ("search", "best", "reward"),
        ("search", "second", "reward"),
        ("train", "best", "parameters", "val_miou"),
        ("evaluate", "best", "test_miou"),
    }  # fmt: skip
    table = reproduced.dvc("metrics", "show", "--precision", "3")
    assert max(map(len, table.splitlines())) <= 130


def test_an_interrupted_search_goes_on(interrupted: list[Record], reproduced: Project) -> None:
    candidates = reproduced.candidates()
    assert 1 <= len(interrupted) < len(candidates) == 3
    assert candidates[: len(interrupted)] == interrupted


def by_command(project: Project) -> None:
    code = "from flows.cli.main import main; main()"
    project.run("-c", code, "search", "--stage", "search")


def by_library(project: Project) -> None:
    settings = load_settings(root=project.root)
    with Search.open(settings, project.root, InProcessWorkers()) as search:
        search.run()


def by_deployment(project: Project) -> None:
    """What `nas up` does for one: it is served, and a run of it is asked for."""
    serving = subprocess.Popen(
        [sys.executable, "-m", "flows.servers.deployments"],
        cwd=project.root,
        env=project.environment,
    )
    try:
        while not is_served("nas-search/camvid", project.environment["PREFECT_API_URL"]):
            assert serving.poll() is None
            time.sleep(0.5)
        run = ("deployment", "run", "nas-search/camvid", "--param", 'stage="search"', "--watch")
        project.run("-m", "prefect", *run)
    finally:
        serving.terminate()
        serving.wait()


def is_served(name: str, api: str) -> bool:
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(name).status == DeploymentStatus.READY
        except ObjectNotFound:
            return False


@pytest.mark.parametrize("way", [by_command, by_library, by_deployment])
def test_every_way_to_a_search_gives_the_same_candidates(
    reproduced: Project, prefect_server: str, tmp_path: Path, way: Callable[[Project], None]
) -> None:
    direct = Project(tmp_path / "project", prefect_server)
    prepared = Path("artifacts", "prepared", "tiny")
    shutil.copytree(reproduced.root / prepared, direct.root / prepared)
    way(direct)
    found, expected = (
        [(r.candidate, r.id, r.reward, r.scores, r.seed) for r in one.candidates()]
        for one in (direct, reproduced)
    )
    assert found == expected


def test_again_nothing_runs(reproduced: Project) -> None:
    before = _digest(reproduced.root / "dvc.lock")
    assert "Running stage" not in reproduced.dvc("repro")
    assert json.loads(reproduced.dvc("status", "--json")) == {}
    assert _digest(reproduced.root / "dvc.lock") == before


def test_another_machine_scores_what_it_pulled(
    reproduced: Project, prefect_server: str, tmp_path: Path
) -> None:
    other = Project(tmp_path / "project", prefect_server)
    known = yaml.safe_load((reproduced.root / "dvc.lock").read_text())
    scored = known["stages"].pop("evaluate")  # else DVC would take its outs from the cache
    (other.root / "dvc.lock").write_text(yaml.safe_dump(known))
    shutil.copytree(
        reproduced.root / ".dvc" / "cache" / "files", other.root / ".dvc" / "cache" / "files"
    )
    other.dvc("checkout", "search", "train")
    output = other.dvc("repro", "--no-run-cache")
    stages = [stage for stage in ("prepare", "search", "train", "evaluate")
              if f"Running stage '{stage}'" in output]  # fmt: skip
    assert stages == ["prepare", "evaluate"]
    assert other.lock("evaluate")["outs"] == scored["outs"]


def test_plots_show_every_table_and_picture(reproduced: Project) -> None:
    reproduced.dvc("plots", "show", "--out", "plots")
    page = (reproduced.root / "plots" / "index.html").read_text()
    for title in ("Rewards of the search", "Loss of full training", "mIoU on val", "IoU on test"):
        assert title in page
    assert "<DVC_METRIC" not in page
    pictures = [path.name for path in (reproduced.root / "plots" / "static").glob("*.png")]
    evaluated = [name for name in pictures if "evaluate_pictures" in name]
    assert len(evaluated) == len(PICTURES) == len(pictures) - 1
    assert any(name.endswith("search_pareto.png") for name in pictures)


def test_an_experiment_with_other_training_leaves_the_search_alone(reproduced: Project) -> None:
    before = {stage: reproduced.lock(stage) for stage in ("prepare", "search")}
    output = reproduced.dvc("exp", "run", "--name", "longer", "-S", "train.epochs=2")
    assert "Running stage 'train'" in output
    assert "Running stage 'prepare'" not in output
    assert "Running stage 'search'" not in output
    assert {stage: reproduced.lock(stage) for stage in ("prepare", "search")} == before
    table = reproduced.dvc("exp", "show", "--csv", "--all-commits")
    (row,) = [line for line in table.splitlines() if "longer" in line]
    best = reproduced.candidates()
    assert str(max(r.reward or 0 for r in best))[:6] in row


def _output(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
