"""A search on a Ray cluster of two nodes, one of which is killed in the middle of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.cluster_utils import Cluster

from nas_core.base.paths import prepared_folder
from nas_core.data.preparing import prepare
from nas_core.loading import load_settings
from nas_core.search.journal import Journal, Record
from nas_core.search.loop import Search
from nas_core.workers.local import InProcessWorkers
from tests.tiny import tiny

pytestmark = pytest.mark.slow

NUM_CANDIDATES = 8
PARAMS = tiny(search={"num_candidates": NUM_CANDIDATES, "batch_size": 4}, runner={"workers": 2})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def make_project(folder: Path) -> Path:
    """A project whose dataset is prepared."""
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    settings = load_settings(root=folder)
    prepare(settings.dataset, folder, prepared_folder(folder, settings))
    return folder


def start_search(project: Path, server: str, *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "NAS_PROJECT_DIR": str(project), "PREFECT_API_URL": server}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", "from flows.cli.main import main; main()"]
    return subprocess.Popen(
        [*command, "search", "--stage", "search", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def records(project: Path) -> list[Record]:
    paths = list(project.glob("artifacts/searches/*/journal.jsonl"))
    return Journal.read(paths[0]).records if paths else []


def outcomes(project: Path) -> list[Any]:
    return [(r.index, r.round, r.id, r.status, r.reward, r.scores) for r in records(project)]


def test_a_lost_node_costs_its_candidates_a_retry_and_nothing_else(
    cluster: Cluster, prefect_server: str, tmp_path: Path
) -> None:
    lost = cluster.list_all_nodes()[1]
    project = make_project(tmp_path / "ray")
    on_ray = ["-S", "runner.kind=ray", "-S", f"runner.ray.address={cluster.address}"]
    search = start_search(project, prefect_server, *on_ray)
    deadline = time.monotonic() + 400
    while len(records(project)) < 3:
        assert search.poll() is None and time.monotonic() < deadline, search.communicate()[0]
        time.sleep(0.1)
    cluster.remove_node(lost, allow_graceful=False)
    assert len(records(project)) < NUM_CANDIDATES
    output, _ = search.communicate(timeout=500)
    assert search.returncode == 0, output

    undisturbed = make_project(tmp_path / "process")
    with Search.open(load_settings(root=undisturbed), undisturbed, InProcessWorkers()) as whole:
        whole.run()
    assert outcomes(project) == outcomes(undisturbed)
    assert len({record.id for record in records(project)}) >= NUM_CANDIDATES
    for record in records(project):
        folder = next(project.glob(f"artifacts/searches/*/candidates/{record.id}"))
        assert json.loads((folder / "genotype.json").read_text()) == record.genotype


def test_a_cluster_without_room_is_refused_before_the_search(
    cluster: Cluster, prefect_server: str, tmp_path: Path
) -> None:
    project = make_project(tmp_path / "project")
    options = ["runner.kind=ray", f"runner.ray.address={cluster.address}", "runner.ray.gpus=4"]
    search = start_search(project, prefect_server, *(w for o in options for w in ("-S", o)))
    output, _ = search.communicate(timeout=300)
    assert search.returncode == 1
    assert "has room for 0 trainings with 1 CPUs and 4 GPUs each" in output.replace("\n", " ")
    assert not list(project.glob("artifacts/searches/*"))
