"""The flow nas-fidelity: does the proxy task rank architectures as full training does?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from prefect import flow, get_run_logger

from flows.context import Context
from flows.logs import say_errors_once
from flows.servers.orphans import claim
from flows.signals import repeat_lost_signals
from flows.trainings import naming, train
from nas_core.analysis import rank_agreement as fidelity
from nas_core.analysis.leaderboard import read_search, searched_genotypes
from nas_core.base.errors import RunError, SettingsError
from nas_core.base.files import digest_of, write_json
from nas_core.base.paths import fidelity_folder, results_folder, searches_folder
from nas_core.base.seeds import derive_seed
from nas_core.config import ProxySettings, Settings, project_dir
from nas_core.models.state import state_digest
from nas_core.space.architectures import find_architecture
from nas_core.space.genotype import Genotype
from nas_core.training.record import Training
from tasks.dataset import prepare_dataset
from tasks.fidelity_report import train_to_proxy_end, write_fidelity
from tasks.search_log import flatten
from tasks.tracking.store import patiently

LEAST_ARCHITECTURES = 4
ENOUGH_ARCHITECTURES = 12

say_errors_once()
repeat_lost_signals()


@flow(name="nas-fidelity", flow_run_name="fidelity", on_running=[claim])
def nas_fidelity(
    settings: Settings,
    genotypes: Sequence[str] = (),
    variants: Sequence[ProxySettings] = (),
    num: int = ENOUGH_ARCHITECTURES,
    search: str | None = None,
) -> fidelity.FidelityReport:
    """Train architectures on the proxy task and fully, and compare how the two rank them.

    What is trained already is taken as it is, so after an interruption the same call goes on.

    Args:
        genotypes: names, ids or JSON files; if empty, `num` candidates of a search.
        variants: settings of the proxy that are tried beside search.proxy.
        search: the folder name of that search; the latest if None.

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
    architectures = _choose(root, genotypes, num, search)
    context = Context.check(settings, root)
    prepare_dataset(settings, root, settings.name)
    tracker = context.tracker  # one that cannot be used is refused before any training

    # Short ones first: what is wrong with a variant shows early.
    rows, proxies = _train_on_proxies(context, architectures, [settings.search.proxy, *variants])
    trainings = {}
    for label, genotype in architectures.items():
        with naming(label):
            folder = train(context, label, genotype)
            trainings[genotype.id] = Training.read(folder / "training.json")

    table = _table(architectures, rows, trainings)
    report = _report(context, table, proxies)
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


def _choose(
    root: Path, references: Sequence[str], num: int, search: str | None
) -> dict[str, Genotype]:
    """Different architectures by label."""
    searches = searches_folder(root)
    if references and search:
        raise SettingsError(
            f"--search {search} and {references[0]} both say which architectures: give one"
        )
    if references:
        known = searched_genotypes(searches)
        found = [find_architecture(reference, known) for reference in references]
        source = "the command"
    else:
        source, candidates = read_search(searches, search)
        chosen = fidelity.spread_by_rank(candidates, num)
        found = [(record.id, Genotype.from_dict(record.genotype)) for record in chosen]
    by_id: dict[str, tuple[str, Genotype]] = {}
    for label, genotype in found:
        by_id.setdefault(genotype.id, (label, genotype))
    architectures = dict(by_id.values())
    if len(architectures) < LEAST_ARCHITECTURES:
        raise RunError(
            f"{source} gives {len(architectures)} different architectures: a ranking needs "
            f"{LEAST_ARCHITECTURES} or more, and {ENOUGH_ARCHITECTURES} or more to say much"
        )
    if len(architectures) < ENOUGH_ARCHITECTURES:
        get_run_logger().warning(
            f"{len(architectures)} architectures: with fewer than {ENOUGH_ARCHITECTURES} the "
            "correlations are very uncertain"
        )
    return architectures


def _train_on_proxies(
    context: Context, architectures: dict[str, Genotype], variants: Sequence[ProxySettings]
) -> tuple[list[fidelity.ProxyRow], dict[str, fidelity.Difference]]:
    """A row for each architecture and proxy, and what distinguishes each proxy by its name."""
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
        for label, genotype in architectures.items():
            what = f"{label} on {list(named)[-1]}"
            with naming(what):
                outcome = train_to_proxy_end(folder, settings, context.root, what, genotype)
            rows += [row for row in fidelity.proxy_rows(outcome, list(named)) if row.proxy in new]
        proxies |= {name: named[name] for name in named if name in new}
    return rows, proxies


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
    architectures: dict[str, Genotype],
    rows: list[fidelity.ProxyRow],
    trainings: dict[str, Training],
) -> pd.DataFrame:
    names = {genotype.id: label for label, genotype in architectures.items()}
    return pd.DataFrame(
        [
            {
                "id": row.id,
                "name": names[row.id],
                "num_parameters": trainings[row.id].num_parameters,
                "macs": trainings[row.id].macs,
                "proxy": row.proxy,
                "reward": row.reward,
                "seconds": row.seconds,
                "val_mean_iou": trainings[row.id].val["mean_iou"],
            }
            for row in rows
        ]
    )


def _report(
    context: Context, table: pd.DataFrame, proxies: dict[str, fidelity.Difference]
) -> fidelity.FidelityReport:
    settings = context.settings
    seed = derive_seed(settings.seed, "bootstrap")
    found = fidelity.agreement_by_proxy(table, proxies, seed=seed)
    (default,) = [row for row in found if not row.settings]
    return fidelity.FidelityReport(
        **default.model_dump(exclude={"settings", "seconds"}),
        num_architectures=table["id"].nunique(),
        proxies=found,
        proxy_settings=settings.search.proxy.model_dump(mode="json"),
        train=settings.train.model_dump(mode="json", exclude={"top", "also"}),
        data_hash=context.data.data_hash,
    )


def _metrics(report: fidelity.FidelityReport) -> dict[str, float]:
    metrics: dict[str, float] = {"num_architectures": report.num_architectures}
    for name, value, interval in (
        ("kendall_tau", report.kendall_tau, report.kendall_tau_interval),
        ("spearman_rho", report.spearman_rho, report.spearman_rho_interval),
    ):
        if value is not None and interval is not None:
            metrics |= {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}
    return metrics
