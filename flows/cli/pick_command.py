"""`nas pick`: one network to choose from all that were searched and trained."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.completion import search_names
from flows.cli.terminal import console
from nas_core.analysis.picking import Group, KnownNetwork, Limits, Picks
from nas_core.analysis.picking import pick as choose
from nas_core.base.errors import SettingsError, printable, some_of
from nas_core.base.paths import searches_folder, trainings_folder
from nas_core.base.project import project_dir
from nas_core.loading import check_distinct, load_settings, profiles


def pick(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Folder names of searches in artifacts/searches; all networks if left out.",
            autocompletion=search_names,
        ),
    ] = None,
    max_parameters: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="As 250000.")
    ] = None,
    max_macs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Multiply-accumulates, as 600000000.")
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="As its search measured it, as 80.")
    ] = None,
    num: Annotated[int, typer.Option(min=1, max=1000, help="Of each table.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The best networks within limits, by the strongest evidence there is, and what is missing.

    Full trainings count by mIoU on val, others by the reward of the proxy task; never by test.
    """
    check_distinct("NAME", names or ())
    if max_latency_ms is not None and not 0 < max_latency_ms < float("inf"):
        raise SettingsError(f"--max-latency-ms {max_latency_ms}: expected milliseconds, as 80")
    root = project_dir()
    limits = Limits(parameters=max_parameters, macs=max_macs, latency_ms=max_latency_ms)
    picks = choose(searches_folder(root), trainings_folder(root), limits, num, names or ())
    if as_json:
        print(picks.to_bytes().decode().strip())
    else:
        print_picks(console, root, picks)


def print_picks(out: Console, root: Path, picks: Picks) -> None:
    """A table for each group, in 80 columns, and what to do next."""
    for group in picks.groups:
        out.print(_table(group))
        for line in _ways(group):
            out.print(line, soft_wrap=True, markup=False, highlight=False)
        overrides = _overrides(root, group)
        if overrides:
            out.print(f"with{overrides}", soft_wrap=True, markup=False, highlight=False)
        for line in _missing(root, group, overrides):
            out.print(line, soft_wrap=True, markup=False, highlight=False)
        out.print()
    words = f"{picks.num_networks} networks have a score"
    if picks.num_over:
        words += f"; over a limit: {picks.num_over}"
    if picks.num_unmeasured:
        words += f"; without a latency, which searches measure of the best: {picks.num_unmeasured}"
    out.print(words, soft_wrap=True, highlight=False)
    if len(picks.groups) > 1:
        out.print(
            "scores of two tables do not compare: other data, recipe or proxy task; of one data "
            "set\nthe upper table has the stronger evidence",
            soft_wrap=True,
            highlight=False,
        )


def _table(group: Group) -> Table:
    is_trained = group.evidence == "trained"
    by = "full training, by mIoU on val" if is_trained else "proxy task, by reward"
    title = f"{printable(group.data)}: {by}; {group.num_within} within the limits"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("id", no_wrap=True)
    for heading in ("params", "GMACs", "ms", "val mIoU" if is_trained else "reward", "seeds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("missing")
    for one in group.networks:
        error = "" if one.score_error is None else f"±{one.score_error:.4f}".replace("±0.", "±.")
        table.add_row(
            one.id,
            f"{one.num_parameters / 1e3:.0f}K",
            f"{one.macs / 1e9:.2f}",
            "" if one.latency_ms is None else f"{one.latency_ms:.1f}",
            f"{one.score:.4f}{error}",
            str(one.seeds),
            _gaps(one, is_trained),
        )
    return table


def _ways(group: Group) -> list[str]:
    """What the column ms is; of whom, where the networks were not measured alike."""
    ways: dict[str, list[str]] = {}
    for one in group.networks:
        if one.latency_by is not None:
            ways.setdefault(one.latency_by, []).append(one.id)
    if len(ways) == 1:
        return [f"ms {printable(way)}" for way in ways]
    return [f"ms of {some_of(ids)} {printable(way)}" for way, ids in ways.items()]


def _gaps(network: KnownNetwork, is_trained: bool) -> str:
    if not is_trained:
        return "full training"
    gaps = ["another seed"] if network.seeds == 1 else []
    return ", ".join(gaps if network.verified else [*gaps, "test"])


def _overrides(root: Path, group: Group) -> str:
    """The options by which its settings differ from what is configured."""
    configured = load_settings(_profile(root, group), root=root).model_dump(mode="json")
    found = ""
    for section, values in group.settings.items():
        for key, value in values.items():
            if key in configured[section] and configured[section][key] != value:
                text = value if isinstance(value, str) else json.dumps(value)
                found += f" -S {quote(f'{section}.{key}={text}')}"
    return found


def _profile(root: Path, group: Group) -> str:
    """That of its name, or params.yaml itself."""
    return group.data if group.data in profiles(root) else "camvid"


def _missing(root: Path, group: Group, overrides: str) -> list[str]:
    """What makes the evidence for the best of a group stronger."""
    first = group.networks[0]
    name = _profile(root, group)
    options = (f" -p {quote(name)}" if name != "camvid" else "") + overrides
    if group.evidence == "proxy":
        where = f"from {some_of(group.sources, most=2)}"
        return [f"{where}; only proxy: `nas train {first.id}{options}`"]
    lines = []
    if first.seeds == 1:
        other = min({0, 1} - {*first.training_seeds})
        lines.append(f"one seed says little: `nas train {first.id}{options} -S seed={other}`")
    if not first.verified:
        command = f"nas verify {quote(name)} --architecture {first.id}{overrides}"
        lines.append(f"not scored on test; do it once it is chosen: `{command}`")
    return lines
