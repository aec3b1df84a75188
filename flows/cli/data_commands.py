"""The commands `nas data`: making a dataset, and looking at it before a search."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
import yaml
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from flows.cli.model_commands import check_output
from flows.cli.terminal import console, errors
from nas_core.base.errors import DataError, SettingsError, printable, some_of
from nas_core.base.files import (
    check_writable,
    digest_of,
    read_text,
    resolved,
    write_atomically,
    write_bytes,
)
from nas_core.base.paths import artifacts_folder
from nas_core.base.problems import in_words
from nas_core.base.project import project_dir
from nas_core.base.times import duration
from nas_core.config import DatasetKind, DatasetSettings, Settings, TileSettings
from nas_core.loading import load_settings, profiles

if TYPE_CHECKING:
    from nas_core.data.check import DatasetReport
    from nas_core.data.description import Places
    from nas_core.data.listing import Listing
    from nas_core.data.meta_val import MetaVal

_HELP = "Make a dataset of what an annotation tool wrote, and look at it before a search."
app = typer.Typer(name="data", help=_HELP, no_args_is_help=True)

_SHOWN_SIZES = 5
_SHOWN_UNUSED = 5
_SHOWN_NEAR = 3
_SHOWN_GROUPS = 8


KINDS = [kind for kind in get_args(DatasetKind) if kind != "synthetic"]


@app.callback(help=_HELP)
def data() -> None:
    pass


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
    tile: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Cut images into square tiles, as dataset.tile."),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Of neighbouring tiles; 32 if left out.")
    ] = None,
) -> None:
    """Read every file: layout, classes, label shares, sizes, and what keeps a search from running.

    Draws a few samples with their labels. The exit code is 0 if a search can run on it.
    """
    from nas_core.data.check import check_dataset, profile_values, sample_picture
    from nas_core.data.description import undescribed
    from nas_core.data.layouts import find_kind, list_dataset
    from nas_core.data.lettering import Lettering
    from nas_core.data.listing import report as all_of

    root = project_dir()
    source = resolved(path)
    if kind is not None and kind not in KINDS:
        raise SettingsError(f"--kind {kind}: there are {', '.join(KINDS)}")
    cut = _tile(tile, overlap)
    chosen = kind or find_kind(source)
    target = root / "profiles" / f"{profile}.yaml"
    if profile is not None:
        if profile in profiles(root):
            raise SettingsError(
                f"the profile {profile} exists: choose another name, leave --profile out, or "
                f"remove {target} to have it written anew"
            )
        try:
            load_settings(sections={"name": profile}, root=root)  # a name that is not valid
        except SettingsError as error:
            said = str(error).removeprefix("params.yaml: name = ")
            raise SettingsError(f"--profile {said}") from None
        check_writable(target.parent, "a profile goes there: move away what is no folder")
    if picture is not None:
        check_output("--picture", picture, (".png", ".jpg"))
    if picture is not None and resolved(picture).is_relative_to(source):
        raise DataError(f"--picture {picture} lies in the dataset: choose another place")
    if chosen == "folder" and (places := undescribed(source)) is not None:
        raise _drafted(source, places, root)
    listing = list_dataset(_dataset(chosen, source), root)
    console.print(f"layout: {listing.layout}", soft_wrap=True, markup=False, highlight=False)
    meta_val = load_settings(root=root).search.meta_val
    checked = artifacts_folder(root) / "check"
    check_writable(checked, "move away what is no folder, or make it writable")
    kept_in = checked / f"{source.name}-{digest_of(str(source))}.seen.json"
    with progress_bar(len(listing.samples)) as on_done:
        report = check_dataset(listing, meta_val, on_done, tile=cut, kept_in=kept_in)
    if report.num_known:
        console.print(
            f"{report.num_known} of {len(listing.samples)} images have not changed since the last "
            f"check and were not read; remove {kept_in} to read them again",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
    _print(report, chosen)
    if report.meta_val is not None:
        _print_meta_val(report.meta_val, "groups" if cut else meta_val.by)
    drawn = sample_picture(listing)
    if drawn is not None:
        place = picture or checked / f"{source.name}.png"
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
        written = f"profile: {target}; start with `nas search -p {profile}`"
        console.print(printable(written), soft_wrap=True, markup=False, highlight=False)
        _print_times(report, load_settings(profile, root=root))


def _tile(size: int | None, overlap: int | None) -> TileSettings | None:
    """What --tile and --overlap say.

    Raises:
        SettingsError: they are no tile.
    """
    if size is None:
        if overlap is not None:
            raise SettingsError(f"--overlap {overlap}: give --tile, too")
        return None
    try:
        given = {} if overlap is None else {"overlap": overlap}
        return TileSettings.model_validate({"size": size, **given})
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--overlap" if problem["loc"][:1] == ("overlap",) else "--tile"
        raise SettingsError(f"{option}: {in_words(problem)}") from None


def _print_times(report: DatasetReport, settings: Settings) -> None:
    """What the profile gives: steps, and times measured on this machine."""
    from nas_core.training.timing import Counts, estimate

    chosen = report.meta_val
    if chosen is None:
        return
    counts = Counts(
        report.prepared["train"], report.prepared["val"], len(chosen.train), len(chosen.val)
    )
    times = estimate(settings, counts, len(report.listing.classes), report.frame)
    train = settings.train
    console.print(
        f"estimated from a few steps on this machine ({times.device}): a candidate "
        f"{duration(times.candidate)}, a search of {settings.search.num_candidates}, "
        f"{times.candidates_at_a_time} at a time, {duration(times.search)}; a full training of "
        f"{train.epochs} epochs {duration(times.training)}, and a search makes "
        f"{train.top + len(train.also)} of these, {times.trainings_at_a_time} at a time",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


def _drafted(source: Path, places: Places, root: Path) -> DataError:
    """Writes a draft of dataset.yaml, and says what to do with it."""
    from nas_core.data.description import DESCRIPTION
    from nas_core.data.drafting import draft, look
    from nas_core.data.folder import arrange
    from nas_core.data.listing import report as all_of

    place = artifacts_folder(root) / "check" / f"{source.name}.{DESCRIPTION}"
    target = source / DESCRIPTION
    named, there = printable(str(source)), printable(str(place))
    if place.exists():
        return DataError(
            f"{there} is there: edit it and copy it to {printable(str(target))}, or remove it for "
            "a new draft"
        )
    found = arrange(source, places)
    console.print(f"layout: {found.layout}", soft_wrap=True, markup=False, highlight=False)
    if not found.pairs:
        return all_of(source, found.problems)
    with progress_bar(len(found.pairs)) as on_done:
        values, problems = look(source, [pair.mask for pair in found.pairs], on_done)
    if problems:
        return all_of(source, [*found.problems, *problems])
    if values.is_one:
        return DataError(
            f"{named}: all {len(found.pairs)} masks hold one and the same value: nothing can be "
            f"learned from them; are these the masks? The first is {found.pairs[0].mask}"
        )
    if values.is_picture:
        return DataError(
            f"{named}: the masks have {len(values.colours)} colours, hardly one of them often, as "
            f"photos have: are these the masks? The first is {found.pairs[0].mask}"
        )
    said = read_text(target, 2**20) if target.exists() else ""
    written = draft(values, found, places, said, target)
    write_bytes(place, written.text.encode())
    console.print(written.text, soft_wrap=True, markup=False, highlight=False)
    first, last = written.class_lines
    return DataError(
        f"{named}: no file names its classes: do so on lines {first} to {last} of the draft\n"
        f"{there}, and copy it to {printable(str(target))}"
    )


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[], None]]:
    """A bar of files that are read, on a terminal; to be called for each."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda: progress.advance(bar)


