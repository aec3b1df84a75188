import json
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.entities import Run, ViewType

from nas_core.base.errors import ServiceError
from nas_core.search.about import write_about
from nas_core.space.architectures import ARCHITECTURES
from tasks.tracking.tracker import CandidateEntry, DataEntry, Tracker
from tasks.tracking.views import EXPERIMENT, latest_search_view

METRICS = {
    "mean_iou": 0.3,
    "frequency_weighted_iou": 0.6,
    "mean_accuracy": 0.4,
    "reward": 0.416,
}


@pytest.fixture
def entry(weights: Path, tmp_path: Path) -> CandidateEntry:
    table = tmp_path / "confusion_matrix.csv"
    table.write_text("1,2\n")
    return CandidateEntry(
        number=17,
        genotype=ARCHITECTURES["arch1"],
        num_parameters=262_531,
        macs=1_450_000_000,
        seed=5,
        started=1000.0,
        finished=1090.5,
        metrics=METRICS,
        curves={"loss_a": [1.0, 0.5], "loss_b": [0.4]},
        seconds={"stage_a": 60.0, "stage_b": 30.0},
        files=[weights, table],
    )


def _children(tracker: Tracker, parent: str) -> list[Run]:
    return tracker.find_runs({"mlflow.parentRunId": parent})


def test_a_candidate_has_its_parameters_metrics_and_files(
    tracker: Tracker, entry: CandidateEntry
) -> None:
    parent = tracker.start_search("s1", "camvid-s1", {})
    run = tracker.client.get_run(tracker.log_candidate(parent, entry))
    assert run.info.run_name == "candidate 17 · arch1"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 90_500
    assert run.data.params == {
        "num_parameters": "262531",
        "macs": "1450000000",
        "seed": "5",
        **{f"structure_{number}": text for number, text in enumerate(entry.genotype.layers())},
    }
    assert run.data.metrics == {
        **METRICS,
        "num_parameters": 262_531.0,
        "gmacs": 1.45,
        "loss_a": 0.5,
        "loss_b": 0.4,
        "seconds_stage_a": 60.0,
        "seconds_stage_b": 30.0,
    }
    losses = tracker.client.get_metric_history(run.info.run_id, "loss_a")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 1.0), (2, 0.5)]
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["commit"] == "c0ffee"
    assert run.data.tags["architecture_id"] == entry.genotype.id
    assert run.data.tags["status"] == "finished"
    files = {file.path for file in tracker.client.list_artifacts(run.info.run_id)}
    assert files == {"model.safetensors", "confusion_matrix.csv"}


def test_artifacts_lie_in_the_project(tracker: Tracker, entry: CandidateEntry, root: Path) -> None:
    run_id = tracker.log_candidate(tracker.start_search("s1", "s1", {}), entry)
    assert (root / "artifacts" / "mlflow" / run_id / "artifacts" / "model.safetensors").is_file()
    assert list(Path.cwd().iterdir()) == []


def test_a_failed_candidate_has_a_reason_and_no_score(
    tracker: Tracker, entry: CandidateEntry
) -> None:
    parent = tracker.start_search("s1", "s1", {})
    failed = replace(entry, metrics={}, curves={}, files=[], failure="loss is nan " + "x" * 20_000)
    run = tracker.client.get_run(tracker.log_candidate(parent, failed))
    assert run.info.status == "FAILED"
    assert run.data.tags["failure"].startswith("loss is nan")
    assert "reward" not in run.data.metrics
    assert run.data.tags["architecture_id"] == entry.genotype.id
    assert run.data.tags["mlflow.note.content"].endswith(run.data.tags["failure"])


def test_logging_again_makes_no_second_run(tracker: Tracker, entry: CandidateEntry) -> None:
    parent = tracker.start_search("s1", "s1", {})
    run_id = tracker.log_candidate(parent, entry)
    assert tracker.log_candidate(parent, entry) == run_id
    other = tracker.log_candidate(parent, replace(entry, number=18))
    assert {run.info.run_id for run in _children(tracker, parent)} == {run_id, other}
    numbers = {run.data.tags["nas.candidate"] for run in _children(tracker, parent)}
    assert numbers == {"17", "18"}


def test_a_candidate_that_failed_and_then_succeeded(
    tracker: Tracker, entry: CandidateEntry
) -> None:
    parent = tracker.start_search("s1", "s1", {})
    failed = tracker.log_candidate(parent, replace(entry, failure="out of memory"))
    assert tracker.log_candidate(parent, entry) != failed


