"""The commands that use trained networks: ship, predict, export, bench."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli import tables
from flows.cli.completion import model_names
from flows.cli.sizes import image_size
from flows.cli.terminal import console, errors
from nas_core.base.errors import DataError, RunError, SettingsError
from nas_core.base.files import check_writable
from nas_core.base.project import find_project, project_dir

if TYPE_CHECKING:
    from nas_core.models.checkpoint import NetworkCard
    from nas_core.models.segmenter import Segmenter


SHOWN_PROBLEMS = 20
MODEL_HELP = (
    "The name of a shipped model, a .safetensors file, or a folder with one (such as a training's)."
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=model_names)]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Files and folders.")]


def ship(
    training: Annotated[Path, typer.Argument(help="A folder of artifacts/trainings.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="For example arch0-camvid.")],
    data_licence: Annotated[str, typer.Option(metavar="TEXT", help="Of the training data.")],
) -> None:
    """Put a finished training's network into models/ with a card and a drawing.

    NAME.safetensors, .json, .md and .svg.
    """
    from nas_core.base.paths import models_folder
    from nas_core.deploy.shipping import ship as write

    path = write(training, name, data_licence, models_folder(project_dir()))
    console.print(
        f"written: {path}, with its card as .json and .md and its drawing as .svg",
        soft_wrap=True,
        markup=False,
    )


def predict(
    images: Images,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help=MODEL_HELP, autocompletion=model_names)
    ],
    out: Annotated[Path, typer.Option(help="Folder for STEM.png and STEM_overlay.png.")],
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder with true classes as STEM.png: shows and writes metrics.json. They are "
            "read as the dataset.yaml in it or above it says, else as class numbers."
        ),
    ] = None,
    label_ids: Annotated[
        bool,
        typer.Option(
            "--label-ids",
            help="Cityscapes' label ids in place of class numbers, and no overlays: the form that "
            "its evaluation server takes.",
        ),
    ] = False,
) -> None:
    """Label the pixels of images: class numbers as a grey PNG, and an overlay to look at."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from nas_core.data import cityscapes
    from nas_core.data.picture_files import find_pictures
    from nas_core.deploy.predict import Predictor, predict_files
    from nas_core.deploy.test_images import note_scored

    root = find_project()
    pictures = find_pictures(images)
    predictor = Predictor.load(model)
    if label_ids and predictor.card.classes != cityscapes.CLASSES:
        raise SettingsError(f"--label-ids: {model} was not trained on the classes of Cityscapes")
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("", total=len(pictures))
        report = predict_files(
            predictor,
            pictures,
            out,
            masks,
            lambda number: progress.advance(bar, number),
            cityscapes.LABEL_IDS if label_ids else None,
        )
    console.print(
        f"{report.num_written} of {len(pictures)} images predicted into {out}", markup=False
    )
    if report.metrics:
        if root:
            scored = note_scored(root, pictures, predictor.card, model, report.metrics.mean_iou)
            for line in scored:
                console.print(line, markup=False)
        tables.print_class_metrics(console, report.metrics)
    if report.problems:
        shown = report.problems[:SHOWN_PROBLEMS]
        more = len(report.problems) - len(shown)
        raise DataError("\n".join([*shown, *([f"and {more} more"] if more else [])]))


class Format(StrEnum):
    onnx = "onnx"
    onnx_int8 = "onnx-int8"
    openvino = "openvino"
    openvino_int8 = "openvino-int8"
    litert = "litert"

    @property
    def suffix(self) -> str:
        if self is Format.litert:
            return ".tflite"
        return ".onnx" if self in (Format.onnx, Format.onnx_int8) else ".xml"

    @property
    def is_int8(self) -> bool:
        return self in (Format.onnx_int8, Format.openvino_int8)


