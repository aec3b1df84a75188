"""The flow nas-search: prepare the dataset, search, train the best fully, evaluate them.

`prefect deployment run nas-search/camvid`, `nas search` and the stages of `dvc.yaml` all run this
flow; a stage leaves what the next one needs under artifacts/results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from prefect import flow, get_run_logger

from flows.context import Context, settings_of_run
from flows.run_logs import say_errors_once
from flows.servers.orphans import claim
from flows.signals import repeat_lost_signals
from flows.trainings import evaluate_trainings, train_best
from nas_core.analysis.leaderboard import SearchMetrics
from nas_core.base.errors import CandidateError
from nas_core.base.paths import results_folder, searches_folder
from nas_core.base.project import project_dir
from nas_core.base.setting_types import Seed
from nas_core.config import (
    ComputeSettings,
    DatasetSettings,
    EncoderSettings,
    NetworkSettings,
    RunnerSettings,
    SearchSettings,
    Settings,
    TrackingSettings,
    TrainSettings,
)
from nas_core.search.loop import Observer, Search
from nas_core.search.measuring import check_latency
from nas_core.search.progress import Progress
from nas_core.search.start import start_networks
from nas_core.training.record import EvaluateMetrics, TrainMetrics
from tasks.dataset import prepare_dataset
from tasks.progress_bars import SearchProgress
from tasks.results import write_search_results
from tasks.search_log import final_metrics
from tasks.search_steps import TaskSteps, measure_latencies
from tasks.tracking.store import patiently

Stage = Literal["all", "prepare", "search", "train", "evaluate"]


class Summary(TypedDict, total=False):
    """metrics.json of the stages that were run."""

    search: SearchMetrics
    train: TrainMetrics
    evaluate: EvaluateMetrics


say_errors_once()
repeat_lost_signals()


@flow(name="nas-search", flow_run_name="{profile} · {stage}", on_running=[claim])
def nas_search(
    profile: str = "camvid",
    stage: Stage = "all",
    name: str | None = None,
    seed: Seed | None = None,
    dataset: DatasetSettings = DatasetSettings(),
    encoder: EncoderSettings = EncoderSettings(),
    network: NetworkSettings = NetworkSettings(),
    search: SearchSettings = SearchSettings(),
    train: TrainSettings = TrainSettings(),
    compute: ComputeSettings = ComputeSettings(),
    runner: RunnerSettings = RunnerSettings(),
    tracking: TrackingSettings = TrackingSettings(),
) -> Summary:
    """Search for compact segmentation networks, train the best fully and test them.

    Every parameter that is not given has the value of the profile.

    Args:
        profile: camvid: params.yaml. Else a file of profiles/, as synthetic.
        stage: Run only this stage.
        name: Names the experiment, the registered model, the folders.
        seed: Seed of everything that is random.
    """
    # Prefect's form has these descriptions from here; the sections describe themselves.
    root = project_dir()
    settings = settings_of_run(
        profile,
        root,
        name=name,
        seed=seed,
        dataset=dataset,
        encoder=encoder,
        network=network,
        search=search,
        train=train,
        compute=compute,
        runner=runner,
        tracking=tracking,
    )
    return run_stages(settings, root, stage)


def run_stages(settings: Settings, root: Path, stage: Stage) -> Summary:
    """Run one stage, or all in order. Must be called in a flow."""

    def wanted(name: Stage) -> bool:
        return stage in ("all", name)

    context = Context.check(settings, root, trains=stage not in ("prepare", "evaluate"))
    summary = Summary()
    if wanted("search"):
        check_latency(settings.search.latency, root)
        start_networks(settings.search, root)  # raises before data are prepared
    if wanted("prepare"):
        prepare_dataset(settings, root, settings.name)
    if wanted("search"):
        summary["search"] = search_architectures(context)
    if wanted("train"):
        try:
            summary["train"] = train_best(context, tests=wanted("evaluate"))
        except CandidateError:
            if wanted("evaluate"):
                report_trainings(context)
            raise
    if wanted("evaluate"):
        summary["evaluate"] = evaluate_trainings(context)
        report_trainings(context)
    return summary


def search_architectures(context: Context) -> SearchMetrics:
    """Search, confirm the best, and leave the results of the stage; see `write_search_results`.

    Those of the best include their latency, which is measured last, when nothing is in training.

    Returns:
        metrics.json.
    """
    tracker = context.tracker  # before there is a search: it sees whether data and settings go
    with context.open_search() as search:
        run_search(context, search)
        candidates = measure_latencies(search)
    confirmations = search.journal.confirmations
    metrics = write_search_results(
        context.root, context.settings, search.folder, candidates, confirmations
    )
    place = results_folder(context.root, context.settings, "search")
    patiently(
        lambda: tracker.log_search_results(
            search.folder.name,
            sorted(place.iterdir()),
            final_metrics(candidates, confirmations),
        ),
        get_run_logger(),
    )
    context.report.write(context.root, search.folder)
    return metrics


def report_trainings(context: Context) -> None:
    """Write the page of the latest search anew, with what is trained, where that search is here."""
    path = results_folder(context.root, context.settings, "search") / "metrics.json"
    if path.exists():
        folder = searches_folder(context.root) / SearchMetrics.read(path).search
        if (folder / "journal.jsonl").exists():
            context.report.write(context.root, folder)


def run_search(context: Context, search: Search, observers: Sequence[Observer] = ()) -> None:
    """Carry out a search as tasks of this flow, with its record in MLflow."""
    logger = get_run_logger()
    logger.info(search.workers.about)
    if warning := too_few_proposals(context.settings):
        logger.warning(warning)
    log = context.track_search(search, logger)
    with log.running():
        shown = [Progress(logger), SearchProgress(logger), context.report]
        search.run([log, *shown, *observers], TaskSteps())


def too_few_proposals(settings: Settings) -> str | None:
    """A warning if some of the workers can never have work."""
    search = settings.search
    at_once = search.most_at_a_time
    if settings.runner.workers <= at_once:
        return None
    needed = math.ceil(settings.runner.workers / search.batch_size) - 1
    return (
        f"runner.workers = {settings.runner.workers}, but no more than {at_once} candidates are "
        f"proposed at a time: set search.rounds_ahead to {needed} or more, or raise "
        "search.batch_size"
    )
