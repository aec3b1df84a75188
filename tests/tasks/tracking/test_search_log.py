import logging
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_core.base.errors import UnavailableError
from nas_core.base.files import json_bytes
from nas_core.config import LatencySettings, Settings
from nas_core.models.checkpoint import NetworkCard, segmenter_bytes
from nas_core.search.candidate_files import candidate_files
from nas_core.search.candidates import keep_files
from nas_core.search.costs import Costs
from nas_core.search.journal import Confirmation, Header, Journal, Record
from nas_core.search.latencies import LATENCY_FILE
from nas_core.search.loop import Search
from nas_core.space.decisions import sample
from nas_core.space.genotype import Genotype
from nas_core.training.metrics import ConfusionMatrix
from nas_core.workers.local import InProcessWorkers
from tasks.search_log import SearchLog, final_metrics
from tasks.tracking import store
from tasks.tracking.tracker import CANDIDATE_TAG, PARENT_TAG, Tracker

LOGGER = logging.getLogger(__name__)
REWARDS = [0.4, 0.6, None, 0.5, 0.7, 0.3]
BEST = [(1, 0.4), (2, 0.6), (4, 0.6), (5, 0.7), (6, 0.7)]


@pytest.fixture
def search(tmp_path: Path) -> Iterator[Search]:
    """One without records yet."""
    folder, settings = tmp_path / "search", Settings()
    costs = Costs(folder / LATENCY_FILE, settings.network, 2, (32, 32), LatencySettings(), folder)
    journal = Journal.create(folder / "journal.jsonl", Header(format=1, settings={}, identity={}))
    with Search(settings, tmp_path, folder, journal, costs, InProcessWorkers()) as search:
        yield search


@cache
def trained() -> list[tuple[Genotype, dict[str, bytes]]]:
    """Networks, and the files of each as its training leaves them."""
    rng = np.random.default_rng(0)
    found = []
    for _ in REWARDS:
        genotype = sample(rng)
        card = NetworkCard(genotype, ("road", "sky"), ((0, 0, 0), (1, 1, 1)), 1, 1)
        contents = {
            "genotype": json_bytes(genotype.to_dict()),
            "losses": json_bytes({"a": [1.0]}),
            "confusion_matrix": ConfusionMatrix(2, 255).csv_bytes(card.classes),
            "weights": segmenter_bytes(card.build(), card),
        }
        found.append((genotype, contents))
    return found


def candidates(folder: Path) -> list[Record]:
    """Records with these rewards, and the files of each."""
    records = []
    networks = zip(REWARDS, trained(), strict=True)
    for number, (reward, (genotype, contents)) in enumerate(networks, start=1):
        keep_files(folder, genotype.id, contents)
        records.append(
            Record(
                index=number - 1,
                round=0,
                candidate=number,
                id=genotype.id,
                genotype=genotype.to_dict(),
                status="failed" if reward is None else "finished",
                reward=reward,
                num_parameters=1000,
                macs=10**6,
                seed=1,
                reason="" if reward is not None else "the loss was not finite",
            )
        )
    return records


def drawn(genotype: Genotype) -> bytes:
    return f"<svg>{genotype.id}</svg>".encode()


def best_rewards(log: SearchLog) -> list[tuple[int, float]]:
    history = log.tracker.client.get_metric_history(log.run_id, "progress/best_reward")
    return sorted((metric.step, metric.value) for metric in history)


@pytest.mark.parametrize("num_before_the_crash", [0, 3, len(REWARDS)])
def test_the_best_reward_is_that_of_the_candidates_so_far(
    tracker: Tracker, search: Search, num_before_the_crash: int
) -> None:
    folder = search.folder
    log = SearchLog(tracker, search, LOGGER, drawn)
    for number, record in enumerate(candidates(folder)):
        search.journal.append(record)
        if number < num_before_the_crash:
            log.update()
    # What only the journal has is recorded as if it came one by one.
    assert best_rewards(SearchLog(tracker, search, LOGGER, drawn)) == BEST


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another(path: Path) -> None:
    """The file of another candidate, or counts that are none."""
    if path.suffix == ".csv":
        path.write_text(path.read_text().replace("0", "-1"))
    else:
        other = next(folder for folder in path.parents[1].iterdir() if folder != path.parent)
        path.write_bytes((other / path.name).read_bytes())


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *product(("genotype", "weights", "confusion_matrix", "losses"), (Path.unlink, cut)),
        *product(("genotype", "weights", "confusion_matrix"), (of_another,)),
    ],
)
def test_a_lost_file_of_a_candidate_is_told_once_and_left_out(
    tracker: Tracker,
    search: Search,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], None],
) -> None:
    folder = search.folder
    first, second, *_ = candidates(folder)
    path = candidate_files(folder, first.id)[name]
    damage(path)
    search.journal.append(first)
    log = SearchLog(tracker, search, LOGGER, drawn)
    search.journal.append(second)
    log.update()
    log.update()
    (warning,) = caplog.messages
    assert warning.startswith(f"{path} is missing or damaged: MLflow gets candidate 1 without it")
    kept = {
        run.data.tags["nas.candidate"]: {
            file.path for file in tracker.client.list_artifacts(run.info.run_id)
        }
        for run in tracker.find_runs({"nas.kind": "candidate"})
    }
    names = {path.name for path in candidate_files(folder, first.id).values()}
    names.add("architecture.svg")
    assert kept == {"1": names - {path.name}, "2": names}


