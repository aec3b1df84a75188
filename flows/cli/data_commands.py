"""The commands `nas data`: looking at a dataset before a search."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nas_core.base.errors import DataError, SettingsError, printable
from nas_core.base.files import write_atomically, write_bytes
from nas_core.base.paths import artifacts_folder
from nas_core.config import DatasetKind, DatasetSettings, load_settings, profiles, project_dir

if TYPE_CHECKING:
    from nas_core.data.check import Report

app = typer.Typer(name="data", help="Look at a dataset before a search.", no_args_is_help=True)
console = Console()

_SHOWN_SIZES = 5
_SHOWN_UNUSED = 5


KINDS = [kind for kind in get_args(DatasetKind) if kind != "synthetic"]


@app.callback()
def data() -> None:
    """Look at a dataset before a search."""


@app.command()
def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of the dataset.")],
    kind: Annotated[
        str | None,
        typer.Option(help="As dataset.kind; found by the layout if left out."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Where the picture goes, else artifacts/check/ of the project."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write profiles/NAME.yaml for a search on it."),
    ] = None,
) -> None:
    """Read every file: layout, classes, label shares, sizes, and what keeps a search from running.

    Draws a few samples with their labels. The exit code is 0 if a search can run on it.
    """
    from nas_core.data.check import check_dataset, profile_values, sample_picture
    from nas_core.data.layouts import find_kind, list_dataset
    from nas_core.data.lettering import Lettering
    from nas_core.data.listing import report as all_of

    root = project_dir()
    source = path.resolve()
    if kind is not None and kind not in KINDS:
        raise SettingsError(f"--kind {kind}: there are {', '.join(KINDS)}")
    chosen = kind or find_kind(source)
    target = root / "profiles" / f"{profile}.yaml"
    if profile is not None:
        if profile in profiles(root):
            raise SettingsError(f"the profile {profile} exists: choose another name")
        load_settings(sections={"name": profile}, root=root)  # a name that is not valid is refused
    if picture is not None and picture.resolve().is_relative_to(source):
        raise DataError(f"--picture {picture} lies in the dataset: choose another place")
    listing = list_dataset(_dataset(chosen, source), root)
    console.print(f"layout: {listing.layout}", soft_wrap=True, markup=False, highlight=False)
    report = check_dataset(listing)
    _print(report, chosen)
    drawn = sample_picture(listing)
    if drawn is not None:
        place = picture or artifacts_folder(root) / "check" / f"{source.name}.png"
        try:
            write_atomically(place, drawn.save)
        except (OSError, ValueError) as error:
            raise DataError(f"{place}: the picture cannot be written: {error}") from None
        console.print(f"samples: {place}", soft_wrap=True, markup=False, highlight=False)
        if note := Lettering(listing.classes).note:
            console.print(note, soft_wrap=True, markup=False, highlight=False)
    if report.problems:
        raise all_of(source, report.problems)
    if profile is not None:
        inside = source.is_relative_to(root)
        shown = source.relative_to(root).as_posix() if inside else str(source)
        values = profile_values(report, profile, shown, chosen)
        head = f"# Written by nas data check: what differs from params.yaml for {shown}.\n"
        write_bytes(target, (head + yaml.safe_dump(values, sort_keys=False)).encode())
        console.print(f"profile: {target}; start with `nas search -p {profile}`", soft_wrap=True)


def _dataset(kind: str, source: Path) -> DatasetSettings:
    try:
        return DatasetSettings.model_validate({"kind": kind, "path": str(source)})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"{source}: {reason}; rename or move the folder") from None


def _share(share: float) -> str:
    """A share in per cent; NaN, where nothing could be counted, is a dash."""
    return "-" if math.isnan(share) else f"{share:.2%}"


def _print(report: Report, kind: str) -> None:
    listing = report.listing
    table = Table(
        "class",
        title=f"{escape(printable(listing.root.name))} ({kind}): share of the labelled pixels",
    )
    for split, count in report.counts.items():
        table.add_column(f"{split} ({count})", justify="right")
    for number, name in enumerate(listing.classes):
        shares = (report.label_shares[split][number] for split in report.counts)
        table.add_row(Text(name), *map(_share, shares))
    table.add_section()
    table.add_row("(ignored)", *(_share(report.ignored[split]) for split in report.counts))
    console.print(table)
    common = [
        f"{width}x{height} ({count})"
        for (height, width), count in report.sizes.most_common(_SHOWN_SIZES)
    ]
    more = len(report.sizes) - len(common)
    if common:
        console.print(f"sizes: {', '.join(common)}" + (f" and {more} more" if more > 0 else ""))
    if any(report.unlabelled.values()):
        counts = (
            f"{n} of {report.counts[split]} in {split}" for split, n in report.unlabelled.items()
        )
        console.print(f"images without a labelled pixel: {', '.join(counts)}")
    if report.padding:
        height, width = report.frame
        console.print(
            f"padded to {width}x{height}: {report.padding:.0%} of the prepared pixels are padding"
        )
    if unused := listing.unused:
        named = ", ".join(unused[:_SHOWN_UNUSED]) + ", ..." * (len(unused) > _SHOWN_UNUSED)
        console.print(
            f"in no list, and not used: {len(unused)} images ({named})",
            markup=False,
            highlight=False,
        )
    if report.counts and "test" not in report.counts:
        console.print("no test split: final networks are scored on val")
    train = report.label_shares.get("train")
    absent = (
        []
        if train is None or math.isnan(train[0])
        else [name for name, share in zip(listing.classes, train, strict=True) if not share > 0]
    )
    if absent:
        console.print(f"never in train: {', '.join(absent)}", markup=False)
