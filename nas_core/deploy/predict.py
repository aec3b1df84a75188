"""Trained networks on images of one's own: for the command line and notebooks.

predictor = Predictor.load("arch0-camvid")
labels = predictor("street.jpg")
"""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from nas_core.base.documents import Document
from nas_core.base.errors import DataError, shown
from nas_core.base.files import resolved, write_atomically
from nas_core.data.description import description_file, read_description
from nas_core.data.images import read_image, read_mask
from nas_core.data.labels import IGNORED
from nas_core.data.masks import MaskReader
from nas_core.data.overlay import overlay
from nas_core.models.checkpoint import NetworkCard, load_segmenter
from nas_core.models.labelling import (
    batch_size_for,
    check_array,
    check_memory,
    predict_batch,
    predict_labels,
)
from nas_core.models.segmenter import Segmenter
from nas_core.training.finding import find_weights
from nas_core.training.metrics import ConfusionMatrix

METRICS_FILE = "metrics.json"
_OVERLAY = "_overlay.png"
_LEVELS_ABOVE = 3  # dataset.yaml over a folder such as train/masks/night


class Predictor:
    """A trained network, ready to label images.

    Attributes:
        segmenter: in eval mode, on a GPU if there is one.
        card: the network's classes, palette and architecture.
    """

    def __init__(self, segmenter: Segmenter, card: NetworkCard) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.segmenter = segmenter.to(device).eval()
        self.card = card

    @classmethod
    def load(cls, model: str | Path) -> Predictor:
        """A model by the name of a shipped one, or by the path of a .safetensors file or a folder.

        Raises:
            WeightsError: there is no such model, or it cannot be read.
        """
        return cls(*load_segmenter(find_weights(model)))

    def __call__(self, image: str | Path | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The class numbers (H, W) of a picture's file, or of an RGB array (H, W, 3).

        A network that was trained on tiles labels a larger picture by tiles, see `predict_labels`.

        Raises:
            DataError: the file cannot be read as a picture, or is too large for the memory.
            ValueError: it is neither, or the array has another shape or type, or no pixels.
            WeightsError: the network's output is not finite.
        """
        if isinstance(image, str | Path):
            array = read_image(Path(image), upright=True)
        elif isinstance(image, np.ndarray):
            array = image
        else:
            found = type(image).__name__
            raise ValueError(f"expected the path of a picture or a numpy array, found {found}")
        check_array(array)
        size = (array.shape[0], array.shape[1])
        check_memory("the picture", size, self.card.tile, len(self.card.classes))
        return predict_labels(self.segmenter, array, self.card.tile)


class PredictionScores(Document):
    """metrics.json: how predictions agree with masks; see `FinalScores`."""

    num_images: int
    """That were scored."""
    mean_iou: float
    frequency_weighted_iou: float
    mean_accuracy: float
    reward: float
    class_iou: dict[str, float]
    """By class, without those that the masks lack."""


@dataclass
class PredictionReport:
    """What became of the pictures.

    Attributes:
        num_written: pictures whose labels and overlay were written.
        problems: a line for each file that could not be used.
        metrics: if there were masks.
    """

    num_written: int = 0
    problems: list[str] = field(default_factory=list)
    metrics: PredictionScores | None = None


def predict_files(
    predictor: Predictor,
    pictures: Sequence[Path],
    out: Path,
    masks: Path | None = None,
    on_done: Callable[[int], None] = lambda number: None,
    label_ids: Sequence[int] | None = None,
) -> PredictionReport:
    """Write STEM.png (8-bit grey, class numbers, the picture's size) and STEM_overlay.png of each.

    A picture that cannot be read becomes a problem in the report; the others are written.

    Args:
        masks: a folder with the true classes as STEM.png. They are read as the dataset.yaml in it
            or above it says; without one they are 8-bit grey, class numbers, and the number of
            classes means "not labelled". Then metrics.json is written too.
        on_done: called with the number of pictures that are done since the last call.
        label_ids: one for each class, written in place of its number, and no overlays: the form
            that a benchmark's server takes.

    Raises:
        DataError: two pictures have one stem, a picture or mask would be overwritten, `masks` is
            no folder, its dataset.yaml is not valid or of other classes, or `out` cannot be
            written. All but a disk that gets full is found before any work.
        WeightsError: the network's output is not finite.
    """
    if masks is not None:
        _check_folder(masks)
    description = masks and _find_description(masks, predictor.card.classes)
    read = _mask_reader(description, predictor.card.classes)
    suffixes = [".png"] if label_ids else [".png", _OVERLAY]
    _check_outputs(pictures, out, masks, suffixes)
    report = PredictionReport()
    num_classes = len(predictor.card.classes)
    confusion = ConfusionMatrix(num_classes, ignore_index=num_classes)
    num_scored = 0
    palette = np.array(predictor.card.palette, np.uint8)
    values = np.array(label_ids or range(num_classes), np.uint8)
    for batch in _batches(pictures, predictor.card, report, on_done):
        if predictor.card.tile:
            predicted = [predictor(image) for _, image in batch]
        else:
            predicted = [
                *predict_batch(predictor.segmenter, np.stack([image for _, image in batch]))
            ]
        for (path, image), labels in zip(batch, predicted, strict=True):
            try:
                if not label_ids:
                    _save(out / f"{path.stem}{_OVERLAY}", overlay(image, labels, palette))
                _save(out / f"{path.stem}.png", Image.fromarray(values[labels]))
            except OSError as error:
                raise DataError(f"{out} cannot be written: {error.strerror or error}") from None
            report.num_written += 1
            if masks is not None:
                try:
                    _count(confusion, labels, _mask_of(path, masks), read)
                    num_scored += 1
                except DataError as error:
                    report.problems.append(str(error))
        on_done(len(batch))
    if masks is not None:
        try:
            if not num_scored:
                raise DataError("no score: no image has a mask that can be read")
            report.metrics = _metrics(confusion, predictor.card, num_scored)
            report.metrics.write(out / METRICS_FILE)
        except DataError as error:
            report.problems.append(f"{masks}: {error}")
    return report


def mask_reader(masks: Path, classes: Sequence[str]) -> Callable[[Path], npt.NDArray[np.uint8]]:
    """Reads the true classes (H, W) of a picture from its STEM.png in `masks`, see `predict_files`.

    Raises:
        DataError: `masks` is no folder, or its dataset.yaml is not valid or of other classes. The
            reader raises one if there is no mask of a picture, or it cannot be read.
    """
    _check_folder(masks)
    read = _mask_reader(_find_description(masks, classes), classes)

    def of_picture(path: Path) -> npt.NDArray[np.uint8]:
        mask = _mask_of(path, masks)
        if not mask.exists():
            raise DataError(f"{mask} is missing: give a mask of each image")
        return read(mask)

    return of_picture


def _check_folder(masks: Path) -> None:
    if not masks.is_dir():
        raise DataError(f"masks: {masks} is not a folder: give one with STEM.png of each image")


def _find_description(masks: Path, classes: Sequence[str]) -> Path | None:
    """The dataset.yaml that the masks follow: in their folder, or the nearest one above it."""
    folder = masks.absolute()
    for place in (folder, *folder.parents[:_LEVELS_ABOVE]):
        if path := description_file(place):
            found = [entry.name for entry in read_description(place).classes]
            if unknown := [name for name in found if name not in map(_composed, classes)]:
                raise DataError(
                    f"{path}: class {shown(unknown[0])} is none of the model's "
                    f"({', '.join(classes[:5])}{' ...' * (len(classes) > 5)}): "
                    "give masks of the data that it was trained on"
                )
            return path
    return None


def _mask_reader(
    description: Path | None, classes: Sequence[str]
) -> Callable[[Path], npt.NDArray[np.uint8]]:
    """Reads masks to the model's class numbers; their count is "not labelled"."""
    unlabelled = len(classes)
    if description is None:
        return partial(read_mask, num_labels=unlabelled + 1)
    reader = MaskReader(description.parent, read_description(description.parent), description.name)
    numbers = np.full(IGNORED + 1, unlabelled, np.uint8)
    known = list(map(_composed, classes))
    for number, entry in enumerate(reader.description.classes):
        numbers[number] = known.index(entry.name)
    return lambda path: numbers[reader(path.absolute())]


def _composed(name: str) -> str:
    """The name of a class as a description has it; older models keep it as it was written."""
    return unicodedata.normalize("NFC", name)


def _batches(
    pictures: Sequence[Path],
    card: NetworkCard,
    report: PredictionReport,
    on_done: Callable[[int], None],
) -> Iterator[list[tuple[Path, npt.NDArray[np.uint8]]]]:
    """Neighbours of equal size together, up to a number of pixels."""
    batch: list[tuple[Path, npt.NDArray[np.uint8]]] = []
    for path in pictures:
        try:
            image = read_image(path, upright=True)
            height, width = image.shape[:2]
            check_memory(path, (height, width), card.tile, len(card.classes))
        except DataError as error:
            report.problems.append(str(error))
            on_done(1)
            continue
        other_size = bool(batch) and image.shape != batch[0][1].shape
        if batch and (other_size or len(batch) >= batch_size_for((height, width))):
            yield batch
            batch = []
        batch.append((path, image))
    if batch:
        yield batch


def _check_outputs(
    pictures: Sequence[Path], out: Path, masks: Path | None, suffixes: Sequence[str]
) -> None:
    sources = {resolved(path) for path in pictures}
    if masks is not None:
        sources |= {resolved(_mask_of(path, masks)) for path in pictures}
    written: dict[str, Path] = {}
    for path in pictures:
        for name in (path.stem + suffix for suffix in suffixes):
            if name in written:
                raise DataError(
                    f"{written[name]} and {path} would both be written to {name}: rename one, or "
                    "predict them into two folders"
                )
            written[name] = path
            if resolved(out / name) in sources:
                raise DataError(
                    f"{out / name} would be overwritten: give a folder of its own for the output"
                )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}") from None
    for name in (*written, METRICS_FILE):
        if (out / name).is_dir():
            raise DataError(f"{out / name} is a folder: remove it, or give another folder")
    for path in pictures if _OVERLAY in suffixes else ():
        # Labels are written after their overlay.
        file = out / f"{path.stem}.png"
        if file.exists() and not (out / f"{path.stem}{_OVERLAY}").exists():
            raise DataError(
                f"{file} is there and no earlier prediction, as a true mask may be: give a folder "
                "of its own for the output, or remove it"
            )


def _mask_of(picture: Path, masks: Path) -> Path:
    """STEM.png, whichever of Unicode's forms the names have."""
    name = f"{picture.stem}.png"
    names = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return next((masks / name for name in names if (masks / name).exists()), masks / name)


def _save(path: Path, picture: Image.Image) -> None:
    write_atomically(path, lambda temporary: picture.save(temporary))


def _count(
    confusion: ConfusionMatrix,
    labels: npt.NDArray[np.uint8],
    mask: Path,
    read: Callable[[Path], npt.NDArray[np.uint8]],
) -> None:
    if not mask.exists():
        raise DataError(f"{mask} is missing: its image is not in the metrics")
    truth = read(mask)
    if truth.shape != labels.shape:
        raise DataError(
            f"{mask}: {truth.shape[1]}x{truth.shape[0]}; "
            f"its image is {labels.shape[1]}x{labels.shape[0]}"
        )
    confusion.update(torch.from_numpy(labels), torch.from_numpy(truth))


def _metrics(confusion: ConfusionMatrix, card: NetworkCard, num_images: int) -> PredictionScores:
    return PredictionScores(
        num_images=num_images,
        **confusion.metrics(),
        class_iou=confusion.class_iou(card.classes),
    )
