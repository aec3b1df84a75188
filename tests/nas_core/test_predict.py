import numpy as np
import pytest
import torch

from nas_core.architectures import ARCHITECTURES
from nas_core.data.transforms import normalise
from nas_core.models.checkpoint import NetworkCard
from nas_core.models.segmenter import Segmenter
from nas_core.predict import predict_labels
from nas_core.seeds import seeded


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    card = NetworkCard(ARCHITECTURES["arch1"], ("a", "b", "c", "d"), ((0, 0, 0),) * 4, 8, 1)
    return seeded(1, card.build).eval()


def _image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (33, 65), (64, 96)])
def test_labels_have_the_size_of_the_image(segmenter: Segmenter, size: tuple[int, int]) -> None:
    labels = predict_labels(segmenter, _image(*size))
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert labels.max() < 4


def test_labels_are_the_largest_logits(segmenter: Segmenter) -> None:
    image = _image(48, 64)
    with torch.inference_mode():
        logits = segmenter(normalise(image[None]))
    np.testing.assert_array_equal(predict_labels(segmenter, image), logits[0].argmax(0).numpy())


def test_any_layout_in_memory(segmenter: Segmenter, recwarn: pytest.WarningsRecorder) -> None:
    image = _image(40, 56)
    wanted = predict_labels(segmenter, image)
    mirrored = image[:, ::-1].copy()[:, ::-1]
    read_only = image.copy()
    read_only.flags.writeable = False
    for same in (mirrored, read_only, np.asfortranarray(image)):
        np.testing.assert_array_equal(predict_labels(segmenter, same), wanted)
    assert not recwarn.list


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_image(segmenter: Segmenter, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        predict_labels(segmenter, image)
