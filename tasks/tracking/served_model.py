"""The model that MLflow serves: an image in, the class of each pixel out.

MLflow stores this file with the model and runs it when the model is loaded ("models from code"),
so nothing is pickled. It runs with the copy of nas_core that lies beside it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from PIL import Image

from nas_core.base.errors import DataError, WeightsError, first_line
from nas_core.data.containers import MAX_PIXELS
from nas_core.data.images import decode_image
from nas_core.models.checkpoint import NetworkCard, load_segmenter
from nas_core.models.labelling import check_memory, predict_labels


class ServedSegmenter(PythonModel):
    """Column `image`, base64 of an image's file, to column `mask`, base64 of a PNG file.

    Images are read and labelled as by `nas predict`. The mask is 8-bit grey, of the upright image's
    size; a pixel's value is the number of its class in the model's metadata. A request may have
    several rows, with as many pixels in all as one image may have.
    """

    def load_context(self, context: PythonModelContext) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        segmenter, self.card = load_segmenter(Path(context.artifacts["weights"]))
        self.segmenter = segmenter.to(device)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        card = self.card
        images = _decode_all(model_input["image"], card)
        try:
            masks = [_encode(predict_labels(self.segmenter, image, card.tile)) for image in images]
        except WeightsError as error:
            raise MlflowException(str(error)) from None  # HTTP status 500
        return pd.DataFrame({"mask": masks}, index=model_input.index)


def _decode_all(texts: Iterable[Any], card: NetworkCard) -> list[npt.NDArray[np.uint8]]:
    """The images of a request, all before any is labelled: one that is wrong costs no work."""
    images, num_pixels = [], 0
    for row, text in enumerate(texts):
        image = _decode(row, text, card)
        num_pixels += image.shape[0] * image.shape[1]
        if num_pixels > MAX_PIXELS:
            raise MlflowException.invalid_parameter_value(
                f"rows 0 to {row} have more than the {MAX_PIXELS} pixels that are accepted in one "
                "request: send fewer images at a time"
            )
        images.append(image)
    return images


def _decode(row: int, text: Any, card: NetworkCard) -> npt.NDArray[np.uint8]:
    """RGB (H, W, 3). What is no text of an image is the caller's mistake: HTTP status 400."""
    try:
        if not isinstance(text, str):
            raise ValueError(f"it is {type(text).__name__}, no text")
        image = decode_image(base64.b64decode(text, validate=True), f"row {row}", upright=True)
        height, width = image.shape[:2]
        check_memory(f"row {row}", (height, width), card.tile, len(card.classes))
        return image
    except DataError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from None
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(
            f"row {row}: column image is not the base64 of an image's file ({first_line(error)})"
        ) from None


def _encode(labels: npt.NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(labels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


set_model(ServedSegmenter())
