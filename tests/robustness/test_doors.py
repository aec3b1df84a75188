"""One picture gives one answer, whoever reads it: check, training, predict, the served model."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModelContext
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flows.cli.model_commands import export
from nas_core.base.errors import DataError
from nas_core.base.seeds import seeded
from nas_core.config import MetaValSettings
from nas_core.data.check import check_dataset
from nas_core.data.folder import list_dataset
from nas_core.data.images import decode_image, read_image
from nas_core.data.transforms import normalise
from nas_core.deploy.predict import Predictor, predict_files
from nas_core.models.checkpoint import NetworkCard, save_segmenter
from nas_core.models.labelling import predict_labels
from nas_core.space.architectures import ARCHITECTURES
from tasks.tracking import served_model
from tasks.tracking.served_model import ServedSegmenter
from tests.robustness.test_images import BAD_JPEG, BAD_PICTURES, BAD_PNG, COSTLY, orientation

pytestmark = pytest.mark.timeout(60)

Array = npt.NDArray[np.uint8]

RNG = np.random.default_rng(0)
PIXELS = np.kron(RNG.integers(0, 256, (6, 8, 3)), np.ones((5, 5, 1))).astype(np.uint8)
GREY = PIXELS[..., 0]
# What each orientation asks for, by numpy's means.
TURNS: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def raw_profile(value: int) -> PngInfo:
    """EXIF as older programs write it into a PNG."""
    exif = orientation(value).tobytes()
    info = PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(exif):8d}\n{exif.hex()}\n", zip=True)
    return info


RGB = Image.fromarray(PIXELS)
UPPER = np.stack([GREY] * 3, axis=2)
FORMATS: dict[str, dict[str, object]] = {
    "PNG": {},
    "BMP": {},
    "PPM": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
}
# Content, and the array that it means where that is known without Pillow.
GOOD: dict[str, tuple[bytes, Array | None]] = {
    **{kind: (saved(RGB, kind, **options), PIXELS) for kind, options in FORMATS.items()},
    **{
        f"{mode} {kind}": (
            saved(RGB.convert(mode), kind),
            np.array(RGB.convert(mode).convert("RGB")),
        )
        for kind, modes in {
            "PNG": ("1", "L", "LA", "P", "RGBA"),
            "TIFF": ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"),
            "BMP": ("1", "L", "P"),
            "PPM": ("1", "L"),
        }.items()
        for mode in modes
    },
    **{f"{mode} JPEG": (saved(RGB.convert(mode), "JPEG"), None) for mode in ("L", "RGB", "CMYK")},
    "16-bit PNG": (saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), UPPER),
    "16-bit TIFF": (saved(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"), UPPER),
    "16-bit PPM": (b"P5 40 30 65535\n" + (GREY.astype(">u2") * 257).tobytes(), UPPER),
    "16-bit RGB PPM": (b"P6 40 30 65535\n" + (PIXELS.astype(">u2") * 257).tobytes(), PIXELS),
    "transparent": (saved(RGB.convert("P"), "PNG", transparency=3), None),
    "interlaced by nothing": (saved(RGB, "JPEG", progressive=True), None),
    "orientation 0": (saved(RGB, "PNG", exif=orientation(0)), PIXELS),
    "orientation 9": (saved(RGB, "PNG", exif=orientation(9)), PIXELS),
    "EXIF that is none": (saved(RGB, "PNG", exif=b"Exif\0\0nonsense"), PIXELS),
}
TURNED: dict[str, tuple[bytes, Array]] = {
    f"{kind} {value}": (
        saved(RGB, kind, exif=orientation(value), **FORMATS[kind]),
        TURNS[value](PIXELS),
    )
    for kind in ("PNG", "TIFF", "WEBP")
    for value in range(2, 9)
} | {
    "16-bit 6": (
        saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG", exif=orientation(6)),
        TURNS[6](UPPER),
    ),
    "raw profile 8": (saved(RGB, "PNG", pnginfo=raw_profile(8)), TURNS[8](PIXELS)),
}
JPEG = saved(RGB, "JPEG")
TURNED |= {
    f"JPEG {value}": (
        saved(RGB, "JPEG", exif=orientation(value)),
        TURNS[value](np.array(Image.open(io.BytesIO(JPEG)))),
    )
    for value in range(2, 9)
}
BAD: dict[str, bytes] = {
    **{f"PNG: {name}": content for name, content in BAD_PNG.items()},
    **{f"JPEG: {name}": content for name, content in BAD_JPEG.items()},
    **{name: content for name, (_, content) in BAD_PICTURES.items()},
    **{name: content for name, (_, content) in COSTLY.items() if len(content) < 2**20},
    "32-bit": saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
    "float": saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
    "animated WebP": saved(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(180)]),
    "two pages": saved(RGB, "TIFF", save_all=True, append_images=[RGB]),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    card = NetworkCard(ARCHITECTURES["arch1"], ("a", "b", "c"), ((0, 0, 0),) * 3, 8, 1)
    segmenter = seeded(1, card.build).eval()
    with torch.inference_mode():
        # Each class is the most likely one somewhere.
        logits = segmenter(normalise(PIXELS[None].copy()))
        segmenter.decoder.classify.bias -= logits.mean((0, 2, 3))
    save_segmenter(path, segmenter, card)
    return path


@pytest.fixture(scope="module")
def predictor(weights: Path) -> Predictor:
    return Predictor.load(weights)


@pytest.fixture(scope="module")
def served_rows(weights: Path) -> Callable[[list[bytes]], list[Array]]:
    """The model as MLflow loads it: the contents of files to their masks."""
    model = ServedSegmenter()
    context = PythonModelContext({"weights": str(weights)}, None)
    model.load_context(context)

    def masks_of(contents: list[bytes]) -> list[Array]:
        texts = [base64.b64encode(content).decode() for content in contents]
        answer = model.predict(context, pd.DataFrame({"image": texts}))
        return [np.array(Image.open(io.BytesIO(base64.b64decode(m)))) for m in answer["mask"]]

    return masks_of


@pytest.fixture(scope="module")
def served(served_rows: Callable[[list[bytes]], list[Array]]) -> Callable[[bytes], Array]:
    return lambda content: served_rows([content])[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset whose first image is yet to be written, of the size of PIXELS."""
    root = tmp_path / "data"
    for split in ("train", "val"):
        for number in range(3):
            for part in ("images", "masks"):
                (root / split / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(
                root / split / "images" / f"{split}{number}.png"
            )
            Image.new("L", (40, 30), number % 2).save(
                root / split / "masks" / f"{split}{number}.png"
            )
    (root / "dataset.yaml").write_text("classes: [a, b, c]\n")
    return root


def problems(root: Path, content: bytes, suffix: str) -> list[str]:
    """What `nas data check`, whose readers training has too, says of the first image."""
    path = root / "train/images/train0.png"
    path.unlink(missing_ok=True)
    path.with_suffix(suffix).write_bytes(content)
    return check_dataset(list_dataset(root), MetaValSettings()).problems


def predicted(predictor: Predictor, content: bytes, folder: Path) -> Array | list[str]:
    picture = folder / "picture.jpg"
    picture.write_bytes(content)
    report = predict_files(predictor, [picture], folder / "out")
    return np.array(Image.open(folder / "out/picture.png")) if not report.problems else [
        line.removeprefix(f"{picture}: ") for line in report.problems
    ]  # fmt: skip


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises((DataError, MlflowException)) as raised:
        read()
    return str(getattr(raised.value, "message", raised.value)).removeprefix("row 0: ")


def test_a_request_of_several_images(
    served_rows: Callable[[list[bytes]], list[Array]],
    served: Callable[[bytes], Array],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contents = [saved(Image.fromarray(p), "PNG") for p in (PIXELS, PIXELS[:20, ::-1])]
    masks = served_rows(contents)
    assert [mask.tolist() for mask in masks] == [served(one).tolist() for one in contents]
    monkeypatch.setattr(served_model, "MAX_PIXELS", sum(mask.size for mask in masks) - 1)
    with pytest.raises(MlflowException, match=r"rows 0 to 1 have more than the .* send fewer"):
        served_rows(contents)
    assert served(contents[0]).tolist() == masks[0].tolist()


@pytest.mark.parametrize("name", GOOD)
def test_a_good_picture(
    name: str,
    root: Path,
    tmp_path: Path,
    predictor: Predictor,
    served: Callable[[bytes], Array],
) -> None:
    content, wanted = GOOD[name]
    array = decode_image(content, name)
    if wanted is not None:
        np.testing.assert_array_equal(array, wanted)
    np.testing.assert_array_equal(decode_image(content, name, upright=True), array)
    for suffix in (".png", ".jpg"):
        assert problems(root, content, suffix) == []
        np.testing.assert_array_equal(read_image(root / f"train/images/train0{suffix}"), array)
        (root / f"train/images/train0{suffix}").unlink()
    mask = predict_labels(predictor.segmenter, array)
    np.testing.assert_array_equal(predicted(predictor, content, tmp_path), mask)
    np.testing.assert_array_equal(served(content), mask)


@pytest.mark.parametrize("name", TURNED)
def test_a_turned_picture(
    name: str,
    root: Path,
    tmp_path: Path,
    predictor: Predictor,
    served: Callable[[bytes], Array],
) -> None:
    """It is turned where it stands alone, and refused where it has a mask."""
    content, wanted = TURNED[name]
    np.testing.assert_array_equal(decode_image(content, name, upright=True), wanted)
    (line,) = problems(root, content, ".png")
    assert line == (
        f"train/images/train0.png: turned by its EXIF orientation {name[-1]}; "
        "store it upright, as its mask is"
    )
    mask = predict_labels(predictor.segmenter, wanted)
    np.testing.assert_array_equal(predicted(predictor, content, tmp_path), mask)
    np.testing.assert_array_equal(served(content), mask)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture(
    name: str,
    root: Path,
    tmp_path: Path,
    predictor: Predictor,
    served: Callable[[bytes], Array],
) -> None:
    content = BAD[name]
    reason = refusal(lambda: decode_image(content, "row 0"))
    assert problems(root, content, ".png") == [f"train/images/train0.png: {reason}"]
    assert predicted(predictor, content, tmp_path) == [reason]
    assert refusal(lambda: served(content)) == reason


def test_the_network_tells_the_pictures_apart(predictor: Predictor) -> None:
    masks = [predict_labels(predictor.segmenter, turn(PIXELS)) for turn in TURNS.values()]
    assert len({mask.tobytes() for mask in masks}) == len(TURNS)


def test_export_reads_as_predict_does(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(TURNED["PNG 6"][0])
    export(str(weights), tmp_path / "a.onnx", [picture])
    assert "1 images" in capsys.readouterr().out
    picture.write_bytes(BAD["two pages"])
    with pytest.raises(DataError, match=r"a\.jpg: several pictures in one file"):
        export(str(weights), tmp_path / "b.onnx", [picture])
