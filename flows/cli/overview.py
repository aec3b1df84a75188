"""What was found, and what goes on: `nas leaderboard`, `report`, `status`. They need no server."""

from __future__ import annotations

import os
import socket
import time
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import suppress
from os.path import lexists
from pathlib import Path
from shlex import quote
from typing import Annotated

import psutil
import typer
from pydantic import JsonValue
from rich.table import Table
from rich.text import Text

from flows.cli import tables
from flows.cli.completion import search_names
from flows.cli.model_commands import check_output
from flows.cli.terminal import console
from flows.servers.processes import Services
from nas_core.base.addresses import redacted
from nas_core.base.errors import RunError, ServiceError, printable
from nas_core.base.locks import holder
from nas_core.base.paths import artifacts_folder, searches_folder, trainings_folder
from nas_core.base.project import project_dir
from nas_core.base.times import duration, moment
from nas_core.search.about import count_in, is_confirming, search_state
from nas_core.search.journal import Journal, Record
from nas_core.search.ranking import ranking
from nas_core.training.record import EPOCHS_FILE, EpochsDone

# pandas, plotly and torch take seconds to import: commands import what they need themselves.

MOST_NOTES = 10


def leaderboard(
    run: Annotated[
        str | None,
        typer.Option(
            help="Folder name of a search in artifacts/searches; the latest if left out.",
            autocompletion=search_names,
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the table in the terminal.")] = 20,
    csv: Annotated[Path | None, typer.Option(help="Write all rows to this CSV file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write all rows to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all rows as JSON.")] = False,
) -> None:
    """The candidates of a search, best first; also while it runs."""
    for option, path, suffix in (("--csv", csv, ".csv"), ("--parquet", parquet, ".parquet")):
        if path:
            check_output(option, path, (suffix,))
    from nas_core.analysis import leaderboard as boards

    name, table = boards.read_ranking(searches_folder(project_dir()), run)
    for path in filter(None, (csv, parquet)):
        from tasks.results import write_table  # brings matplotlib

        write_table(path, table)
    if as_json:
        print(table.to_json(orient="records", indent=1))
    elif csv or parquet:
        console.print(f"{len(table)} candidates of {name} written", markup=False)
    else:
        console.print(tables.candidates_table(name, table, top))


def report(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Folder name of a search in artifacts/searches; the latest if left out.",
            autocompletion=search_names,
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Write a page with all that a search found, also while it runs: one file, report.html."""
    from nas_core.analysis.leaderboard import read_search
    from nas_core.analysis.report.search_page import write_facts
    from nas_core.analysis.report.sources import read_search_facts

    root = project_dir()
    found, _ = read_search(searches_folder(root), name)
    facts = read_search_facts(root, searches_folder(root) / found)
    path = write_facts(facts)
    for note in facts.notes[:MOST_NOTES]:
        typer.echo(printable(note), err=True)
    if (num_more := len(facts.notes) - MOST_NOTES) > 0:
        typer.echo(f"and {num_more} more, see the end of the page", err=True)
    console.print(str(path), soft_wrap=True, markup=False, highlight=False)
    if show and not webbrowser.open(path.as_uri()):
        raise RunError(f"no browser is found here: open {path} yourself")


def status() -> None:
    """What runs, since when, how far it is, the best so far, and where to look."""
    root = project_dir()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in (*_searches(root), *_trainings(root), *_servers(root)):
        table.add_row(name, Text(printable(value)))
    console.print(table)


def _searches(root: Path) -> Iterator[tuple[str, str]]:
    """What there is to say of the searches that run, or of the latest one."""
    journals = searches_folder(root).glob("*/journal.jsonl")
    folders = [path.parent for path in sorted(journals, key=lambda one: -one.stat().st_mtime)]
    running = [folder for folder in folders if holder(folder)]
    if not folders:
        yield "search", "none yet: `nas search -p synthetic` tries one on built-in scenes"
    for folder in running or folders[:1]:
        yield from _search(folder)


def _search(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        journal = Journal.read(folder / "journal.jsonl")
    except RunError as error:
        yield "search", str(error)
        return
    state, held_by, planned = search_state(folder, journal)
    done = journal.candidates
    since = f", {_since(held_by)}" if held_by else ""
    if state == "running":
        yield "search", f"{folder.name} runs{since}"
    elif state == "complete":
        yield "search", f"{folder.name} has all its candidates{since}"
    else:
        yield "search", f"{folder.name} is stopped: the command that began it goes on from here"
    yield "progress", _progress(state, done, planned, journal.header.settings)
    if is_confirming(folder, journal):
        num = len(journal.confirmations)
        yield "confirming", f"{num} further training{'s' * (num != 1)} of the best so far"
    first = next(iter(ranking(done, journal.confirmations)), None)
    if first and first.reward is not None:
        best, iou = first.record, first.metric("mean_iou")
        seeds = f" (mean of {len(first.runs)} seeds)" if first.is_confirmed else ""
        yield (
            "best",
            f"{best.id}: reward {first.reward:.4f}{seeds}"
            + (f", mIoU {100 * iou:.1f} %" if iou is not None else "")
            + f", {best.num_parameters / 1e3:.0f}K parameters, {best.macs / 1e9:.2f} GMACs",
        )
    else:
        yield "best", "no candidate has a score yet"
    path = folder / "report.html"
    yield "report", str(path) if path.exists() else f"`nas report {quote(folder.name)}` writes it"


def _progress(
    state: str, done: list[Record], planned: int, settings: Mapping[str, JsonValue]
) -> str:
    failed = sum(record.status == "failed" for record in done)
    stopped = sum(record.status == "stopped early" for record in done)
    words = f"candidate {len(done)} of {planned}: {stopped} stopped early, {failed} failed"
    if state == "running" and done:
        latest = done[-20:]
        seconds = sum(sum(record.seconds.values()) for record in latest) / len(latest)
        workers = count_in(settings.get("runner"), "workers") or _places(settings)
        words += f"; about {duration(seconds * (planned - len(done)) / workers)} left"
    return words


def _places(settings: Mapping[str, JsonValue]) -> int:
    """About as many as this machine trains of a search that leaves the number open."""
    search = settings.get("search")
    at_once = (count_in(search, "batch_size") or 1) * (1 + (count_in(search, "rounds_ahead") or 0))
    return min(os.cpu_count() or 1, at_once)


def _trainings(root: Path) -> Iterator[tuple[str, str]]:
    for lock in sorted(trainings_folder(root).glob("*/.lock")):
        if held_by := holder(lock.parent):
            words = f"{lock.parent.name} runs, {_since(held_by)}"
            path = lock.parent / EPOCHS_FILE
            if lexists(path):  # it is not before the end of the first epoch
                try:
                    epochs = EpochsDone.read(path)
                    words += f"; epoch {epochs.done} of {epochs.planned}"
                except RunError as error:
                    words += f"; {error}"
            yield "training", words


def _servers(root: Path) -> Iterator[tuple[str, str]]:
    try:
        record = Services.read(artifacts_folder(root) / "services" / "services.json")
    except ServiceError as error:
        yield "servers", str(error)
        return
    running = {key: one for key in record.services if (one := record.running(key))}
    for key, service in running.items():
        where = redacted(service.url).removesuffix("/api")
        yield key, f"served through {where}" if key == "deployments" else where
    if "prefect" in running:
        from flows.servers.latest_run import latest_run

        if told := latest_run(running["prefect"].url):
            yield "latest run", told
    if not running:
        yield "servers", "none of this project runs: `nas up` starts Prefect and MLflow"


def _since(held_by: str) -> str:
    """ "since 12:30 (1 h 05 min), process 12 on HOST", from the last part."""
    began = None
    _, _, rest = held_by.partition("process ")
    pid, _, host = rest.partition(" on ")
    if pid.isdecimal() and host == socket.gethostname():
        with suppress(psutil.Error):
            began = psutil.Process(int(pid)).create_time()
    if began is None:
        return held_by
    return f"since {moment(began)} ({duration(time.time() - began)}), {held_by}"
