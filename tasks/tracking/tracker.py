"""The record of searches in MLflow: a run for each search, a nested run for each candidate.

Every call names its run: MLflow's active run belongs to one thread, and logging from Prefect's
threads through it makes runs that nobody started. Nothing here is read to steer a search; runs are
looked up only so that a crash leaves no candidate twice in the record.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from nas_core.space.architectures import short_name
from nas_core.space.genotype import Genotype
from tasks.tracking.location import adopt_artifacts, warn_of_foreign_location
from tasks.tracking.notes import artifact_link, network_note
from tasks.tracking.store import (
    artifact_location,
    connect,
    ensure_experiment,
    service_errors,
)
from tasks.tracking.views import NOTE_TAG, STATUS_TAG, add_search_view, prepare_pages

PARENT_TAG = "mlflow.parentRunId"
KIND_TAG = "nas.kind"
SEARCH_TAG = "nas.search"
CANDIDATE_TAG = "nas.candidate"
REPORT_TAG = "nas.report"
FAILURE_TAG = "failure"
ID_TAG = "architecture_id"
LATENCY = "latency_ms"
SEEDS = "seeds"

# Limits of one request to MLflow, and of a tag.
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_FAILURE_LENGTH = 2000

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class DataEntry:
    """A prepared dataset, as MLflow lists it among the inputs of a run.

    Attributes:
        digest: hexadecimal; MLflow takes 36 characters.
        source: where it was read from.
    """

    name: str
    digest: str
    source: str


@dataclass(frozen=True)
class CandidateEntry:
    """What is recorded of one candidate.

    Attributes:
        number: its place in the search, from 1; a search has one finished run a number.
        started, finished: seconds since the epoch.
        metrics: final scores and latency by name; a failed candidate has no scores.
        curves: values of a quantity epoch by epoch, by name.
        seconds: time spent in each stage.
        status: finished, stopped early or failed.
        drawing: a picture of the network, uploaded and shown in its description.
        files: uploaded as artifacts under their own names.
        failure: why there is no score; empty if there is one.
    """

    number: int
    genotype: Genotype
    num_parameters: int
    macs: int
    seed: int
    started: float
    finished: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    status: str = "finished"
    drawing: Path | None = None
    files: Sequence[Path] = ()
    failure: str = ""


class Tracker:
    """An experiment in an MLflow store. Every method raises ServiceError if the store refuses.

    Args:
        uri: from `tracking_uri`.
        experiment: the experiment's name; it is created if need be.
        tags: set on every run, see `provenance_tags`.
        root: the project's folder, where a local store keeps artifacts.
        data: an input of every search, candidate and training.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        tags: Mapping[str, str],
        root: Path,
        data: DataEntry | None = None,
    ) -> None:
        self.uri = uri
        self.tags = dict(tags)
        self.data = data
        self.client = connect(uri)
        adopt_artifacts(uri, root)
        self.experiment_id = ensure_experiment(
            self.client, experiment, artifact_location(uri, root)
        )
        with service_errors(uri):
            warn_of_foreign_location(self.client, self.experiment_id, root)
            prepare_pages(self.client, self.experiment_id)

    @staticmethod
    def check(uri: str, root: Path | None = None) -> None:
        """See that the store answers, and of a project at `root`, that it has its artifacts.

        A local one is created.
        """
        connect(uri)
        if root:
            adopt_artifacts(uri, root)

    def start_search(self, identity: str, name: str, params: Mapping[str, Any]) -> str:
        """The run of a search: a new one, or the one that was begun before, running again.

        Of a continued search the runs that a crash left behind are marked as killed. A
        parameter or tag that has another value now keeps the first one, and the tag `resumed.KEY`
        has the new one: MLflow does not let parameters change.

        Args:
            identity: the same whenever the same search goes on.
            params: flat settings.

        Returns:
            The run's id.
        """
        with service_errors(self.uri):
            found = self.find_runs({KIND_TAG: "search", SEARCH_TAG: identity})
            if found:
                run = found[-1]  # the oldest
                run_id = str(run.info.run_id)
                self.client.update_run(run_id, status="RUNNING")
                self.kill_abandoned({PARENT_TAG: run_id})
                self._log_changes(run, params)
            else:
                run_id = self.create_run(name, {KIND_TAG: "search", SEARCH_TAG: identity})
                self.log_params(run_id, params)
            self.log_data(run_id, "train")
            add_search_view(self.client, self.experiment_id, identity, run_id)
            return run_id

    def search_run(self, identity: str) -> str | None:
        """The run that `start_search` began for this search, if it did."""
        with service_errors(self.uri):
            found = self.find_runs({KIND_TAG: "search", SEARCH_TAG: identity})
        return str(found[-1].info.run_id) if found else None

    def log_candidate(self, parent: str, entry: CandidateEntry, *, new: bool = False) -> str:
        """Record a candidate as a finished or failed run below `parent`; returns the run's id.

        A candidate that is already there with the same outcome is left as it is.

        Args:
            new: it cannot be there, so it is not looked for, which takes the longer the more are.
        """
        status: Status = "FAILED" if entry.failure else "FINISHED"
        tags = {PARENT_TAG: parent, KIND_TAG: "candidate", CANDIDATE_TAG: str(entry.number)}
        with service_errors(self.uri):
            if not new:
                for run in self.find_runs(tags, status):
                    return str(run.info.run_id)
                self.kill_abandoned(tags)  # as after an outage in the middle of this
            tags |= {ID_TAG: entry.genotype.id, STATUS_TAG: entry.status}
            if entry.failure:
                tags[FAILURE_TAG] = entry.failure[:MAX_FAILURE_LENGTH]
            name = f"candidate {entry.number} · {short_name(entry.genotype.id)}"
            run_id = self.create_run(name, tags, entry.started)
            self.log_params(
                run_id,
                architecture_params(entry.genotype, entry.num_parameters, entry.macs, entry.seed),
            )
            self.log_metrics(run_id, _candidate_metrics(entry))
            self.log_data(run_id, "train")
            self.log_files(run_id, [*filter(None, [entry.drawing]), *entry.files])
            self.describe(run_id, _candidate_note(run_id, entry))
            self.client.set_terminated(run_id, status, milliseconds(entry.finished))
            return run_id

    def describe(self, run_id: str, note: str, *, over: str = "") -> None:
        """Give a run the description that MLflow's page shows, in Markdown.

        Args:
            over: how a description begins that this one may replace; another, as one that was
                written by hand, stays.
        """
        with service_errors(self.uri):
            known = self.client.get_run(run_id).data.tags.get(NOTE_TAG, over) if over else ""
            if not known.startswith(over):
                return
            self.client.set_tag(run_id, NOTE_TAG, note)

    def log_data(self, run_id: str, split: str) -> None:
        """List the dataset among the inputs of a run; again, it changes nothing.

        Args:
            split: what the run takes of it. MLflow lists a dataset once in a run, so that another
                split stands there with its name.
        """
        if self.data is None:
            return
        name = self.data.name if split.startswith("train") else f"{self.data.name} {split}"
        source = json.dumps({"uri": self.data.source})
        dataset = Dataset(name, self.data.digest[:36], "local", source)
        tag = InputTag("mlflow.data.context", split)
        with service_errors(self.uri):
            self.client.log_inputs(run_id, [DatasetInput(dataset, [tag])])

    def latest_metrics(self, run_id: str) -> dict[str, float]:
        """The last value of each metric of a run."""
        with service_errors(self.uri):
            return dict(self.client.get_run(run_id).data.metrics)

    def log_progress(self, run_id: str, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics of a running search at `step`; values that are not finite are left out."""
        at = milliseconds(time.time())
        with service_errors(self.uri):
            self.log_metrics(
                run_id, [Metric(name, value, at, step) for name, value in metrics.items()]
            )

    def log_search_results(
        self, identity: str, files: Iterable[Path], metrics: Mapping[int, Mapping[str, float]]
    ) -> None:
        """Record files of a search under their own names; again, it replaces them.

        Args:
            identity: as `start_search` took it.
            metrics: by the number of a candidate, whose run gets those that have another value
                there, or none, at the step `seeds`.
        """
        run_id = self.search_run(identity)
        assert run_id is not None, f"search {identity} has not begun"
        with service_errors(self.uri):
            self.log_files(run_id, files)
            for run in self.find_runs({PARENT_TAG: run_id, KIND_TAG: "candidate"}, "FINISHED"):
                values = metrics.get(int(run.data.tags[CANDIDATE_TAG]), {})
                at, step = milliseconds(time.time()), int(values.get(SEEDS, 0))
                known = run.data.metrics
                self.log_metrics(
                    run.info.run_id,
                    [
                        Metric(name, value, at, step)
                        for name, value in values.items()
                        if known.get(name) != value
                    ],
                )

    def log_search_file(self, run_id: str, path: Path) -> None:
        """Record a file of a search under its own name; again, it replaces it."""
        with service_errors(self.uri):
            self.log_files(run_id, [path])

    def finish(self, run_id: str, status: Status = "FINISHED") -> None:
        """End a run."""
        with service_errors(self.uri):
            self.client.set_terminated(run_id, status)

    def log_report(
        self,
        kind: str,
        identity: str,
        started: float,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        files: Iterable[Path],
    ) -> str:
        """Record a finished piece of work as a run with the name `kind`; returns the run's id.

        One that is already there is left as it is.

        Args:
            identity: the same whenever the outcome is the same.
            started: seconds since the epoch.
            params: flat settings.
        """
        tags = {KIND_TAG: kind, REPORT_TAG: identity}
        with service_errors(self.uri):
            for run in self.find_runs(tags):
                if run.info.status == "FINISHED":
                    return str(run.info.run_id)
            self.kill_abandoned({KIND_TAG: kind})
            run_id = self.create_run(kind, tags, started)
            status: Status = "KILLED"
            try:
                self.log_params(run_id, params)
                at = milliseconds(time.time())
                self.log_metrics(
                    run_id, [Metric(name, value, at, 0) for name, value in metrics.items()]
                )
                self.log_files(run_id, files)
                status = "FINISHED"
            finally:
                self.client.set_terminated(run_id, status)
            return run_id

    def create_run(self, name: str, tags: Mapping[str, str], started: float | None = None) -> str:
        """A new running run with the tags of all runs and these; returns its id."""
        run = self.client.create_run(
            self.experiment_id,
            start_time=milliseconds(time.time() if started is None else started),
            tags={**self.tags, **tags},
            run_name=name,
        )
        return str(run.info.run_id)

    def find_runs(self, tags: Mapping[str, str], status: str | None = None) -> list[Run]:
        """All runs with these tags that are not deleted, the latest first."""
        conditions = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
        if status:
            conditions.append(f"attributes.status = '{status}'")
        wanted = " and ".join(conditions)
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], wanted, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def kill_abandoned(self, tags: Mapping[str, str]) -> None:
        """Mark the runs with these tags that still run as killed: their process is gone."""
        for run in self.find_runs(tags, "RUNNING"):
            self.client.set_terminated(run.info.run_id, "KILLED")

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        for chunk in _chunks([Param(key, str(value)) for key, value in params.items()], MAX_PARAMS):
            self.client.log_batch(run_id, params=chunk)

    def log_metrics(self, run_id: str, metrics: Iterable[Metric]) -> None:
        """Record the metrics with finite values."""
        finite = [metric for metric in metrics if math.isfinite(metric.value)]
        for chunk in _chunks(finite, MAX_METRICS):
            self.client.log_batch(run_id, metrics=chunk)

    def log_files(self, run_id: str, files: Iterable[Path], folder: str | None = None) -> None:
        for path in files:
            self.client.log_artifact(run_id, str(path), folder)

    def _log_changes(self, run: Run, params: Mapping[str, Any]) -> None:
        """Add to a continued run what it lacks, and tags for what is another value now."""
        recorded = {**run.data.tags, **run.data.params}
        wanted = {**self.tags, **{key: str(value) for key, value in params.items()}}
        self.log_params(
            run.info.run_id, {key: params[key] for key in params if key not in recorded}
        )
        changed = [
            RunTag(f"resumed.{key}", value)
            for key, value in wanted.items()
            if recorded.get(key, value) != value
        ]
        for chunk in _chunks(changed, MAX_PARAMS):
            self.client.log_batch(run.info.run_id, tags=chunk)


def architecture_params(
    genotype: Genotype, num_parameters: int, macs: int, seed: int
) -> dict[str, str | int]:
    """What an architecture is and costs, as parameters of a run.

    MLflow's page of comparisons begins with the first three by name: those that are numbers.
    """
    layers = {f"structure_{index}": words for index, words in enumerate(genotype.layers())}
    return {"macs": macs, "num_parameters": num_parameters, "seed": seed, **layers}


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _candidate_metrics(entry: CandidateEntry) -> list[Metric]:
    at = milliseconds(entry.finished)
    values = {
        **entry.metrics,
        "num_parameters": float(entry.num_parameters),
        "gmacs": entry.macs / 1e9,
        **{f"seconds_{stage}": value for stage, value in entry.seconds.items()},
    }
    return [Metric(name, value, at, 0) for name, value in values.items()] + [
        Metric(name, value, at, step)
        for name, curve in entry.curves.items()
        for step, value in enumerate(curve, start=1)
    ]


def _candidate_note(run_id: str, entry: CandidateEntry) -> str:
    shown = {"reward": "reward", "mean_iou": "meta-val mIoU", LATENCY: "latency"}
    note = network_note(
        f"Candidate {entry.number}, {entry.status}",
        entry.genotype.id,
        entry.num_parameters,
        entry.macs,
        {name: entry.metrics[key] for key, name in shown.items() if key in entry.metrics},
        artifact_link(run_id, entry.drawing.name) if entry.drawing else "",
    )
    return f"{note}\n\n{entry.failure[:MAX_FAILURE_LENGTH]}" if entry.failure else note


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