def export(
    model: Model,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="To write: .onnx, .tflite, or .xml with a .bin beside it."
        ),
    ],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[IMAGES]...",
            help="To check it on, files and folders; else synthetic ones, and for int8 the val "
            "split that the project has prepared.",
        ),
    ] = None,
    to: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.onnx,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="For one image of this size alone; any if left out."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Images to quantise with, of which 24 are taken; the training images that the "
            "project has prepared if left out.",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="True classes of IMAGES, as nas predict takes them."),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="The most that int8 may lose: points of mIoU, or without true classes the per "
            "cent of the labels that differ. 1 if left out.",
        ),
    ] = None,
) -> None:
    """Write a network for other runtimes, checked against PyTorch: ONNX, OpenVINO's or LiteRT's.

    In fp32, or in int8: then with what that costs, and no file if that is too much.
    """
    check_output("--out", out, (to.suffix,))
    fixed = image_size(size) if size else None
    if not to.is_int8:
        for option, value in (
            ("--calibration", calibration),
            ("--masks", masks),
            ("--max-loss", max_loss),
        ):
            if value is not None:
                raise SettingsError(f"{option} is for int8 alone: leave it out, or give --format")
    if max_loss is not None and not 0 <= max_loss <= 100:
        raise SettingsError(f"--max-loss {max_loss:g}: expected points from 0 to 100")
    if masks and not images:
        raise SettingsError("--masks: give IMAGES, whose true classes they are")
    from nas_core.models.checkpoint import load_segmenter
    from nas_core.training.finding import find_weights

    if to.suffix == ".xml":
        from nas_core.deploy.openvino_ir import check_packages

        check_packages(quantised=to.is_int8)
    elif to is Format.litert:
        from nas_core.deploy.litert import find_converter

        if fixed is None:
            raise SettingsError("--format litert: its graphs take one size of image; give --size")
        find_converter()
    segmenter, card = load_segmenter(find_weights(model))
    if to.is_int8:
        _export_int8(segmenter, card, out, images or [], to, fixed, calibration, masks, max_loss)
        return
    from nas_core.data.picture_files import find_pictures
    from nas_core.deploy.export import read_picture

    pictures = [read_picture(path) for path in find_pictures(images or [])]
    if to is Format.onnx:
        from nas_core.deploy.export import export_onnx as write
    elif to is Format.openvino:
        from nas_core.deploy.openvino_ir import export_openvino as write
    else:
        from nas_core.deploy.litert import export_litert as write
    with errors.status("converting and checking"):
        found = write(segmenter, card, out, pictures, fixed)
    console.print(
        f"written: {out}\n{found.num_images} {'images' if images else 'synthetic images'}: logits "
        f"within {found.logits:.1e} of PyTorch's, {found.labels:.3%} of the labels differ",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


def _export_int8(
    segmenter: Segmenter,
    card: NetworkCard,
    out: Path,
    images: list[Path],
    to: Format,
    size: tuple[int, int] | None,
    calibration: Path | None,
    masks: Path | None,
    max_loss: float | None,
) -> None:
    from nas_core.deploy.calibration import calibration_images, checked_pictures
    from nas_core.deploy.int8 import Pictures, Quantise, export_int8

    quantise: Quantise
    if to is Format.onnx_int8:
        from nas_core.deploy import onnx_int8

        quantise = onnx_int8.quantise
    else:
        from nas_core.deploy import openvino_ir

        quantise = openvino_ir.quantise
    root = find_project()
    calibrating = calibration_images([calibration] if calibration else [], root, card)
    pictures = checked_pictures(images, masks, root, card)
    with errors.status("quantising and checking"):
        found = export_int8(
            segmenter,
            card,
            out,
            quantise,
            calibrating,
            pictures or Pictures(calibrating),
            1 if max_loss is None else max_loss,
            size,
        )
    tables.print_int8(console, out, len(calibrating), found, is_own=pictures is None)


def bench(
    model: Model,
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="WxH", help="Again for more. 480x360 and 2048x1024 if left out."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="CPU threads; all cores if left out.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="An export of it (.onnx, .xml, .tflite), too. Again for more."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Latency for one image on this machine's CPU: PyTorch, ONNX Runtime, and exported files."""
    sizes = [image_size(text) for text in size or ("480x360", "2048x1024")]
    from dataclasses import asdict

    from nas_core.deploy.bench import bench as measure
    from nas_core.models.checkpoint import load_segmenter
    from nas_core.training.finding import find_weights

    segmenter, card = load_segmenter(find_weights(model))
    rows = [row for rows in measure(segmenter, card, sizes, threads, file or []) for row in rows]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        tables.print_latencies(console, rows)


def check_output(option: str, path: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse a file to write that has another suffix or lies in no folder that takes it."""
    if path.suffix not in suffixes or path.is_dir():
        expected = " or ".join(suffixes)
        raise SettingsError(f"{option} {path}: expected the path of a file that ends in {expected}")
    if not path.absolute().parent.is_dir():
        raise RunError(f"{option} {path}: the folder {path.parent} does not exist")
    check_writable(path.absolute().parent, f"give {option} another place")
