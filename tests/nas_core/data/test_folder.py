from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.config import (
    ComputeSettings,
    DatasetSettings,
    MetaValSettings,
    NetworkSettings,
    ProxySettings,
    TrainSettings,
)
from nas_core.data import folder, images
from nas_core.data.arrangement import Pair
from nas_core.data.description import SplitEntry, read_description
from nas_core.data.dividing import divide, groups_of
from nas_core.data.masks import MaskReader
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.models.compute import Compute
from nas_core.space.genotype import Genotype
from nas_core.training.full import evaluate, train_fully
from nas_core.training.full_task import FullTask
from nas_core.training.proxy import train_candidate
from nas_core.training.proxy_task import build_proxy_task

CLASSES = [
    {"name": "soil", "colour": [120, 80, 40]},
    {"name": "leaf", "label": 7, "colour": [0, 160, 0]},
    {"name": "stem", "label": 9, "colour": [0, 255, 90]},
]
DESCRIPTION: dict[str, Any] = {
    "classes": CLASSES,
    "ignore_labels": [255],
    "ignore_colours": [[0, 0, 0]],
}
COLOURS = np.array([*(entry["colour"] for entry in CLASSES), [0, 0, 0]], np.uint8)
LABELS = np.array([0, 7, 9, 255], np.uint8)
RNG = np.random.default_rng(0)
ARCH = Genotype.from_dict(
    {
        "templates": [[1, 1, 0], [1, 3, 0], [3, 4, 0]],
        "structure": [
            [1, 1, 0, 0, 0], [0, 1, 1, 1, 1], [3, 1, 2, 3, 0], [3, 0, 2, 2, 0],
            [0, 1, 2, 0, 0], [2, 1, 1, 3, 0], [4, 0, 2, 2, 0],
        ],
    }
)  # fmt: skip

many = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def save_mask(path: Path, classes: np.ndarray, kind: str = "grey") -> None:
    """Class numbers (3 is ignored) as a mask of this kind."""
    if kind == "RGB":
        Image.fromarray(COLOURS[classes]).save(path)
        return
    mask = Image.fromarray(LABELS[classes])
    if kind == "palette":
        mask = mask.convert("L")
        palette = np.zeros((256, 3), np.uint8)
        palette[LABELS] = COLOURS
        indexed = Image.frombytes("P", mask.size, mask.tobytes())
        indexed.putpalette(palette.tobytes())
        mask = indexed
    mask.save(path)


