"""The command `nas data import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.data_commands import progress_bar
from flows.cli.terminal import console
from nas_core.base.errors import printable, some_of
from nas_core.base.files import resolved
from nas_core.data.importing import Format, Unlabelled

if TYPE_CHECKING:
    from nas_core.data.importing.importer import Imported


def import_annotations(
    source: Annotated[
        Path, typer.Argument(metavar="FILE_OR_FOLDER", help="What the annotation tool wrote.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="coco: also what CVAT, Label Studio and Roboflow export as COCO; it needs the "
            "package pycocotools.",
        ),
    ],
    unlabelled: Annotated[
        Unlabelled,
        typer.Option(help="What pixels without a shape are: a class background, or not counted."),
    ] = "background",
    copy: Annotated[
        bool,
        typer.Option(
            "--copy",
            help="Copy the images. Else they are hard links, which need no space: who changes an "
            "image in place changes both.",
        ),
    ] = False,
    skip_bad_shapes: Annotated[
        bool,
        typer.Option(
            "--skip-bad-shapes",
            help="Leave out shapes that cannot be drawn, as polygons of two points; else they are "
            "errors.",
        ),
    ] = False,
) -> None:
    """Make a dataset of images and label masks from polygons, masks and other shapes.

    A later shape lies above an earlier one, crowd regions lie below all and are ignored. Folders
    or files of train, valid and test are kept as splits; else dataset.yaml divides by shares.
    """
    from nas_core.data.importing.importer import check_target, import_dataset, read_plan

    check_target(out)
    plan = read_plan(source, form)
    with progress_bar(2 * len(plan.pictures)) as on_done:  # each is drawn, then written
        done = import_dataset(
            plan,
            resolved(out),
            unlabelled=unlabelled,
            skip_bad_shapes=skip_bad_shapes,
            copy=copy,
            advance=on_done,
        )
    _print_imported(done, out)


def _print_imported(done: Imported, out: Path) -> None:
    from nas_core.data.listing import SPLITS

    counts = done.counts
    splits = ", ".join(f"{split} {counts[split]}" for split in SPLITS if split in counts)
    lines = [
        f"written: {out}: {sum(counts.values())} images ({splits or 'divided by dataset.yaml'})",
        f"{len(done.classes)} classes: {some_of(done.classes)}",
        *done.notes,
        *(f"left out: {line}" for line in done.left_out),
        f"look at it with `nas data check {out}`",
    ]
    console.print("\n".join(map(printable, lines)), soft_wrap=True, markup=False, highlight=False)
