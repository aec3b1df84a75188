"""The memory that training and evaluation need at Cityscapes' real size.

python -m benchmarks.memory [--architecture NAME] [-p PROFILE] [-S KEY=VALUE ...] [--json]

Draws a dataset of random pixels in Cityscapes' layout, one batch to train on and one image of
2048x1024 to score, and takes one step of the profile's full training and one evaluation, each in a
process of its own. Peaks are of the whole process, and on a GPU of what torch allocated there.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, Overrides, Profile, errors_in_words
from nas_core.base.project import project_dir
from nas_core.config import Settings
from nas_core.data.cityscapes import NUM_LABEL_IDS
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.loading import load_settings
from nas_core.models.compute import Compute
from nas_core.models.cost import form_of
from nas_core.models.segmenter import Segmenter
from nas_core.space.architectures import find_architecture
from nas_core.space.genotype import Genotype
from nas_core.training.full import evaluate, train_fully
from nas_core.training.full_task import FullTask

HEIGHT, WIDTH = 1024, 2048
PREPARED = "prepared"


def draw(root: Path, num_train: int) -> None:
    """Random images and labels in the official layout under `root`."""
    generator = np.random.default_rng(0)
    for split, count in (("train", num_train), ("val", 1)):
        images, masks = (root / kind / split / "city" for kind in ("leftImg8bit", "gtFine"))
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(count):
            name = f"city_{number:06}_000019"
            pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            labels = generator.integers(0, NUM_LABEL_IDS, (HEIGHT, WIDTH), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{name}_leftImg8bit.png", compress_level=0)
            Image.fromarray(labels).save(masks / f"{name}_gtFine_labelIds.png", compress_level=0)


def train(settings: Settings, root: Path, genotype: Genotype) -> dict[str, float]:
    """Peaks of one epoch of one step, with the evaluation at its end."""
    data, compute = _set_up(settings, root)
    recipe = settings.train.model_copy(update={"epochs": 1})
    task = FullTask(data, None, settings.network, recipe, compute)
    train_fully(task, genotype, seed=0, checkpoint=root / "checkpoint.pt")
    return _peaks(compute)


def score(settings: Settings, root: Path, genotype: Genotype) -> dict[str, float]:
    """Peaks of the evaluation of one image."""
    data, compute = _set_up(settings, root)
    network = settings.network
    segmenter = compute.place(Segmenter.build(genotype, **form_of(network, data.num_classes)))
    evaluate(segmenter, data.split("val"), data.num_classes, data.ignore_index)
    return _peaks(compute)


def peak_gib() -> float:
    """The most memory that this process has held so far."""
    # Linux counts it in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _set_up(settings: Settings, root: Path) -> tuple[PreparedData, Compute]:
    data = PreparedData.open(root / PREPARED)
    return data, Compute.from_settings(settings.compute)


def _peaks(compute: Compute) -> dict[str, float]:
    peaks = {"peak_gib": peak_gib()}
    if compute.device.type == "cuda":
        peaks["gpu_peak_gib"] = torch.cuda.max_memory_allocated(compute.device) / 2**30
    return peaks


def measure(settings: Settings, genotype: Genotype) -> list[dict[str, Any]]:
    recipe = settings.train
    work: dict[str, Callable[..., dict[str, float]]] = {
        f"training, {recipe.batch_size} crops of {recipe.crop_width}x{recipe.crop_height}": train,
        f"evaluation, 1 image of {WIDTH}x{HEIGHT}": score,
    }
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        draw(root / "raw", max(3, recipe.batch_size))  # three are the least of a dataset
        prepare(settings.dataset, root, root / PREPARED)
        context = multiprocessing.get_context("spawn")
        for name, function in work.items():
            with ProcessPoolExecutor(1, context) as process:
                peaks = process.submit(function, settings, root, genotype).result()
            rows.append({"work": name, **peaks})
    return rows


@errors_in_words
def main(
    architecture: Annotated[str, typer.Option(help="What is trained.")] = "arch0",
    profile: Profile = "cityscapes",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Measure the peaks of memory."""
    label, genotype = find_architecture(architecture, {})
    given = [*(overrides or []), "dataset.kind=cityscapes", "dataset.path=raw"]
    rows = measure(load_settings(profile, given, root=project_dir()), genotype)
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("work", "peak, GiB", "GPU, GiB", title=f"{label}, {profile}")
    for row in rows:
        gpu = f"{row['gpu_peak_gib']:.1f}" if "gpu_peak_gib" in row else "-"
        table.add_row(row["work"], f"{row['peak_gib']:.1f}", gpu)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
