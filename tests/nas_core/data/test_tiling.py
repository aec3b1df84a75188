from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nas_core.base.errors import DataError, SettingsError
from nas_core.base.paths import prepared_folder
from nas_core.config import DatasetSettings, MetaValSettings, ProxySettings, TileSettings
from nas_core.data.check import check_dataset, profile_values
from nas_core.data.layouts import list_dataset
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.data.tiling import windows
from nas_core.deploy.predict import Predictor
from nas_core.loading import load_settings, validate_settings
from nas_core.search.loop import Search
from nas_core.space.genotype import Genotype
from nas_core.training.proxy_task import divide
from nas_core.training.side_by_side import train
from nas_core.workers.local import InProcessWorkers
from tests.tiny import lay_over, tiny

ROOT = Path(__file__).parents[3]
TILE = TileSettings(size=32, overlap=8)
VOID = 2


@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    size=st.integers(32, 90),
    overlap=st.integers(0, 16),
)
def test_tiles_cover_an_image_and_overlap(height: int, width: int, size: int, overlap: int) -> None:
    tile = TileSettings(size=size, overlap=overlap)
    seen = np.zeros((height, width), int)
    for rows, columns in windows((height, width), tile):
        assert rows.stop - rows.start == min(size, height)
        assert columns.stop - columns.start == min(size, width)
        seen[rows, columns] += 1
    assert seen.min() == 1 or overlap or min(height, width) < size
    assert seen.min() >= 1
    for axis, length in ((0, height), (1, width)):
        places = sorted({(w[axis].start, w[axis].stop) for w in windows(seen.shape, tile)})
        overlaps = [a[1] - b[0] for a, b in pairwise(places)]
        assert all(overlap <= found < size for found in overlaps), length


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Large images of two classes; the right part of the first of train is void."""
    root = tmp_path / "aerial"
    rng = np.random.default_rng(0)
    for split, number in (("train", 6), ("val", 2)):
        for part in ("images", "masks"):
            (root / split / part).mkdir(parents=True)
        for index in range(number):
            size = (56, 80 + 10 * index)
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            labels = rng.integers(0, 2, size, dtype=np.uint8)
            if (split, index) == ("train", 0):
                labels[:, 40:] = VOID
            Image.fromarray(pixels).save(root / split / "images" / f"{split}{index}.png")
            Image.fromarray(labels).save(root / split / "masks" / f"{split}{index}.png")
    describe(root)
    return root


def describe(root: Path) -> None:
    values = {"classes": ["land", "water"], "ignore_labels": [VOID]}
    (root / "dataset.yaml").write_text(yaml.safe_dump(values))


def settings_of(root: Path, tile: TileSettings | None = TILE) -> DatasetSettings:
    return DatasetSettings(kind="folder", path=str(root), tile=tile)


def prepare_it(root: Path, tile: TileSettings | None = TILE) -> PreparedData:
    return prepare(settings_of(root, tile), root, root.parent / "prepared")


def test_images_are_cut_into_tiles_of_their_pixels(root: Path) -> None:
    data = prepare_it(root)
    assert (data.height, data.width, data.tile, data.extent) == (32, 32, TILE, "32x32")
    train = data.split("train")
    # Of the first, three columns of two rows; the last one is void.
    assert train.names[:4] == ("train0_0_0", "train0_0_24", "train0_24_0", "train0_24_24")
    assert data.num_void == 2
    assert not any(name.startswith("train0_0_48") for name in train.names)
    assert {name.split("_")[0] for name in train.names} == set(train.groups)
    for image, mask, name in zip(train.images, train.masks, train.names, strict=True):
        file, top, left = name.split("_")
        part = (slice(int(top), int(top) + 32), slice(int(left), int(left) + 32))
        pixels = np.array(Image.open(root / "train/images" / f"{file}.png"))
        labels = np.array(Image.open(root / "train/masks" / f"{file}.png"))
        np.testing.assert_array_equal(image, pixels[part])
        np.testing.assert_array_equal(np.where(mask == 255, VOID, mask), labels[part])
    counts = sum(np.bincount(mask.ravel(), minlength=256) for mask in train.masks)[:2]
    np.testing.assert_allclose(data.label_shares, counts / counts.sum())


def test_tiles_of_one_image_are_not_trained_and_scored_on(root: Path) -> None:
    data = prepare_it(root)
    chosen = divide(data, ProxySettings(height=32, width=32), MetaValSettings(fraction=0.2))
    groups = data.split("train").groups
    assert chosen.way == "groups"
    assert not {groups[row] for row in chosen.train} & {groups[row] for row in chosen.val}


def test_other_tiles_are_prepared_anew(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = prepare_it(root, None)
    assert (whole.tile, whole.num_void) == (None, 0)
    with caplog.at_level("INFO"):
        other = prepare_it(root, TileSettings(size=40, overlap=0))
        prepare_it(root, TileSettings(size=40, overlap=0))
    assert other.content_hash != whole.content_hash
    assert caplog.messages == ["the dataset is prepared anew: dataset.tile has changed"]


def test_a_tile_that_fits_into_no_image_is_refused_before_anything_is_decoded(root: Path) -> None:
    (root / "train/images/train1.png").write_bytes(b"no picture")
    large = TileSettings(size=64, overlap=8)
    listing = list_dataset(settings_of(root, large), root)
    for refused in (
        lambda: prepare_it(root, large),
        lambda: check_dataset(listing, MetaValSettings(), tile=large),
    ):
        with pytest.raises(DataError, match=r"7 files, as train/images/train0\.png, ") as caught:
            refused()
        assert "is smaller than a tile of 64x64: give a smaller dataset.tile.size" in str(
            caught.value
        )
        assert "no picture" not in str(caught.value)
    assert not (root.parent / "prepared").exists()


def test_a_split_without_a_tile_is_refused(root: Path) -> None:
    for path in (root / "val/masks").iterdir():
        labels = np.full(Image.open(path).size[::-1], VOID, np.uint8)
        labels[0, 0] = 1
        Image.fromarray(labels).save(path)
    listing = list_dataset(settings_of(root), root)
    expected = "val: no tile is left, all are nearly void"
    assert expected in check_dataset(listing, MetaValSettings(), tile=TILE).problems
    with pytest.raises(DataError, match=expected):
        prepare_it(root)


def test_the_check_counts_what_is_prepared(root: Path) -> None:
    listing = list_dataset(settings_of(root), root)
    report = check_dataset(listing, MetaValSettings(fraction=0.2), tile=TILE)
    data = prepare_it(root)
    assert report.problems == []
    assert report.prepared == {name: len(split) for name, split in data.splits.items()}
    assert report.num_void == data.num_void == 2
    assert report.frame == (32, 32)
    values = profile_values(report, "aerial", str(root), "folder")
    assert values["dataset"]["tile"] == {"size": 32, "overlap": 8}
    proxy = values["search"]["proxy"]
    chosen = divide(
        data,
        ProxySettings(height=proxy["height"], width=proxy["width"]),
        MetaValSettings(fraction=0.2),
    )
    assert report.meta_val is not None
    np.testing.assert_array_equal(report.meta_val.val, chosen.val)


@pytest.mark.parametrize("value", ["{size: 64, overlap: 64}", "{size: 64, overlap: 90}"])
def test_tiles_that_overlap_by_more_than_half_are_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"dataset\.tile.*overlap \(\d+\) must not exceed half"):
        load_settings(overrides=[f"dataset.tile={value}"], root=ROOT)


def test_a_tile_is_given_as_a_setting_or_by_its_size() -> None:
    settings = load_settings(overrides=["dataset.tile.size=320"], root=ROOT)
    assert settings.dataset.tile == TileSettings(size=320, overlap=32)


def test_a_search_on_tiles_ends_with_a_network_that_labels_whole_images(root: Path) -> None:
    dataset = {"kind": "folder", "path": str(root), "tile": TILE.model_dump()}
    values = tiny(train={"crop_height": 32, "crop_width": 32}) | {"dataset": dataset}
    lay_over(values, {"search": {"proxy": {"height": 32, "width": 32}}})
    settings, project = validate_settings(values, "test"), root.parent
    prepare(settings.dataset, project, prepared_folder(project, settings))
    with Search.open(settings, project, InProcessWorkers()) as search:
        search.run()
        best = search.ranked[0].record
    assert best.reward is not None
    with InProcessWorkers() as workers:
        genotype = Genotype.from_dict(best.genotype)
        training = train(workers, settings, project, best.id, genotype)
        predictor = Predictor.load(training)
    assert predictor.card.tile == TILE
    assert predictor(root / "val" / "images" / "val1.png").shape == (56, 90)