def test_a_search_goes_on_in_its_run(tracker: Tracker, entry: CandidateEntry, root: Path) -> None:
    parent = tracker.start_search("s1", "s1", {"num_candidates": 8, "strategy": "ppo"})
    half_logged = tracker.create_run(
        "candidate 17",
        {"mlflow.parentRunId": parent, "nas.candidate": "17", "nas.kind": "candidate"},
    )
    tracker.finish(parent, "KILLED")

    later = Tracker(tracker.uri, "camvid", {"commit": "beef", "seed": "0"}, root)
    params = {"num_candidates": 16, "strategy": "ppo", "new": 1}
    assert later.start_search("s1", "s1", params) == parent
    run = later.client.get_run(parent)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"num_candidates": "8", "strategy": "ppo", "new": "1"}
    changed = {k: v for k, v in run.data.tags.items() if k.startswith("resumed.")}
    assert changed == {"resumed.num_candidates": "16", "resumed.commit": "beef"}
    assert later.client.get_run(half_logged).info.status == "KILLED"

    later.log_candidate(parent, entry)
    statuses = sorted(run.info.status for run in _children(later, parent))
    assert statuses == ["FINISHED", "KILLED"]


def test_another_search_has_a_run_of_its_own(tracker: Tracker) -> None:
    first = tracker.start_search("s1", "s1", {})
    second = tracker.start_search("s2", "s2", {})
    assert first != second
    tracker.client.delete_run(first)
    assert tracker.start_search("s1", "s1", {}) not in (first, second)


def test_progress_has_steps(tracker: Tracker) -> None:
    parent = tracker.start_search("s1", "s1", {})
    tracker.log_progress(parent, 1, {"best_reward": 0.2, "entropy": float("nan")})
    tracker.log_progress(parent, 2, {"best_reward": 0.3})
    history = tracker.client.get_metric_history(parent, "best_reward")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.2), (2, 0.3)]
    tracker.finish(parent)
    run = tracker.client.get_run(parent)
    assert run.info.status == "FINISHED"
    assert set(run.data.metrics) == {"best_reward"}


def test_more_than_one_request_holds(tracker: Tracker, entry: CandidateEntry) -> None:
    parent = tracker.start_search("s1", "s1", {f"key_{n}": n for n in range(250)})
    assert len(tracker.client.get_run(parent).data.params) == 250
    curve = [float(n) for n in range(1500)]
    run_id = tracker.log_candidate(parent, replace(entry, curves={"loss": curve}))
    assert len(tracker.client.get_metric_history(run_id, "loss")) == 1500


def test_no_run_is_active_and_none_stays_open(tracker: Tracker, entry: CandidateEntry) -> None:
    import mlflow

    parent = tracker.start_search("s1", "s1", {})
    tracker.log_candidate(parent, entry)
    tracker.finish(parent)
    assert mlflow.active_run() is None
    runs = tracker.client.search_runs([tracker.experiment_id], run_view_type=ViewType.ALL)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == 2