def test_the_best_reward_goes_on_after_a_stop(tracker: Tracker, search: Search) -> None:
    folder = search.folder
    for record in candidates(folder):
        log = SearchLog(tracker, search, LOGGER, drawn)
        search.journal.append(record)
        log.update()
    assert best_rewards(log) == BEST


def test_an_outage_in_the_last_record_leaves_one_run(
    tracker: Tracker, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SECONDS_BETWEEN_TRIES", 0.0)
    log_files, outages = tracker.log_files, [UnavailableError("MLflow is away")]

    def away_once(*arguments: Any) -> None:
        if outages:
            raise outages.pop()
        log_files(*arguments)

    monkeypatch.setattr(tracker, "log_files", away_once)
    folder = search.folder
    log = SearchLog(tracker, search, LOGGER, drawn)
    with log.running():
        search.journal.append(candidates(folder)[0])
    runs = tracker.find_runs({"nas.kind": "candidate"})
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]


def test_each_candidate_has_its_drawing_and_a_failed_one_nothing_else(
    tracker: Tracker, search: Search
) -> None:
    folder = search.folder
    for record in candidates(folder):
        search.journal.append(record)
    SearchLog(tracker, search, LOGGER, drawn)
    runs = tracker.find_runs({"nas.kind": "candidate"})
    assert len(runs) == len(REWARDS)
    for run in runs:
        listed = tracker.client.list_artifacts(run.info.run_id)
        files = {Path(file.path).name for file in listed}
        trained = {"genotype.json", "weights.safetensors", "confusion_matrix.csv", "losses.json"}
        expected = set() if run.info.status == "FAILED" else trained
        assert files == {"architecture.svg"} | expected
        path = tracker.client.download_artifacts(run.info.run_id, "architecture.svg")
        assert run.data.tags["architecture_id"] in Path(path).read_text()


def test_the_run_of_a_confirmed_candidate_gets_its_means(tracker: Tracker, search: Search) -> None:
    records = candidates(search.folder)
    for record in records:
        search.journal.append(record)
    best = records[4]
    further = [
        Confirmation(confirms=best.id, run=run, status="finished", reward=reward, scores=(reward,),
                     metrics={"mean_iou": reward}, seed=run)
        for run, reward in ((1, 0.5), (2, 0.3))
    ]  # fmt: skip
    log = SearchLog(tracker, search, LOGGER, drawn)
    search_name = search.folder.name
    for confirmations in (further[:1], further, further):
        tracker.log_search_results(search_name, [], final_metrics(records, confirmations))
    runs = tracker.find_runs({PARENT_TAG: log.run_id}, "FINISHED")
    metrics = {int(run.data.tags[CANDIDATE_TAG]): run.data.metrics for run in runs}
    assert metrics[5]["reward"] == pytest.approx(0.5) and metrics[5]["seeds"] == 3
    assert metrics[5]["mean_iou"] == pytest.approx(0.4)
    assert metrics[5]["reward_error"] == pytest.approx(0.2 / 3**0.5)
    assert metrics[2]["reward"] == 0.6 and "seeds" not in metrics[2]
    (run_id,) = (run.info.run_id for run in runs if run.data.tags[CANDIDATE_TAG] == "5")
    history = tracker.client.get_metric_history(run_id, "reward")
    assert sorted((one.step, round(one.value, 6)) for one in history) == [
        (0, 0.7),
        (2, 0.6),
        (3, 0.5),
    ]
