"""The flow nas-fidelity: does the proxy task rank architectures as full training does?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import flow, get_run_logger

from flows.context import Context
from flows.run_logs import say_errors_once
from flows.servers.orphans import claim
from flows.signals import repeat_lost_signals
from flows.trainings import naming, train
from nas_core.analysis import rank_agreement as fidelity
from nas_core.base.errors import RunError, SettingsError
from nas_core.base.files import digest_of, write_json
from nas_core.base.paths import fidelity_folder, results_folder, searches_folder
from nas_core.base.project import project_dir
from nas_core.base.seeds import derive_seed
from nas_core.config import ProxySettings, Settings
from nas_core.models.state import state_digest
from nas_core.search.measuring import check_latency
from nas_core.search.sampling import sample_architectures
from nas_core.search.searched import searched_genotypes
from nas_core.space.architectures import find_architecture
from nas_core.space.genotype import Genotype
from nas_core.training.record import Training
from nas_core.training.side_by_side import side_by_side
from nas_core.workers.local import Workers
from tasks.dataset import prepare_dataset
from tasks.fidelity_report import train_on_proxy, write_fidelity
from tasks.search_log import flatten
from tasks.tracking.store import patiently
from tasks.training import evaluate_architecture

ENOUGH_ARCHITECTURES = 12

say_errors_once()
repeat_lost_signals()


@flow(name="nas-fidelity", flow_run_name="fidelity", on_running=[claim])
def nas_fidelity(
    settings: Settings,
    genotypes: Sequence[str] = (),
    variants: Sequence[ProxySettings] = (),
    num: int = 40,
    num_proxy_seeds: int = 1,
) -> fidelity.FidelityReport:
    """Train architectures on the proxy task and fully, and compare how the two rank them.

    What is trained already is taken as it is, so after an interruption the same call goes on.

    Args:
        genotypes: names, ids or JSON files; if empty, `num` random ones within
            search.constraints.
        variants: settings of the proxy that are tried beside search.proxy.
        num_proxy_seeds: how often each is trained on each proxy; the first is a search's training.

    Returns:
        fidelity.json.
    """
    started = time.time()
    root = project_dir()
    if settings.train.splits != "train":
        raise SettingsError(
            f"train.splits is {settings.train.splits!r}: a network trained on val has no score "
            "there to compare with; set train.splits=train"
        )
    architectures = _named(root, genotypes) if genotypes else {}
    if not genotypes:
        _check_number("num", num)
    context = Context.check(settings, root)
    if not genotypes and settings.search.constraints.max_latency_ms is not None:
        check_latency(settings.search.latency, root)
    prepare_dataset(settings, root, settings.name)
    tracker = context.tracker  # one that cannot be used is refused before any training
    if not architectures:
        architectures = sample_architectures(settings, root, context.data, num)
        _check_number("search.constraints", len(architectures))

    # How to do without one that fails.
    otherwise = "or leave it out" if genotypes else "or set another seed, which draws others"
    variants = [settings.search.proxy, *variants]
    with context.training_workers(len(architectures), proxies=True) as workers:
        # Short ones first: what is wrong with a variant shows early.
        rows, proxies = _train_on_proxies(
            context, workers, architectures, variants, num_proxy_seeds, otherwise
        )
        jobs = [
            (genotype.id, partial(_trained_fully, context, workers, label, genotype, otherwise))
            for label, genotype in architectures.items()
        ]
        trained = dict(side_by_side(workers, jobs))

    table = _table(rows, trained)
    report = _report(context, table, proxies, num_proxy_seeds)
    place = results_folder(root, settings, "fidelity")
    files = write_fidelity(place, report, table, settings.name)
    included = {"dataset", "encoder", "network", "train", "seed"}
    params = settings.model_dump(mode="json", include=included)
    params |= {"search": {"proxy": report.proxy_settings}}
    patiently(
        lambda: tracker.log_report(
            "fidelity",
            digest_of(report.model_dump()),
            started,
            flatten(params),
            _metrics(report),
            files,
        ),
        get_run_logger(),
    )
    return report


def _named(root: Path, references: Sequence[str]) -> dict[str, Genotype]:
    """Different architectures by label."""
    known = searched_genotypes(searches_folder(root))
    by_id: dict[str, tuple[str, Genotype]] = {}
    for label, genotype in (find_architecture(reference, known) for reference in references):
        by_id.setdefault(genotype.id, (label, genotype))
    _check_number("the command", len(by_id))
    return dict(by_id.values())


def _check_number(source: str, num: int) -> None:
    if num < fidelity.LEAST_RANKED:
        raise RunError(
            f"{source} gives {num} different architectures: a ranking needs "
            f"{fidelity.LEAST_RANKED} or more, and {ENOUGH_ARCHITECTURES} or more to say much"
        )
    if num < ENOUGH_ARCHITECTURES:
        get_run_logger().warning(
            f"{num} architectures: with fewer than {ENOUGH_ARCHITECTURES} the correlations are "
            "very uncertain"
        )


def _trained_fully(
    context: Context, workers: Workers, label: str, genotype: Genotype, otherwise: str
) -> fidelity.FullRow:
    held_out = None
    with naming(label, otherwise):
        folder = train(context, workers, label, genotype)
        if context.settings.dataset.held_out:
            held_out = evaluate_architecture(workers, context.settings, context.root, label, folder)
    training = Training.read(folder / "training.json")
    return fidelity.FullRow(
        name=label,
        num_parameters=training.num_parameters,
        macs=training.macs,
        val_mean_iou=training.val["mean_iou"],
        held_out_mean_iou=held_out.mean_iou if held_out else None,
    )


def _train_on_proxies(
    context: Context,
    workers: Workers,
    architectures: dict[str, Genotype],
    variants: Sequence[ProxySettings],
    num_seeds: int,
    otherwise: str,
) -> tuple[list[fidelity.ProxyRow], dict[str, fidelity.Difference]]:
    """A row for each architecture, proxy and seed, and what distinguishes each proxy, by name."""
    default = context.settings.search.proxy
    rows: list[fidelity.ProxyRow] = []
    proxies: dict[str, fidelity.Difference] = {}
    for variant in variants:
        named = fidelity.proxies_of(variant, default)
        # Variants that differ in stage B alone have the same stage A.
        new = named.keys() - proxies.keys()
        if not new:
            continue
        settings = _with_proxy(context.settings, variant)
        folder = _open_folder(context, settings)
        on_proxy = partial(
            _trained_on_proxy, context.root, workers, folder, settings, list(named), otherwise
        )
        jobs = [
            (one[0], partial(on_proxy, number, *one))
            for number, one in product(range(num_seeds), architectures.items())
        ]
        for _, found in side_by_side(workers, jobs):
            rows += [row for row in found if row.proxy in new]
        proxies |= {name: named[name] for name in named if name in new}
    return rows, proxies


def _trained_on_proxy(
    root: Path,
    workers: Workers,
    folder: Path,
    settings: Settings,
    names: Sequence[str],
    otherwise: str,
    number: int,
    label: str,
    genotype: Genotype,
) -> list[fidelity.ProxyRow]:
    """The rows of one training, see `train_on_proxy`; the last of the names is of its end."""
    what = f"{label} on {names[-1]}" + (f", again ({number})" if number else "")
    with naming(what, otherwise):
        outcome = train_on_proxy(workers, folder, settings, root, what, genotype, number)
    return fidelity.proxy_rows(outcome, number, names)


def _with_proxy(settings: Settings, proxy: ProxySettings) -> Settings:
    search = settings.search.model_copy(update={"proxy": proxy})
    return settings.model_copy(update={"search": search})


def _open_folder(context: Context, settings: Settings) -> Path:
    """The folder of what the proxy of `settings` gave, with what names it."""
    identity = fidelity.proxy_identity(
        settings, context.data.search_hash, state_digest(context.encoder_state), context.compute
    )
    folder = fidelity_folder(context.root) / f"{settings.name}-{digest_of(identity)}"
    write_json(folder / "identity.json", identity)
    return folder


def _table(
    rows: Sequence[fidelity.ProxyRow], trained: Mapping[str, fidelity.FullRow]
) -> pd.DataFrame:
    """A row for each of `rows`, without a column that has no value at all."""
    table = pd.DataFrame([asdict(row) | asdict(trained[row.id]) for row in rows])
    return table.dropna(axis="columns", how="all")


def _report(
    context: Context,
    table: pd.DataFrame,
    proxies: dict[str, fidelity.Difference],
    num_proxy_seeds: int,
) -> fidelity.FidelityReport:
    settings = context.settings
    seed = derive_seed(settings.seed, "bootstrap")
    found = fidelity.agreement_by_proxy(table, proxies, seed=seed)
    (default,) = [row for row in found if not row.settings]
    num = table["id"].nunique()
    held_out = None
    if settings.dataset.held_out:
        score = "held_out_mean_iou"
        (judged,) = fidelity.agreement_by_proxy(table, {default.proxy: {}}, seed=seed, score=score)
        held_out = fidelity.HeldOutAgreement(
            **_agreement(judged),
            num_architectures=num,
            groups=list(settings.dataset.held_out),
            baselines=fidelity.baselines(table, seed=seed, score=score),
        )
    return fidelity.FidelityReport(
        **_agreement(default),
        proxy=default.proxy,
        num_architectures=num,
        num_proxy_seeds=num_proxy_seeds,
        baselines=fidelity.baselines(table, seed=seed),
        held_out=held_out,
        proxies=found,
        proxy_settings=settings.search.proxy.model_dump(mode="json"),
        train=settings.train.model_dump(mode="json", exclude={"top", "also"}),
        data_hash=context.data.data_hash,
    )


def _agreement(row: fidelity.ProxyAgreement) -> dict[str, Any]:
    return row.model_dump(include={*fidelity.RewardAgreement.model_fields})


def _metrics(report: fidelity.FidelityReport) -> dict[str, float]:
    metrics: dict[str, float] = {"num_architectures": report.num_architectures}
    for name, value, interval in (
        ("kendall_tau", report.kendall_tau, report.kendall_tau_interval),
        ("spearman_rho", report.spearman_rho, report.spearman_rho_interval),
        ("upper_half_tau", report.upper_half_tau, report.upper_half_tau_interval),
        ("reliability", report.reliability, report.reliability_interval),
    ):
        if value is not None and interval is not None:
            metrics |= {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}
    return metrics