def add(root: Path, where: str, name: str, size: tuple[int, int] = (6, 8)) -> np.ndarray:
    """An image and its mask; returns the class numbers."""
    base = root / where
    for part in ("images", "masks"):
        (base / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(base / "images" / name)
    classes = RNG.integers(0, 4, size)
    save_mask(base / "masks" / f"{Path(name).stem}.png", classes)
    return classes


def describe(root: Path, **changes: Any) -> None:
    root.mkdir(exist_ok=True)
    (root / "dataset.yaml").write_text(yaml.safe_dump(DESCRIPTION | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset in folders of splits with nothing wrong in it."""
    root = tmp_path / "mine"
    describe(root)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for number in range(count):
            add(root, split, f"{split}_{number}.png")
    return root


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A dataset of one folder: 4 videos of 3 frames."""
    root = tmp_path / "flat"
    describe(root)
    for number in range(12):
        add(root, "", f"video{number // 3}_{number}.png")
    return root


def prepare_it(root: Path) -> PreparedData:
    dataset = DatasetSettings(kind="folder", path=root.name)
    return prepare(dataset, root.parent, root.parent / "prepared" / "mine")


def problems_of(root: Path) -> list[str]:
    with pytest.raises(DataError) as error:
        prepare_it(root)
    assert not list((root.parent / "prepared").glob("*"))
    return str(error.value).split("\n  ")[1:]


def test_masks_of_every_kind_give_the_same_classes(root: Path) -> None:
    classes = RNG.integers(0, 4, (3, 6, 8))
    for number, kind in enumerate(("grey", "palette", "RGB")):
        save_mask(root / f"train/masks/train_{number}.png", classes[number], kind)
    data = prepare_it(root)
    assert data.classes == ("soil", "leaf", "stem")
    assert data.colours == ((120, 80, 40), (0, 160, 0), (0, 255, 90))
    expected = np.where(classes == 3, 255, classes)
    np.testing.assert_array_equal(data.split("train").masks[:3], expected)
    assert (data.num_classes, data.ignore_index, data.final_split) == (3, 255, "test")


@many
@given(labels=st.lists(st.integers(0, 255), min_size=2, max_size=255, unique=True), data=st.data())
def test_any_labels_are_numbered_in_the_order_of_the_classes(
    tmp_path: Path, labels: list[int], data: st.DataObject
) -> None:
    ignored = data.draw(st.sets(st.sampled_from(sorted({*range(256)} - {*labels}))))
    entries = [{"name": f"c{label}", "label": label} for label in labels]
    (tmp_path / "dataset.yaml").write_text(
        yaml.safe_dump({"classes": entries, "ignore_labels": sorted(ignored)})
    )
    reader = MaskReader(tmp_path, read_description(tmp_path))
    path = tmp_path / "mask.png"
    known = np.array([*labels, *ignored], np.uint8)[None]
    Image.fromarray(known).save(path)
    assert reader(path)[0].tolist() == [*range(len(labels)), *([255] * len(ignored))]
    strays = sorted({*range(256)} - {*labels} - ignored)
    if strays:
        Image.fromarray(np.array([[labels[0], strays[0]]], np.uint8)).save(path)
        with pytest.raises(DataError, match=rf"mask\.png: label {strays[0]} not in dataset\.yaml"):
            reader(path)


def test_two_classes_as_0_and_255_and_colours_of_their_own(root: Path) -> None:
    describe(root, classes=["other", {"name": "road", "label": 255}], ignore_labels=[7, 9])
    listing = folder.list_dataset(root)
    assert listing.classes == ("other", "road")
    assert len({*listing.palette}) == 2
    assert len(prepare_it(root).label_shares) == 2


def test_images_are_kept_in_their_own_sizes(root: Path) -> None:
    big, wide = add(root, "train", "big.png", (12, 10)), add(root, "val", "wide.png", (5, 20))
    data = prepare_it(root)
    assert (data.height, data.width) == (12, 10)  # of the largest
    assert data.extent == "up to 10x12"
    train, val = data.split("train"), data.split("val")
    for split, name, classes in ((train, "big", big), (val, "wide", wide)):
        row = split.names.index(name)
        np.testing.assert_array_equal(split.masks[row], np.where(classes == 3, 255, classes))
        assert split.images[row].shape == (*classes.shape, 3)
        assert isinstance(split.images[row], np.memmap)
    labelled = np.concatenate([mask[mask != 255] for mask in train.masks])
    np.testing.assert_allclose(data.label_shares, np.bincount(labelled) / labelled.size)
    pixels = sum(mask.size for mask in train.masks)
    header = 128
    assert (data.folder / "train_images.npy").stat().st_size == 3 * pixels + header


def test_a_tall_and_a_wide_image_take_no_more_than_their_pixels(root: Path) -> None:
    add(root, "train", "tall.png", (900, 3))
    add(root, "train", "wide.png", (3, 900))
    data = prepare_it(root)
    assert (data.folder / "train_masks.npy").stat().st_size < 10_000


def test_jpeg_images(root: Path) -> None:
    add(root, "train", "photo.JPG")
    assert "photo" in prepare_it(root).split("train").names


def test_jpeg_that_cannot_be_used(root: Path) -> None:
    for name in ("cut", "turned", "text"):
        add(root, "train", f"{name}.jpg", (60, 80))
    cut = root / "train/images/cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-300])
    turned = Image.open(root / "train/images/turned.jpg")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "train/images/turned.jpg", exif=exif)
    (root / "train/images/text.jpg").write_text("no image")
    lines = problems_of(root)
    assert len(lines) == 3
    assert lines[0].startswith("train/images/cut.jpg: damaged JPEG (")
    assert lines[1].startswith("train/images/text.jpg: no image that can be read (BMP, ")
    assert lines[2].startswith("train/images/turned.jpg: turned by its EXIF orientation 6")


def test_a_jpeg_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jpg"
    Image.new("RGB", (8, 8)).save(path)
    content = path.read_bytes()
    place = content.index(b"\xff\xc0") + 5
    for side in (9000, 60_000):
        claimed = side.to_bytes(2, "big") * 2
        path.write_bytes(content[:place] + claimed + content[place + 4 :])
        with pytest.raises(DataError, match=r"bomb\.jpg: "):
            images.read_image(path)


def test_all_problems_come_together(root: Path) -> None:
    (root / "train/masks/train_0.png").unlink()
    (root / "val/images/val_1.png").unlink()
    Image.fromarray(np.full((6, 8), 3, np.uint8)).save(root / "train/masks/train_1.png")
    Image.fromarray(np.full((6, 8, 3), 60, np.uint8)).save(root / "train/masks/train_2.png")
    Image.fromarray(LABELS[np.zeros((4, 4), int)]).save(root / "test/masks/test_0.png")
    (root / "test/images/test_1.png").write_bytes((root / "train/images/train_3.png").read_bytes())
    assert sorted(problems_of(root)) == [
        "test/images/test_1.png: same image as train/images/train_3.png",
        "test/masks/test_0.png: 4x4; its image is 8x6",
        "train/images/train_0.png: no mask train/masks/train_0.png",
        "train/masks/train_1.png: label 3 not in dataset.yaml",
        "train/masks/train_2.png: colour [60, 60, 60] not in dataset.yaml",
        "val/masks/val_1.png: no image val_1 in val/images/",
    ]


def test_masks_of_one_class_teach_nothing(root: Path) -> None:
    """As where 255 is the other class, and ignored."""
    for path in (root / "train/masks").iterdir():
        Image.fromarray(RNG.choice([0, 255], (6, 8)).astype(np.uint8)).save(path)
    (line,) = problems_of(root)
    assert line.startswith("train: every pixel with a label is soil: nothing can be learned")


def test_images_that_are_their_masks_are_refused(root: Path) -> None:
    for path in (root / "train/masks").iterdir():
        (root / "train/images" / path.name).write_bytes(path.read_bytes())
    (line,) = problems_of(root)
    assert line.startswith("4 files, as train/images/train_0.png") and line.endswith(
        ": the same file as its mask train/masks/*.png: put the image there"
    )


def test_raw_files_of_cameras_are_named(root: Path) -> None:
    image = root / "val/images/val_0.png"
    image.rename(image.with_suffix(".NEF"))
    (line,) = problems_of(root)
    assert line.startswith("val/images/val_0.NEF: a raw image; expected BMP")


def test_a_palette_of_the_declared_colours_is_looked_up_by_colour(root: Path) -> None:
    """Whatever its order; colours that no pixel has do not count."""
    classes = RNG.integers(0, 4, (6, 8))
    indices = np.array([2, 0, 3, 1], np.uint8)
    palette = np.full((256, 3), 5, np.uint8)
    palette[indices] = COLOURS
    mask = Image.frombytes("P", (8, 6), indices[classes].tobytes())
    mask.putpalette(palette.tobytes())
    mask.save(root / "train/masks/train_0.png")
    found = prepare_it(root).split("train").masks[0]
    np.testing.assert_array_equal(found, np.where(classes == 3, 255, classes))


def test_a_palette_of_other_colours_is_refused(root: Path) -> None:
    mask = Image.frombytes("P", (8, 6), bytes([7] * 48))
    mask.putpalette(bytes([5, 5, 5] * 256))
    mask.save(root / "train/masks/train_0.png")
    (line,) = problems_of(root)
    assert line.startswith(
        "train/masks/train_0.png: palette colour [5, 5, 5] of label 7, which has [0, 160, 0]"
    )


def test_a_colour_that_nobody_declared_is_named_in_a_palette_of_declared_ones(root: Path) -> None:
    """As in an RGB mask: the order of such a palette is of no account."""
    palette = np.array([*COLOURS[::-1], (9, 200, 9)], np.uint8)
    mask = Image.frombytes("P", (8, 6), bytes([0, 1, 2, 3, 4, 0] * 8))
    mask.putpalette(palette.tobytes())
    mask.save(root / "train/masks/train_0.png")
    (line,) = problems_of(root)
    assert line.startswith("train/masks/train_0.png: colour [9, 200, 9] not in dataset.yaml")


def test_labels_three_times_over_are_labels_where_no_class_has_a_colour(root: Path) -> None:
    describe(root, classes=["a", "b"], ignore_labels=[7, 9, 255], ignore_colours=[])
    labels = RNG.integers(0, 2, (6, 8), dtype=np.uint8)
    for path in root.glob("*/masks/*"):
        Image.fromarray(np.stack([labels] * 3, axis=-1)).save(path)
    np.testing.assert_array_equal(prepare_it(root).split("train").masks[0], labels)


def test_rgb_masks_need_colours(root: Path) -> None:
    classes = ["a", {"name": "b", "label": 7}]
    describe(root, classes=classes, ignore_labels=[9, 255], ignore_colours=[])
    save_mask(root / "val/masks/val_0.png", np.zeros((6, 8), int), "RGB")
    (line,) = problems_of(root)
    assert line.startswith("val/masks/val_0.png: an RGB mask, but the classes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"dataset\.yaml does not exist"),
        ("a: [", r"dataset\.yaml, line 1: not valid YAML"),
        ("- a", r"content: "),
        ("classes: [no, yes]", r"classes\.0\.name: yes, no, on and off .* quotes, as 'no'"),
        ("classes: [{name: off}, b]", r"classes\.0\.name: yes, no, on and off are"),
        ("classes: [0, 1]", r"classes\.0\.name: expected text, found 0: put the name in quotes"),
        ("classes: [a, ~]", r"classes\.1\.name: is empty: give the class a name"),
        (
            "classes: {0: bg, 1: fg}",
            r"classes: expected a list, as \[road, sky\].* found \{0: 'bg'",
        ),
        (
            "images: '*.png'\nmasks: '{stem}.png'\ngroup: {1}",
            r'group: braces are a mapping in YAML: put it in quotes, as "\{1\}"',
        ),
        ("classes:", r"classes: expected a list, .* found None"),
        ("classes: [0: bg, 1: fg]", r"classes\.0: expected road or \{name: .* found \{0: 'bg'\}"),
        ("classes: [a]", r"classes: expected 2 or more entries, found 1"),
        ("classes: [a, b]\nclases: 1", r"clases: unknown key; the keys are .*, classes, ignore"),
        ("classes: [{name: a, color: 1}, b]", r"color: unknown key; the keys are name, label, col"),
        ("classes: [a, b]\nsplit: {valid: 1}", r"valid: unknown key; the keys are val, test, gr"),
        (
            "classes: [a, b]\nignore_colours: ['#ff0000']",
            r"colours\.0: expected red, green and blue, as \[255, 128, 0\], found '#ff0000'",
        ),
        ("classes: [a, a]", r"class a is given 2 times"),
        ("classes: [a, {name: b, label: 0}]", r"label 0 is given 2 times"),
        ("classes: [a, b]\nignore_labels: [1]", r"label 1 is given 2 times"),
        ("classes: [a, b]\nignore_labels: [256]", r"ignore_labels\.0: expected 255 or less"),
        (
            "classes: [{name: a, colour: [1, 2, 3]}, {name: b, colour: [1, 2, 3]}]",
            r"colour \(1, 2, 3\) is given 2 times",
        ),
        ("classes: [{name: a, colour: [1, 2]}, b]", r"classes\.0\.colour: expected red, green and"),
        (
            "classes: [{name: a, colour: [.1, .2, .3]}, {name: b, colour: [.4, 1, 1]}]",
            r"4 problems:\n  dataset\.yaml: classes\.0\.colour\.0: expected a whole number",
        ),
        ("classes: [a/b, c]", r"classes\.0\.name: expected 1 to 60 .* found 'a/b'"),
        ("classes: [a, b]\nsplit: {val: 2}", r"split\.val: expected less than 1"),
        ("classes: [a, b]\nsplit: {val: 0.1, group: '('}", r"split\.group: not a regular"),
    ],
)
def test_a_description_that_is_not_valid(root: Path, content: str | None, message: str) -> None:
    (root / "dataset.yaml").unlink()
    if content is not None:
        (root / "dataset.yaml").write_text(content)
    with pytest.raises(DataError, match=message):
        prepare_it(root)


def test_the_description_is_part_of_the_hash(root: Path) -> None:
    first = prepare_it(root).data_hash
    describe(root, classes=[CLASSES[0], CLASSES[1], {**CLASSES[2], "name": "stalk"}])
    second = prepare_it(root)
    assert second.data_hash != first
    assert second.classes[2] == "stalk"


def test_without_test_val_scores_at_the_end(root: Path) -> None:
    (root / "test").rename(root.parent / "away")
    data = prepare_it(root)
    assert sorted(data.splits) == ["train", "val"]
    assert data.final_split == "val"


def test_list_files(flat: Path) -> None:
    names = sorted(path.name for path in (flat / "images").iterdir())
    (flat / "train.txt").write_text("\n".join(names[:6]) + "\n\n")
    (flat / "val.txt").write_text("\n".join(Path(name).stem for name in names[6:8]))
    data = prepare_it(flat)
    assert [f"{name}.png" for name in data.split("train").names] == names[:6]
    assert len(data.split("val")) == 2


@pytest.mark.parametrize("entry", ["../flat/images/video0_0.png", "/etc/passwd", "..\\a", "nobody"])
def test_list_files_cannot_name_what_is_not_in_images(flat: Path, entry: str) -> None:
    (flat / "train.txt").write_text("video0_0\nvideo0_1\nvideo0_2")
    (flat / "val.txt").write_text(f"video0_0\n{entry}")
    lines = problems_of(flat)
    assert lines[0] == "val.txt, line 1: video0_0: is in train.txt too"
    assert lines[1].startswith(f"val.txt, line 2: {entry}: ")


def test_missing_list_and_ways_to_divide(flat: Path) -> None:
    assert "no splits: expected" in problems_of(flat)[0]
    (flat / "train.txt").write_text("video0_0")
    assert [sample.group for sample in folder.list_dataset(flat).samples] == ["video0_0"]
    assert any(problem.startswith("val.txt: is missing") for problem in problems_of(flat))
    describe(flat, split={"val": 0.2})
    assert "leaves nothing to train on" in problems_of(flat)[0]
    (flat / "val.txt").write_text("video0_1")
    assert problems_of(flat)[0].startswith("val is given twice: it lies there, and is a share")


def test_a_split_by_group_keeps_videos_together_and_is_repeated(flat: Path) -> None:
    describe(flat, split={"val": 0.2, "test": 0.2, "group": r"^(video\d)_"})
    first, again = folder.list_dataset(flat), folder.list_dataset(flat)
    assert first.samples == again.samples
    videos = {s: {x.name[:6] for x in first.of_split(s)} for s in ("train", "val", "test")}
    assert [len(videos[split]) for split in ("train", "val", "test")] == [2, 1, 1]
    assert len(set.union(*videos.values())) == 4
    assert all(sample.group == sample.name[:6] for sample in first.samples)
    others = []
    for seed in range(1, 6):
        describe(flat, split={"val": 0.2, "test": 0.2, "group": r"^(video\d)_", "seed": seed})
        others.append(folder.list_dataset(flat).samples)
    assert any(samples != first.samples for samples in others)
    describe(flat, split={"val": 0.5, "test": 0.4, "group": "^v"})
    assert "leaves nothing to train on: 1 groups of 12 images" in problems_of(flat)[0]
    describe(flat, split={"val": 0.5, "group": "^nobody"})
    (line,) = problems_of(flat)
    assert line.startswith("12 files, as images/video0_0.png, images/video0_1.png, ")
    assert line.endswith(": split.group does not match it")


@given(
    groups=st.lists(st.integers(0, 12), min_size=3, max_size=60),
    val=st.floats(0.05, 0.4),
    test=st.floats(0.0, 0.4),
    seed=st.integers(0, 99),
)
def test_any_split_by_group_is_whole_and_leaks_nothing(
    groups: list[int], val: float, test: float, seed: int
) -> None:
    names = [f"g{g:02}_{n}" for n, g in enumerate(groups)]
    pairs = [Pair(name, f"{name}.png", Path(), Path()) for name in names]
    of_pair, problems = groups_of(pairs, SplitEntry(group=r"^g\d\d"), "images/")
    assert problems == []
    shares = {"test": test, "val": val} if test else {"val": val}
    assigned, problems = divide(of_pair, shares, seed)
    assert set(assigned) == set(pairs)
    of_group: dict[str, set[str]] = {}
    for pair, split in assigned.items():
        of_group.setdefault(pair.name[:3], set()).add(split)
    assert all(len(splits) == 1 for splits in of_group.values())
    assert bool(problems) == (not {"train", *shares} <= {*assigned.values()})


@given(
    sizes=st.lists(st.integers(1, 15), min_size=3, max_size=9),
    val=st.floats(0.05, 0.6),
    seed=st.integers(0, 99),
)
def test_no_other_choice_of_groups_is_nearer_to_a_share(
    sizes: list[int], val: float, seed: int
) -> None:
    of_pair = {
        Pair(f"{group}_{n}", "", Path(), Path()): str(group)
        for group, size in enumerate(sizes)
        for n in range(size)
    }
    assigned, problems = divide(of_pair, {"val": val}, seed)
    assert problems == []
    found, wanted = [*assigned.values()].count("val"), max(1, round(val * len(of_pair)))
    sums = {
        sum(choice) for n in range(1, len(sizes)) for choice in itertools.combinations(sizes, n)
    }
    assert abs(found - wanted) == min(abs(total - wanted) for total in sums)


def test_groups_of_nine_do_not_overshoot() -> None:
    of_pair = {
        Pair(f"{tile}_{n}", "", Path(), Path()): f"Tile {tile}"
        for tile in range(8)
        for n in range(9)
    }
    assigned, _ = divide(of_pair, {"test": 0.15, "val": 0.15}, 0)
    counts = Counter(assigned.values())
    assert counts == {"train": 54, "val": 9, "test": 9}


def test_images_on_their_own_are_taken_in_the_order_of_their_hashes() -> None:
    of_pair = {Pair(f"{n}", "", Path(), Path()): f"{n}" for n in range(20_000)}
    assigned, _ = divide(of_pair, {"val": 0.1}, 7)
    order = sorted(of_pair, key=lambda pair: hashlib.sha256(f"7\0{pair.name}".encode()).hexdigest())
    assert {pair for pair, split in assigned.items() if split == "val"} == {*order[:2000]}


def test_networks_train_on_mixed_sizes_and_any_number_of_classes(
    tmp_path: Path, root: Path
) -> None:
    for number, size in enumerate([(40, 64), (64, 40), (48, 48), (33, 35)]):
        add(root, "train", f"more_{number}.png", size)
        add(root, "val", f"moreval_{number}.png", size)
    data = prepare_it(root)
    compute = Compute.from_settings(ComputeSettings(device="cpu", precision="fp32", threads=1))
    proxy = ProxySettings(height=32, width=32, batch_size=4, epochs_a=1, epochs_b=1, agg_size=8)
    task = build_proxy_task(
        data, None, proxy, compute, meta_val=MetaValSettings(fraction=0.25), seed=0
    )
    result = train_candidate(task, ARCH, seed=0)
    assert result.confusion.matrix.shape == (3, 3)
    network = NetworkSettings(agg_size=8, sep_repeats=1)
    settings = TrainSettings(epochs=1, batch_size=4, crop_height=32, crop_width=40)
    full_task = FullTask(data, None, network, settings, compute)
    full = train_fully(full_task, ARCH, seed=0, checkpoint=tmp_path / "checkpoint.pt")
    scored = evaluate(full.segmenter, data.split("test"), 3, data.ignore_index)
    labelled = (data.split("test").masks != 255).sum()
    assert int(scored.matrix.sum()) == labelled
