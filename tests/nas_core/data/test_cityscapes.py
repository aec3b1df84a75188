from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.config import DatasetSettings
from nas_core.data import cityscapes
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare

SIZE = (8, 16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The official layout with its unused files, images of 16x8."""
    root = tmp_path / "cityscapes"
    rng = np.random.default_rng(0)
    for split, city, count in (("train", "aachen", 2), ("train", "ulm", 2), ("val", "lindau", 2),
                               ("test", "berlin", 1)):  # fmt: skip
        images, masks = (root / kind / split / city for kind in ("leftImg8bit", "gtFine"))
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(count):
            name = f"{city}_{number:06}_000019"
            pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{name}_leftImg8bit.png")
            labels = rng.integers(0, 34, SIZE, dtype=np.uint8)
            Image.fromarray(labels).save(masks / f"{name}_gtFine_labelIds.png")
            Image.fromarray(pixels).save(masks / f"{name}_gtFine_color.png")
            Image.fromarray(labels).save(masks / f"{name}_gtFine_instanceIds.png")
            (masks / f"{name}_gtFine_polygons.json").write_text("{}")
    return root


def prepare_it(root: Path) -> PreparedData:
    dataset = DatasetSettings(kind="cityscapes", path="cityscapes")
    return prepare(dataset, root.parent, root.parent / "prepared")


def test_the_19_classes() -> None:
    assert len(cityscapes.CLASSES) == len(set(cityscapes.CLASSES)) == 19
    assert len(set(cityscapes.PALETTE)) == 19
    assert dict(zip(cityscapes.CLASSES, cityscapes.LABEL_IDS, strict=True)) | {
        "road": 7, "building": 11, "pole": 17, "traffic light": 19, "sky": 23, "person": 24,
        "car": 26, "bus": 28, "train": 31, "bicycle": 33,
    } == dict(zip(cityscapes.CLASSES, cityscapes.LABEL_IDS, strict=True))  # fmt: skip


def test_label_ids_become_train_ids_and_the_rest_is_ignored(root: Path) -> None:
    data = prepare_it(root)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 2}
    assert data.final_split == "val", "the labels of test are not public"
    assert (data.height, data.width, data.ignore_index) == (*SIZE, 255)
    assert data.split("train").names[0] == "aachen_000000_000019"
    assert data.split("train").groups[:2] == ("aachen_000000", "aachen_000001")
    path = root / "gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png"
    for label, found in zip(
        np.array(Image.open(path)).ravel(), data.split("val").masks[1].ravel(), strict=True
    ):
        assert (found == 255) == (label not in cityscapes.LABEL_IDS)
        if found != 255:
            assert cityscapes.LABEL_IDS[found] == label


def test_problems_are_named_together(root: Path) -> None:
    masks, images = root / "gtFine/train/ulm", root / "leftImg8bit/train/ulm"
    (masks / "ulm_000000_000019_gtFine_labelIds.png").unlink()
    Image.fromarray(np.full(SIZE, 77, np.uint8)).save(
        masks / "ulm_000001_000019_gtFine_labelIds.png"
    )
    (root / "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png").write_bytes(
        (images / "ulm_000001_000019_leftImg8bit.png").read_bytes()
    )
    with pytest.raises(DataError) as error:
        prepare_it(root)
    assert str(error.value).split("\n  ")[1:] == [
        "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png: no mask "
        "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png",
        "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png: label 77 outside 0..33",
        "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png: same image as "
        "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png",
    ]


def test_missing_folders(root: Path) -> None:
    (root / "gtFine").rename(root / "gtCoarse")
    with pytest.raises(DataError, match=r"gtFine/train/: folder is missing\n  gtFine/val/"):
        prepare_it(root)
    with pytest.raises(DataError, match="the folder that holds leftImg8bit/ and gtFine/"):
        cityscapes.list_dataset(root / "nowhere")
