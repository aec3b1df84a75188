"""The flow nas-search: prepare the dataset, search, train the best fully, evaluate them.

`prefect deployment run nas-search/camvid`, `nas search` and the stages of `dvc.yaml` all run this
flow; a stage leaves what the next one needs under artifacts/results.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger

from flows.context import Context, settings_of_run
from flows.logs import hide_tracebacks_of_user_errors
from flows.progress import Progress
from flows.trainings import evaluate_trainings, train_best
from nas_core.config import (
    ComputeSettings,
    DatasetSettings,
    EncoderSettings,
    NetworkSettings,
    SearchSettings,
    Seed,
    Settings,
    TrackingSettings,
    TrainSettings,
    project_dir,
)
from nas_core.errors import RunError
from nas_core.genotype import Genotype
from nas_core.paths import results_folder
from nas_core.search import run
from nas_core.search.costs import CandidateCost, shaped_reward
from nas_core.search.journal import Journal, Record
from tasks.candidates import aggregate_rewards, sample_candidates, train_on_proxy
from tasks.dataset import prepare_dataset
from tasks.results import write_search_results
from tasks.search_log import SearchLog

Stage = Literal["all", "prepare", "search", "train", "evaluate"]

# A strategy that has converged proposes what is known; it gets this many rounds to find more.
MAX_ROUNDS_WITHOUT_NEW = 25

hide_tracebacks_of_user_errors()


@flow(name="nas-search", flow_run_name="{profile} · {stage}")
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
    tracking: TrackingSettings = TrackingSettings(),
) -> dict[str, Any]:
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
        tracking=tracking,
    )
    return run_stages(settings, root, stage)


def run_stages(settings: Settings, root: Path, stage: Stage) -> dict[str, Any]:
    """Run one stage, or all in order. Must be called in a flow."""

    def wanted(name: Stage) -> bool:
        return stage in ("all", name)

    context = Context.check(settings, root, trains=stage not in ("prepare", "evaluate"))
    summary: dict[str, Any] = {}
    if wanted("prepare"):
        prepare_dataset(settings, root, settings.name)
    if wanted("search"):
        summary["search"] = search_architectures(context)
    if wanted("train"):
        summary["train"] = train_best(context)
    if wanted("evaluate"):
        summary["evaluate"] = evaluate_trainings(context)
    return summary


def search_architectures(context: Context) -> dict[str, Any]:
    """Search, and leave the results of the stage search; see `write_search_results`.

    Returns:
        The content of metrics.json.
    """
    folder, candidates = run_search(context)
    metrics = write_search_results(context.root, context.settings, folder, candidates)
    place = results_folder(context.root, context.settings, "search")
    run_id = context.tracker.search_run(folder.name)
    assert run_id is not None  # run_search began it
    context.tracker.log_results(run_id, sorted(place.iterdir()))
    return metrics


def run_search(context: Context) -> tuple[Path, list[Record]]:
    """Round by round: sample, train what is new, learn; the journal is the truth of it.

    Returns:
        The search's folder, and the first `search.num_candidates` that were trained.
    """
    settings = context.settings
    folder = context.search_folder()
    logger = get_run_logger()
    with context.open_journal(folder) as journal:
        log = context.track_search(folder, journal)
        done = len(journal.candidates)
        if done:
            logger.info("%s: going on after %d candidates", folder.name, done)
        progress = Progress(settings.search.num_candidates, journal.candidates)
        with log.running():
            while _run_round(context, folder, journal, log, progress):
                pass
        return folder, journal.candidates[: settings.search.num_candidates]


def _run_round(
    context: Context, folder: Path, journal: Journal, log: SearchLog, progress: Progress
) -> bool:
    """One round, or what is left of it; False when the search is complete."""
    settings = context.settings
    number = run.current_round(folder)
    if len(journal.candidates) >= settings.search.num_candidates:
        return False
    _check_novelty(journal, number)
    proposals = sample_candidates(folder, settings, context.root, number)
    known = [record for record in journal.records if record.round == number]
    for genotype, cost in proposals[len(known) :]:
        if len(journal.candidates) >= settings.search.num_candidates:
            return False
        record = _score(context, folder, journal, genotype, cost, number)
        journal.append(record)
        log.candidate(record)
        get_run_logger().info(progress.line(record))
        _check_failures(journal, settings.search.max_failures)
        known.append(record)
    rewards = [record.reward for record in known]
    diagnostics = aggregate_rewards(folder, settings, context.root, number, rewards)
    log.round(number, diagnostics)
    return True


def _score(
    context: Context,
    folder: Path,
    journal: Journal,
    genotype: Genotype,
    cost: CandidateCost,
    number: int,
) -> Record:
    """Train a candidate, or answer from the journal if its network was trained before."""
    settings = context.settings
    common: dict[str, Any] = {
        "index": len(journal.records),
        "round": number,
        "id": genotype.id,
        "genotype": genotype.to_dict(),
        "seed": run.candidate_seed(settings.seed, genotype.id),
        **cost.to_dict(),
    }
    earlier = next((r for r in journal.candidates if r.id == genotype.id), None)
    if earlier is not None:
        return Record(**common, candidate=None, status="repeat", reward=earlier.reward)
    candidate = common["candidate"] = len(journal.candidates) + 1
    started = time.perf_counter()
    state = train_on_proxy(
        folder,
        settings,
        context.root,
        genotype.to_dict(),
        candidate,
        genotype.id[:6],
        run.candidate_thresholds(settings.search, settings.seed, journal.candidates),
        return_state=True,
    )
    if not state.is_completed():
        seconds = {"until_failure": time.perf_counter() - started}
        reason = state.message or state.name or "unknown"
        return Record(**common, status="failed", seconds=seconds, reason=reason)
    outcome: dict[str, Any] = state.result()
    return Record(
        **common,
        status="stopped early" if outcome["stopped_early"] else "finished",
        reward=shaped_reward(outcome["scores"][-1], cost, settings.search.reward),
        scores=tuple(outcome["scores"]),
        metrics=outcome["metrics"],
        seconds=outcome["seconds"],
    )


def _check_failures(journal: Journal, most: int) -> None:
    last = journal.candidates[-most:]
    if len(last) == most and all(record.status == "failed" for record in last):
        raise RunError(
            f"the last {most} candidates failed, the latest with: {last[-1].reason}. Mend the "
            f"cause and run the same command, or raise search.max_failures"
        )


def _check_novelty(journal: Journal, number: int) -> None:
    latest = [r for r in journal.records if r.round >= number - MAX_ROUNDS_WITHOUT_NEW]
    if number >= MAX_ROUNDS_WITHOUT_NEW and all(r.status == "repeat" for r in latest):
        raise RunError(
            f"{len(journal.candidates)} candidates are trained, and the strategy proposed nothing "
            f"new in {MAX_ROUNDS_WITHOUT_NEW} rounds: lower search.num_candidates to "
            f"{len(journal.candidates)} to accept that"
        )