def test_a_report_is_recorded_once(tracker: Tracker, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("{}")
    left = tracker.create_run("report", {"nas.kind": "report"})

    def log(identity: str) -> str:
        return tracker.log_report("report", identity, 1000.0, {"seed": 1}, {"tau": 0.5}, [path])

    run = tracker.client.get_run(log("a1"))
    assert (run.info.run_name, run.info.status) == ("report", "FINISHED")
    assert run.info.start_time == 1_000_000
    assert (run.data.params, run.data.metrics) == ({"seed": "1"}, {"tau": 0.5})
    files = tracker.client.list_artifacts(run.info.run_id)
    assert [file.path for file in files] == ["report.json"]
    assert log("a1") == run.info.run_id != log("b2")
    assert tracker.client.get_run(left).info.status == "KILLED"


def test_a_report_whose_file_is_missing_does_not_stay_open(tracker: Tracker) -> None:
    with pytest.raises(ServiceError, match=r"nothing\.json"):
        tracker.log_report("report", "a1", 1000.0, {}, {}, [Path("nothing.json")])
    (run,) = tracker.find_runs({"nas.kind": "report"})
    assert run.info.status == "KILLED"


def test_a_run_that_is_gone(tracker: Tracker) -> None:
    with pytest.raises(ServiceError, match="Run with id=0123456789abcdef not found"):
        tracker.log_progress("0123456789abcdef", 1, {"best_reward": 0.2})


def test_the_experiment_opens_as_model_training_with_a_view_of_its_candidates(
    tracker: Tracker, root: Path
) -> None:
    tags = tracker.client.get_experiment(tracker.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    envelope = json.loads(tags["mlflow.sharedViewState.candidates"])
    state = json.loads(envelope["state"])
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`reward`", False)
    # What somebody chose on the page stays.
    tracker.client.set_experiment_tag(tracker.experiment_id, "mlflow.note.content", "ours")
    Tracker(tracker.uri, "camvid", {}, root)
    tags = tracker.client.get_experiment(tracker.experiment_id).tags
    assert tags["mlflow.note.content"] == "ours"


def test_the_view_of_a_search_holds_its_candidates_by_reward(
    tracker: Tracker, entry: CandidateEntry
) -> None:
    """With what MLflow's page asks the store for, when it opens the view."""
    parent = tracker.start_search("s1", "s1", {})
    other = tracker.start_search("s2", "s2", {})
    for number, reward in enumerate([0.2, 0.5, 0.3], start=1):
        scored = replace(entry, number=number, metrics=METRICS | {"reward": reward}, files=[])
        tracker.log_candidate(parent, scored)
    tracker.log_candidate(other, replace(entry, files=[]))
    tags = tracker.client.get_experiment(tracker.experiment_id).tags
    state = json.loads(tags["mlflow.sharedViewState.s1"])
    runs = tracker.client.search_runs(
        [tracker.experiment_id],
        state["searchFilter"],
        order_by=[f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"],
    )
    assert [run.data.metrics["reward"] for run in runs] == [0.5, 0.3, 0.2]
    there = {f"metrics.`{name}`" for name in runs[0].data.metrics} | {"tags.`status`"}
    assert {*state["selectedColumns"]} - there == {"metrics.`latency_ms`"}  # measured at the end
    axes = {chart["xaxis"]["key"] for chart in state["compareRunCharts"] if "xaxis" in chart}
    assert axes == {"num_parameters", "gmacs", "latency_ms"}


def test_runs_say_what_they_are_and_which_data_they_take(
    tracker: Tracker, entry: CandidateEntry, root: Path, tmp_path: Path
) -> None:
    data = DataEntry("camvid", "a1b2" * 16, "data")
    tracker = Tracker(tracker.uri, "camvid", {}, root, data)
    parent = tracker.start_search("s1", "s1", {})
    assert tracker.start_search("s1", "s1", {}) == parent  # again, it is listed once
    drawing = tmp_path / "architecture.svg"
    drawing.write_text("<svg/>")
    run_id = tracker.log_candidate(parent, replace(entry, drawing=drawing))
    for one in (parent, run_id):
        (listed,) = tracker.client.get_run(one).inputs.dataset_inputs
        assert (listed.dataset.name, listed.dataset.digest) == ("camvid", ("a1b2" * 16)[:36])
        assert [(tag.key, tag.value) for tag in listed.tags] == [("mlflow.data.context", "train")]
    note = tracker.client.get_run(run_id).data.tags["mlflow.note.content"]
    assert note.startswith(f"Candidate 17, finished: the architecture `{entry.genotype.id}`")
    assert "262,531 parameters and 1.45 GMACs" in note and "- meta-val mIoU: 30.0 %" in note
    assert f"(get-artifact?path=architecture.svg&run_uuid={run_id})" in note


def test_a_description_by_hand_stays(tracker: Tracker) -> None:
    run_id = tracker.start_search("s1", "s1", {})

    def note() -> str:
        return tracker.client.get_run(run_id).data.tags["mlflow.note.content"]

    for words in ("A search, running", "A search, complete"):
        tracker.describe(run_id, words, over="A search")
        assert note() == words
    tracker.describe(run_id, "ours")
    tracker.describe(run_id, "A search, complete", over="A search")
    assert note() == "ours"


def test_the_link_to_a_search_is_known_without_mlflow(tmp_path: Path) -> None:
    assert latest_search_view(tmp_path) is None
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "journal.jsonl").touch()
    assert latest_search_view(tmp_path) is None  # it is not in MLflow yet
    write_about(tmp_path / "s1", 1.7e9, 3, {EXPERIMENT: "7"})
    view = latest_search_view(tmp_path)
    assert view == "/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=s1"
