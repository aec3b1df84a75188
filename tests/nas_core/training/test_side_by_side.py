"""Full trainings in real processes: the same as one after the other, killed for real."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from nas_core.base.errors import CandidateError, RunError, TrainingError
from nas_core.base.locks import RunLock, holder
from nas_core.base.paths import prepared_folder, trainings_folder
from nas_core.config import RunnerSettings, Settings
from nas_core.data.preparing import prepare
from nas_core.loading import validate_settings
from nas_core.models.compute import Compute
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training import lifecycle
from nas_core.training.record import FinalScores, Training
from nas_core.training.side_by_side import evaluate, side_by_side, train, training_workers
from nas_core.workers.local import InProcessWorkers, ProcessWorkers, Workers
from tests.tiny import tiny

sys.path.append(str(Path(__file__).parents[2] / "standins"))

import standin_calls as calls

PARAMS = tiny(dataset={"synthetic": {"num_train": 4, "num_val": 2, "num_test": 2}})
NAMES = ("arch0", "arch1")
SECONDS = 240


@pytest.fixture(scope="module")
def settings() -> Settings:
    return validate_settings(PARAMS, "test")


@pytest.fixture(scope="module")
def workers(settings: Settings) -> Iterator[Workers]:
    runner = RunnerSettings(workers=2, time_limit=1e-3)  # which is of candidates alone
    changed = settings.model_copy(update={"runner": runner})
    with training_workers(changed, Compute.from_settings(settings.compute), 2) as workers:
        assert isinstance(workers, ProcessWorkers) and workers.num == 2
        yield workers


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    prepare(settings.dataset, root, prepared_folder(root, settings))
    return root


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    """One in which nothing is trained yet."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "prepared").symlink_to(prepared / "artifacts" / "prepared")
    return tmp_path


def longer(settings: Settings, epochs: int) -> Settings:
    train = settings.train.model_copy(update={"epochs": epochs})
    return settings.model_copy(update={"train": train})


def trained_and_scored(
    workers: Workers, settings: Settings, root: Path, label: str
) -> tuple[Path, FinalScores]:
    folder = train(workers, settings, root, label, ARCHITECTURES[label], commit="0123abc")
    return folder, evaluate(workers, settings, root, label, folder)


def outcome(folder: Path) -> tuple[bytes, Training]:
    """All of a training but its times."""
    training = Training.read(folder / "training.json")
    history = [{**row, "seconds": 0.0} for row in training.history]
    update = {"started": 0.0, "finished": 0.0, "history": history}
    return (folder / "model.safetensors").read_bytes(), training.model_copy(update=update)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_trainings_side_by_side_equal_those_one_after_the_other(
    workers: Workers, settings: Settings, project: Path, tmp_path: Path
) -> None:
    jobs = [(name, partial(trained_and_scored, workers, settings, project, name)) for name in NAMES]
    found = dict(side_by_side(workers, jobs))
    alone = tmp_path / "alone"
    (alone / "artifacts").mkdir(parents=True)
    (alone / "artifacts" / "prepared").symlink_to((project / "artifacts" / "prepared").resolve())
    for name, (folder, test) in found.items():
        other, other_test = trained_and_scored(InProcessWorkers(), settings, alone, name)
        assert outcome(folder) == outcome(other) and test == other_test
    assert holder(folder) is None