def _dataset(kind: str, source: Path) -> DatasetSettings:
    try:
        return DatasetSettings.model_validate({"kind": kind, "path": str(source)})
    except ValidationError as error:
        reason = in_words(error.errors()[0])
        raise DataError(f"{source}: {reason}; rename or move the folder") from None


def _share(share: float) -> str:
    """A share in per cent; NaN, where nothing could be counted, is a dash."""
    return "-" if math.isnan(share) else f"{share:.2%}"


def _print(report: DatasetReport, kind: str) -> None:
    listing = report.listing
    table = Table(
        "class",
        title=f"{printable(listing.root.name)} ({kind}): share of the labelled pixels",
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
    _print_groups(listing)
    if report.tile:
        tiles = ", ".join(f"{number} in {split}" for split, number in report.prepared.items())
        console.print(
            f"tiles of {report.tile.size}x{report.tile.size}: {tiles}; {report.num_void} left out, "
            "nearly all ignored",
            highlight=False,
        )
    for why, names in (
        ("in no list", listing.unused),
        ("in a list, but without a mask", listing.unmasked),
    ):
        if names:
            named = ", ".join(names[:_SHOWN_UNUSED]) + ", ..." * (len(names) > _SHOWN_UNUSED)
            console.print(
                f"{why}, and not used: {len(names)} images ({named})",
                markup=False,
                highlight=False,
            )
    _print_splits(report)
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
    unnamed = [name for name in listing.classes if re.fullmatch("class[0-9]+", name)]
    if unnamed:
        console.print(
            f"named as in a draft: {', '.join(unnamed)}: give them names, or ignore them",
            markup=False,
            highlight=False,
        )


def _print_groups(listing: Listing) -> None:
    """Which groups are in which split, where images were taken together."""
    groups: dict[str, dict[str, None]] = {}
    for sample in listing.samples:
        groups.setdefault(sample.split, {})[sample.group] = None
    if sum(map(len, groups.values())) < len(listing.samples):
        shown = "; ".join(
            f"{len(names)} in {split}: {some_of(names, _SHOWN_GROUPS)}"
            for split, names in groups.items()
        )
        console.print(f"groups: {shown}", soft_wrap=True, markup=False, highlight=False)


def _print_meta_val(chosen: MetaVal, by: str) -> None:
    console.print(str(chosen), soft_wrap=True, markup=False, highlight=False)
    if by == "frames" and chosen.num_shared:
        console.print(
            f"{chosen.num_shared} of them have others of their group in training; with "
            "search.meta_val.by=groups they are kept apart",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )


def _print_splits(report: DatasetReport) -> None:
    """What one split has and others lack, and what two have nearly alike."""
    listing = report.listing
    lines = []
    for number, name in enumerate(listing.classes):
        seen = [split for split, shares in report.label_shares.items() if shares[number] > 0]
        if len(seen) == 1 and len(report.label_shares) > 1:
            lines.append(f"{name} ({seen[0]})")
    if lines:
        console.print(f"only in one split: {', '.join(lines)}", markup=False, highlight=False)
    if report.palettes:
        console.print(
            "palettes that do not agree, where labels may mean several things: "
            f"{some_of(report.palettes, _SHOWN_NEAR)}; with a colour for each class in "
            "dataset.yaml, masks are read by their colours",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
    if report.near:
        named = ", ".join(
            f"{listing.relative(one.image)} ({one.split}) and "
            f"{listing.relative(other.image)} ({other.split})"
            for one, other in report.near[:_SHOWN_NEAR]
        )
        console.print(
            f"nearly equal images in different splits, which flatter the scores: "
            f"{len(report.near)} pairs, as {named}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
