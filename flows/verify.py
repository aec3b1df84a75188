"""The flow nas-verify: what architectures score after full training beside what is claimed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from prefect import flow, get_run_logger

from flows.context import Context, settings_of_run
from flows.run_logs import say_errors_once
from flows.servers.orphans import claim
from flows.signals import repeat_lost_signals
from flows.trainings import evaluate, naming, record_test, train
from nas_core.analysis.verification import (
    ScoredModel,
    VerificationReport,
    claim_rows,
    compare_pairs,
    compare_with_claim,
)
from nas_core.base.errors import SettingsError
from nas_core.base.files import digest_of
from nas_core.base.paths import results_folder, searches_folder
from nas_core.base.project import project_dir
from nas_core.base.seeds import derive_seed
from nas_core.base.setting_types import Seed
from nas_core.config import (
    ComputeSettings,
    DatasetSettings,
    EncoderSettings,
    NetworkSettings,
    RunnerSettings,
    Settings,
    TrackingSettings,
    TrainSettings,
)
from nas_core.loading import check_once
from nas_core.search.searched import searched_genotypes
from nas_core.space.architectures import ARCHITECTURES, find_architecture
from nas_core.space.claims import SOURCE, find_claim
from nas_core.space.genotype import Genotype
from nas_core.training.evaluation import counts_by_image
from nas_core.training.looks import count_looks
from nas_core.training.record import FinalScores, Training
from nas_core.training.side_by_side import side_by_side
from tasks.dataset import prepare_dataset
from tasks.search_log import flatten
from tasks.tracking.store import patiently
from tasks.verification_report import write_verification

say_errors_once()
repeat_lost_signals()


@flow(name="nas-verify", flow_run_name="verify {profile}", on_running=[claim])
def nas_verify(
    profile: str = "camvid",
    architectures: tuple[str, ...] = tuple(ARCHITECTURES),
    seeds: tuple[Seed, ...] = (0,),
    name: str | None = None,
    dataset: DatasetSettings = DatasetSettings(),
    encoder: EncoderSettings = EncoderSettings(),
    network: NetworkSettings = NetworkSettings(),
    train: TrainSettings = TrainSettings(),
    compute: ComputeSettings = ComputeSettings(),
    runner: RunnerSettings = RunnerSettings(),
    tracking: TrackingSettings = TrackingSettings(),
) -> VerificationReport:
    """Train architectures fully, score them, and compare that with what the paper claims.

    Every section that is not given has the values of the profile. Returns verify.json.

    Args:
        profile: camvid: params.yaml. Else a file of profiles/, as cityscapes.
        architectures: Names, ids or JSON files of architectures.
        seeds: Each architecture is trained once with each of them.
        name: Names the experiment, the registered model, the folders.
    """
    root = project_dir()
    settings = settings_of_run(
        profile,
        root,
        name=name,
        dataset=dataset,
        encoder=encoder,
        network=network,
        # What is trained beside the best of a search is of no account here.
        train=train.model_copy(update={"top": 0, "also": ()}),
        compute=compute,
        runner=runner,
        tracking=tracking,
    )
    return verify(settings, root, architectures, seeds)


def verify(
    settings: Settings, root: Path, references: Sequence[str], seeds: Sequence[int]
) -> VerificationReport:
    """Train, score and compare. What is trained or scored already is taken as it is.

    Leaves verify.json, claims.csv, classes.csv, verify.md and report.html under verify/ in the
    results, and a run with them in MLflow.

    Returns:
        verify.json.
    """
    started = time.time()
    check_once("seed", seeds)
    architectures = _find(root, references)
    contexts = [Context.check(settings.model_copy(update={"seed": seed}), root) for seed in seeds]
    prepare_dataset(settings, root, settings.name)
    first = contexts[0]
    # What cannot be used is refused before any training.
    tracker = first.tracker
    for genotype in architectures.values():
        count_looks(root, genotype.id, first.data.data_hash)

    models = _train_and_score(contexts, architectures)

    report = _report(first, architectures, models)
    for row in claim_rows(report):
        get_run_logger().info(" · ".join(row.values()))
    files = write_verification(results_folder(root, settings, "verify"), report)
    included = {"dataset", "encoder", "network", "train"}
    params = settings.model_dump(mode="json", include=included)
    params |= {"architectures": " ".join(architectures), "seeds": " ".join(map(str, seeds))}
    patiently(
        lambda: tracker.log_report(
            "verify",
            digest_of(report.model_dump()),
            started,
            flatten(params),
            _metrics(report),
            files,
        ),
        get_run_logger(),
    )
    return report


def _find(root: Path, references: Sequence[str]) -> dict[str, Genotype]:
    """Different architectures by label."""
    check_once("architecture", references)
    known = searched_genotypes(searches_folder(root))
    architectures: dict[str, Genotype] = {}
    named_by: dict[str, str] = {}
    for reference in references:
        label, genotype = find_architecture(reference, known)
        if earlier := named_by.get(genotype.id):
            raise SettingsError(
                f"architecture {reference} is the same network as {earlier}: name it once"
            )
        named_by[genotype.id] = reference
        architectures[label] = genotype
    return architectures


def _train_and_score(
    contexts: Sequence[Context], architectures: Mapping[str, Genotype]
) -> dict[str, list[ScoredModel]]:
    """Each architecture with each seed, by label."""
    # Seed by seed, so that what an interruption leaves compares all architectures.
    runs = [(context, label) for context in contexts for label in architectures]
    with contexts[0].training_workers(len(runs)) as workers:

        def job(context: Context, label: str) -> tuple[Path, FinalScores, pd.DataFrame]:
            what = f"{label}, seed {context.settings.seed}"
            with naming(what, "or leave it out: --architecture and --seed name the others"):
                folder = train(context, workers, label, architectures[label])
                test = evaluate(context, workers, folder)
                return folder, test, counts_by_image(folder, test)

        models: dict[str, list[ScoredModel]] = {label: [] for label in architectures}
        jobs = [(run, partial(job, *run)) for run in runs]
        for (context, label), (folder, test, counts) in side_by_side(workers, jobs):
            record_test(context, folder, test)
            # Which may have been trained by another name.
            training = Training.read(folder / "training.json").model_copy(update={"label": label})
            models[label].append(ScoredModel(folder.name, training, test, counts))
    return models


def _report(
    context: Context,
    architectures: Mapping[str, Genotype],
    models: Mapping[str, Sequence[ScoredModel]],
) -> VerificationReport:
    settings, data = context.settings, context.data
    seed = derive_seed(0, "bootstrap")  # one for all, whatever the networks' seeds
    reports = []
    for label, genotype in architectures.items():
        claim, looks = None, None
        if not settings.dataset.held_out:
            where = (settings.dataset.kind, data.final_split, data.height, data.width)
            claim = find_claim(genotype, settings.network, *where)
            if data.final_split == "test":
                looks = count_looks(context.root, genotype.id, data.data_hash)
        reports.append(compare_with_claim(models[label], claim, looks, seed=seed))
    return VerificationReport(
        name=settings.name,
        data_hash=data.data_hash,
        split=data.final_split,
        size=(data.height, data.width),
        splits=settings.train.splits,
        claims_source=SOURCE,
        classes=list(data.classes),
        architectures=reports,
        differences=compare_pairs(models, seed=seed),
        network=settings.network.model_dump(mode="json"),
        train=settings.train.model_dump(mode="json", exclude={"top", "also"}),
    )


def _metrics(report: VerificationReport) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for one in report.architectures:
        metrics |= {f"{report.split}_mean_iou/{one.name}": one.measured.mean}
        if one.claimed is not None:
            metrics |= {f"claimed_mean_iou/{one.name}": one.claimed}
        if one.looks is not None:
            metrics |= {f"looks/{one.name}": one.looks}
    return metrics
