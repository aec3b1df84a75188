"""The commands that are a flow in this process: searching, training, comparing, verifying."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer

from flows.cli import completion, tables
from flows.cli.arguments import Overrides, Profile, Reference, find
from flows.cli.places import check_places
from flows.cli.terminal import console, errors
from nas_core.base.errors import SettingsError
from nas_core.base.project import project_dir
from nas_core.base.setting_types import MAX_SEED
from nas_core.config import SECTIONS, ProxySettings, Settings
from nas_core.loading import check_distinct, check_once, load_settings

# torch, prefect and mlflow take seconds to import: commands import what they need themselves.


class Stage(StrEnum):
    all = "all"
    prepare = "prepare"
    search = "search"
    train = "train"
    evaluate = "evaluate"


def search(
    profile: Profile = "camvid",
    overrides: Overrides = None,
    stage: Annotated[Stage, typer.Option(help="Run only this stage, as dvc.yaml does.")] = (
        Stage.all
    ),
) -> None:
    """Search, train the best fully and test them: the flow nas-search, in this process.

    Stopped with Ctrl-C, the same command goes on from where it was.
    """
    settings = _settings(profile, overrides)
    if stage in (Stage.all, Stage.search):
        _check_latency(settings)
    from flows.search import nas_search

    # Every section is complete here, so the flow takes nothing from the profile.
    sections = {name: getattr(settings, name) for name in Settings.model_fields}
    with stoppable():
        nas_search(profile=profile, stage=stage.value, **sections)
    if stage in (Stage.all, Stage.search):
        tables.print_results(console, project_dir(), settings)


def train(
    genotype: Reference,
    profile: Profile = "camvid",
    overrides: Overrides = None,
    test: Annotated[
        bool, typer.Option("--test", help="Score the test split at the end. Do it once.")
    ] = False,
) -> None:
    """Train one architecture fully, from its last checkpoint if there is one."""
    settings = _settings(profile, overrides)
    find(genotype)  # refuses before Prefect starts
    from flows.train import nas_train

    with stoppable():
        summary = nas_train(settings, genotype, test)
    tables.print_training(console, summary)


def compare(
    profile: Profile = "camvid",
    overrides: Overrides = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="ppo, ppo-independent (decisions do not see each other), reinforce, evolution or "
            "random; again for more. All of these if left out. Or pareto.",
        ),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Again for more. 0 and 1 if left out.")
    ] = None,
) -> None:
    """Search strategies side by side at equal proxy training time: the flow nas-compare.

    Each strategy and seed is a search of search.num_candidates, and one that is complete is not
    repeated. Stopped with Ctrl-C, the same command goes on. Other seeds may run in another process
    at the same time; a command that names all of them gathers them. Time is that of the clock: it
    compares fairly what ran under the same load.
    """
    settings = _settings(profile, overrides)
    _check_latency(settings)
    from nas_core.analysis.comparison import plan_searches

    plan_searches(settings, strategy or (), seed or ())  # refuses before Prefect starts
    from flows.compare import nas_compare

    with stoppable():
        comparison = nas_compare(settings, strategy or [], seed or [])
    tables.print_comparison(console, project_dir(), settings, comparison)


def fidelity(
    genotypes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GENOTYPE]...",
            help="Names, ids or JSON files; else random ones within search.constraints.",
            autocompletion=completion.genotype_names,
        ),
    ] = None,
    profile: Profile = "camvid",
    overrides: Overrides = None,
    num: Annotated[
        int | None,
        typer.Option(min=4, max=10_000, help="Random architectures that are drawn, else 40."),
    ] = None,
    proxy_seeds: Annotated[
        int,
        typer.Option(
            min=1, max=1000, help="Trainings of each on a proxy: several show its reliability."
        ),
    ] = 1,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE[,...]", help="Try search.proxy with changes too: height=72,width=96."
        ),
    ] = None,
) -> None:
    """Does the proxy task rank architectures as full training does?

    Trains each on the proxy task and fully. Stopped with Ctrl-C, the same command goes on.
    """
    settings = _settings(profile, overrides)
    if genotypes and num is not None:
        raise SettingsError("--num is of random architectures: leave it out, or the names")
    if not genotypes and settings.search.constraints.max_latency_ms is not None:
        _check_latency(settings)
    variants: list[ProxySettings] = []
    for text in proxy or ():
        changed = load_settings(profile, [*(overrides or ()), *proxy_changes(text)]).search.proxy
        if changed in (settings.search.proxy, *variants):
            raise SettingsError(f"--proxy {text}: this proxy is tried already: leave it out")
        variants.append(changed)
    for reference in genotypes or ():
        find(reference)  # refuses before Prefect starts
    from flows.fidelity import nas_fidelity

    with stoppable():
        report = nas_fidelity(settings, genotypes or [], variants, num or 40, proxy_seeds)
    tables.print_fidelity(console, project_dir(), settings, report)


def verify(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE",
            help="camvid (params.yaml itself) or a file of profiles/.",
            autocompletion=completion.profile_names,
        ),
    ] = "camvid",
    overrides: Overrides = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GENOTYPE",
            help="A name, id or JSON file; again for more. All names if left out.",
            autocompletion=completion.genotype_names,
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N", min=0, max=MAX_SEED, help="Again for more; the setting seed if left out."
        ),
    ] = None,
) -> None:
    """The paper's claims beside what its architectures score here: the flow nas-verify.

    Trains each architecture fully with each seed on the splits of train.splits and scores it once
    on test, or on val where there is no test split. Stopped with Ctrl-C, the same command goes on.
    """
    from nas_core.space.architectures import ARCHITECTURES

    settings = _settings(profile, overrides)
    references, seeds = tuple(architecture or ARCHITECTURES), tuple(seed or [settings.seed])
    check_once("seed", seeds)  # refuses before Prefect starts
    for reference in references:
        find(reference)
    from flows.verify import nas_verify

    taken = inspect.signature(nas_verify.fn).parameters
    sections = {name: getattr(settings, name) for name in SECTIONS if name in taken}
    with stoppable():
        report = nas_verify(profile, references, seeds, settings.name, **sections)
    tables.print_verification(console, project_dir(), settings, report)


def _settings(profile: str, overrides: list[str] | None) -> Settings:
    """The settings of a command that needs the servers, and a place for what they write.

    What is wrong with them is said before Prefect starts, which takes half a minute.
    """
    settings = load_settings(profile, overrides or ())
    check_distinct("-S", [text.partition("=")[0].strip() for text in overrides or ()])
    check_places(project_dir())
    from nas_core.models.encoder import check_encoder

    check_encoder(settings.network.encoder)
    return settings


def _check_latency(settings: Settings) -> None:
    from nas_core.search.measuring import check_latency

    check_latency(settings.search.latency, project_dir())


@contextmanager
def stoppable() -> Iterator[None]:
    """Around a flow in this process: it has a server to report to; a signal ends it.

    What is done by then is on the disk.

    Raises:
        ServiceError: no Prefect server answers at the configured address.
    """
    from prefect.client.orchestration import get_client

    from flows import signals
    from flows.servers import orphans, prefect_server

    stopped = "stopped; the same command goes on from here"
    untold = f"{stopped}. The Prefect server is gone: the next command closes the run there"
    try:
        with signals.raised():
            orphans.end_processes()
            orphans.mark_processes()
            with (
                prefect_server.for_command() as url,
                signals.insistent(lambda: prefect_server.answers(url), untold),
            ):
                with get_client(sync_client=True) as client:
                    for run in orphans.crash_runs(client):
                        errors.print(f"run {run.name} had lost its process: now marked as Crashed")
                yield
    except KeyboardInterrupt as stop:
        errors.print(stopped)
        raise typer.Exit(128 + (signals.signal_of(stop) or signal.SIGINT)) from None


def proxy_changes(text: str) -> list[str]:
    changes = text.split(",")
    if not all("=" in change for change in changes):
        raise SettingsError(
            f"--proxy {text}: expected KEY=VALUE[,KEY=VALUE...], for example height=72,width=96"
        )
    check_distinct(f"--proxy {text}:", [change.partition("=")[0].strip() for change in changes])
    return [f"search.proxy.{change.strip()}" for change in changes]
