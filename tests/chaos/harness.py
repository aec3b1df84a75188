"""A tiny project, servers that can be killed, and commands as a user runs them."""

import json
import os
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from mlflow import MlflowClient

from nas_core.search.journal import Journal, Record, load_state
from tests.tiny import tiny

ROOT = Path(__file__).resolve().parents[2]
PARAMS = tiny(
    search={"num_candidates": 12, "proxy": {"epochs_a": 2}},
    train={"epochs": 12, "validate_every": 4},
)
SECONDS_TO_START = 240


def wait_for(condition: Callable[[], Any], what: str, seconds: float = SECONDS_TO_START) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


@dataclass
class Server:
    """A server of one's own on a fixed port, with its data on the disk."""

    command: list[str]
    health: str
    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command],
                cwd=self.home,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )
        wait_for(self._answers, self.health)

    def kill(self) -> None:
        """With kill -9, it and all that it started."""
        if self.process is None:
            return
        tree = [psutil.Process(self.process.pid)]
        tree += tree[0].children(recursive=True)
        for process in tree:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()
        psutil.wait_procs(tree, 30)
        self.process = None

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(self.health, timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


@dataclass
class Project:
    """A folder with params.yaml, and the `nas` command in it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command; what it prints goes into nas.log."""
        with self._log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", "from flows.cli.main import main; main()", *arguments],
                cwd=self.folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "NAS_PROJECT_DIR": str(self.folder),
                    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                    **self.environment,
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, *arguments: str, seconds: float = 600) -> int:
        """Run a command to its end; its exit code."""
        process = self.start(*arguments)
        try:
            return process.wait(seconds)
        finally:
            kill_tree(process.pid)

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    @property
    def _log_file(self) -> Path:
        return self.folder / "nas.log"

    @property
    def journal(self) -> Path | None:
        return next(self.folder.glob("artifacts/searches/*/journal.jsonl"), None)

    def records(self) -> list[Record]:
        return Journal.read(self.journal).records if self.journal else []

    def outcome(self) -> tuple[list[Any], Any]:
        """All of a finished search but what is measured in seconds: records, strategy's state."""
        assert self.journal is not None
        records = [r.model_dump_json(exclude={"latency_ms", "seconds"}) for r in self.records()]
        return records, plain(load_state(self.journal.parent / "strategy.pt"))

    def prefix(self) -> dict[str, int]:
        """The candidates in the journal, and when their weights were written."""
        assert self.journal is not None
        return {
            record.id: (self.journal.parent / "candidates" / record.id / "weights.safetensors")
            .stat()
            .st_mtime_ns
            for record in self.records()
            if record.is_scored
        }


def plain(value: Any) -> Any:
    """State with tensors as lists, so that two states can be compared."""
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes in which a command trains candidates, below the one that forks them."""
    return [
        process
        for server in children(pid)
        if any("forkserver" in part for part in server.cmdline())
        for process in children(server.pid)
    ]


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def kill_tree(pid: int) -> None:
    for process in children(pid):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    try:
        psutil.Process(pid).kill()
    except psutil.NoSuchProcess:
        return


def check_mlflow(uri: str, num_candidates: int) -> None:
    """One finished run a candidate, a finished one of the search, and none that still runs."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert not [run for run in runs if run.info.status == "RUNNING"]
    finished = [run for run in runs if run.info.status == "FINISHED"]
    numbers = sorted(
        int(run.data.tags["nas.candidate"])
        for run in finished
        if run.data.tags["nas.kind"] == "candidate"
    )
    assert numbers == list(range(1, num_candidates + 1))
    (search,) = [run for run in runs if run.data.tags["nas.kind"] == "search"]
    assert search.info.status == "FINISHED"
    assert search.data.metrics["progress/candidates"] == num_candidates
    for name, num_steps in (
        ("progress/best_reward", num_candidates),
        ("strategy/reward_mean", num_candidates // 2),
    ):
        steps = [metric.step for metric in client.get_metric_history(search.info.run_id, name)]
        assert len(set(steps)) == num_steps


def seeded_random() -> random.Random:
    """Another one each time, unless NAS_CHAOS_SEED says which; printed, so that it can be said."""
    seed = int(os.environ.get("NAS_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(json.dumps({"NAS_CHAOS_SEED": seed}))
    return random.Random(seed)