def test_a_training_whose_worker_is_killed_goes_on(
    workers: Workers, settings: Settings, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings, epochs = longer(settings, 40), 40
    with ThreadPoolExecutor(1) as threads:
        training = threads.submit(
            train, workers, settings, project, "arch0", ARCHITECTURES["arch0"]
        )
        wait_for(lambda: any(trainings_folder(project).glob("*/checkpoint.pt")))
        (folder,) = trainings_folder(project).iterdir()
        held_by = str(holder(folder)).split()[1]
        assert held_by != str(os.getpid())
        os.kill(int(held_by), signal.SIGKILL)
        assert training.result(SECONDS) == folder
    progress = [text for text in caplog.messages if text.startswith("arch0 · epoch")]
    numbers = [int(text.split()[3].partition("/")[0]) for text in progress]
    assert numbers == list(range(1, epochs + 1))
    weights, record = outcome(folder)
    for path in folder.iterdir():
        path.unlink()
    lifecycle.train_architecture(settings, project, "arch0", ARCHITECTURES["arch0"])
    assert outcome(folder) == (weights, record)


def test_an_error_that_concerns_all_ends_them_and_they_keep_their_checkpoints(
    settings: Settings, project: Path
) -> None:
    settings = longer(settings, 100_000)
    checkpoints = partial(trainings_folder(project).glob, "*/checkpoint.pt")

    def fail() -> Path:
        wait_for(lambda: any(checkpoints()))
        workers.call(calls.fail, "disk")
        raise AssertionError

    with ProcessWorkers(2, 3600) as workers:
        long = partial(train, workers, settings, project, "arch0", ARCHITECTURES["arch0"])
        with pytest.raises(RunError, match="No space left on device"):
            list(side_by_side(workers, [("long", long), ("fail", fail)]))
    (checkpoint,) = checkpoints()
    assert holder(checkpoint.parent) is None
    assert not (checkpoint.parent / "training.json").exists()


@pytest.mark.parametrize("name", ["checkpoint.pt", "training.json", "model.safetensors"])
def test_files_of_one_that_cannot_be_used_end_no_other(
    workers: Workers, settings: Settings, project: Path, name: str
) -> None:
    folder, _ = trained_and_scored(workers, settings, project, "arch0")
    outcome_before = outcome(folder)
    (folder / "test.json").unlink()
    (folder / name).write_bytes(bytes(1000))
    if name == "checkpoint.pt":
        (folder / "training.json").unlink()
    jobs = [(one, partial(trained_and_scored, workers, settings, project, one)) for one in NAMES]
    found = []
    with pytest.raises(
        TrainingError, match=rf"{name}.*delete (it|/.*training\.json) to "
    ) as raised:
        for label, _ in side_by_side(workers, jobs):
            found.append(label)
    assert found == ["arch1"]
    # What it advises works.
    damaged = folder / ("training.json" if "training.json" in str(raised.value) else name)
    damaged.unlink()
    assert [label for label, _ in side_by_side(workers, jobs)] == [*NAMES]
    assert outcome(folder) == outcome_before


def test_one_that_another_command_has_ends_no_other(
    workers: Workers, settings: Settings, project: Path
) -> None:
    folder, _ = trained_and_scored(workers, settings, project, "arch0")
    (folder / "training.json").unlink()
    jobs = [(one, partial(trained_and_scored, workers, settings, project, one)) for one in NAMES]
    found = []
    with (
        RunLock(folder),
        pytest.raises(TrainingError, match=f"{folder} is in use by process {os.getpid()} on"),
    ):
        for label, _ in side_by_side(workers, jobs):
            found.append(label)
    assert found == ["arch1"]


def test_one_at_a_time_is_done_in_this_process(settings: Settings) -> None:
    compute = Compute.from_settings(settings.compute)
    assert isinstance(training_workers(settings, compute, 5), InProcessWorkers)
    two = settings.model_copy(update={"runner": RunnerSettings(workers=2)})
    assert isinstance(training_workers(two, compute, 1), InProcessWorkers)
    assert isinstance(training_workers(two, compute, 2), ProcessWorkers)


def test_results_come_in_the_order_of_the_jobs_and_no_more_are_begun_than_places() -> None:
    at_once, most = 0, 0

    def job(number: int) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.02 * (3 - number % 3))
        at_once -= 1
        return number

    with ProcessWorkers(3, 1) as workers:  # none is started
        found = list(side_by_side(workers, [(str(n), partial(job, n)) for n in range(9)]))
    assert found == [(str(n), n) for n in range(9)]
    assert most == 3


@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize("failing", [(1,), (0, 3)])
def test_what_fails_is_told_when_all_others_are_done(num: int, failing: tuple[int, ...]) -> None:
    def job(number: int) -> int:
        if number in failing:
            raise CandidateError(f"{number}: the loss was not finite")
        time.sleep(0.01)
        return -number

    messages = [f"{number}: the loss was not finite" for number in failing]
    if len(messages) > 1:
        messages = [f"{len(messages)} failed:", *messages]
    found = []
    workers = InProcessWorkers() if num == 1 else ProcessWorkers(num, 1)  # none is started
    with workers, pytest.raises(CandidateError) as raised:
        for pair in side_by_side(workers, [(n, partial(job, n)) for n in range(5)]):
            found.append(pair)
    assert found == [(n, -n) for n in range(5) if n not in failing]
    assert str(raised.value).split("\n") == messages
