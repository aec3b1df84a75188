"""What a draft of dataset.yaml says of masks that nobody has described yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from nas_core.data.description import Description, Places, read_description, undescribed
from nas_core.data.drafting import Draft, draft, look
from nas_core.data.folder import arrange, list_dataset
from nas_core.data.masks import near

COLOURS = np.array([[0, 0, 0], [200, 0, 0], [0, 0, 200]], np.uint8)
CLASSES = np.repeat([0, 1, 2], [30, 20, 10]).reshape(6, 10).astype(np.uint8)


def save(root: Path, *masks: np.ndarray | Image.Image) -> None:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(masks):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"images/{number}.png")
        picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        picture.save(root / f"masks/{number}.png")


def drafted(root: Path) -> Draft:
    found = arrange(root, undescribed(root) or Places())
    done: list[int] = []
    values, problems = look(root, [pair.mask for pair in found.pairs], lambda: done.append(1))
    assert (len(done), problems) == (len(found.pairs), [])
    said = (root / "dataset.yaml").read_text() if (root / "dataset.yaml").exists() else ""
    return draft(values, found, undescribed(root) or Places(), said, root / "dataset.yaml")


def palette(indices: np.ndarray, colours: np.ndarray) -> Image.Image:
    picture = Image.frombytes("P", indices.shape[::-1], indices.astype(np.uint8).tobytes())
    picture.putpalette(colours.tobytes())
    return picture


def test_labels(tmp_path: Path) -> None:
    void = CLASSES.copy()
    void[0] = 255
    save(tmp_path, CLASSES, void, CLASSES)
    made = drafted(tmp_path)
    lines = made.text.splitlines()
    assert lines[made.class_lines[0] - 1] == (
        "- {name: background, label: 0}   # 44.44% of the pixels, in 3 of 3 masks"
    )
    assert lines[made.class_lines[1] - 1].startswith("- {name: class2, label: 2}   # 16.67% of")
    assert "ignore_labels: [255]   # 5.56% of the pixels, in 1 of 3 masks" in lines
    (tmp_path / "dataset.yaml").write_text(made.text)
    listing = list_dataset(tmp_path)
    assert listing.classes == ("background", "class1", "class2")
    assert (listing.problems, listing.splits) == ((), ("train", "val", "test"))


def test_two_labels_0_and_255_are_two_classes(tmp_path: Path) -> None:
    save(tmp_path, *[(CLASSES > 0).astype(np.uint8) * 255] * 3)
    described = Description.model_validate(yaml.safe_load(drafted(tmp_path).text))
    assert (described.labels, described.ignore_labels) == ([0, 255], [])


def test_colours_of_rgb_and_palettes_in_any_order(tmp_path: Path) -> None:
    other = palette(np.array([2, 0, 1])[CLASSES], COLOURS[[1, 2, 0]])
    save(tmp_path, COLOURS[CLASSES], other, COLOURS[CLASSES])
    described = Description.model_validate(yaml.safe_load(drafted(tmp_path).text))
    assert [(one.name, one.label, one.colour) for one in described.classes] == [
        ("background", None, (0, 0, 0)),
        ("class1", None, (200, 0, 0)),
        ("class2", None, (0, 0, 200)),
    ]


def test_palettes_that_agree_give_labels_and_colours(tmp_path: Path) -> None:
    save(tmp_path, *[palette(CLASSES, COLOURS)] * 3)
    described = Description.model_validate(yaml.safe_load(drafted(tmp_path).text))
    assert [(one.label, one.colour) for one in described.classes] == [
        (0, (0, 0, 0)), (1, (200, 0, 0)), (2, (0, 0, 200)),
    ]  # fmt: skip


def test_rare_colours_near_others_and_void_are_told_apart(tmp_path: Path) -> None:
    pixels = np.empty((100, 100, 3), np.uint8)
    pixels[:60], pixels[60:90], pixels[90:] = [50, 50, 50], [200, 0, 0], [0, 0, 200]
    pixels[70, 0], pixels[1, 0], pixels[2, :2] = [210, 5, 5], [0, 0, 0], [224, 224, 192]
    save(tmp_path, *[pixels] * 3)
    text = drafted(tmp_path).text
    described = yaml.safe_load(text)
    assert described["ignore_colours"] == [[224, 224, 192], [0, 0, 0]]
    assert [one["colour"] for one in described["classes"]] == [
        [50, 50, 50], [200, 0, 0], [0, 0, 200],
    ]  # fmt: skip
    assert "# Left out: 1 rare colours" in text


def test_of_very_many_colours_the_common_ones_are_drafted(tmp_path: Path) -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[9:31, 5:40], labels[25:50, 35:70] = 1, 2
    for number in range(3):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(COLOURS[np.roll(labels, number, axis=1)]).save(path, quality=95)
    save(tmp_path, *[Image.open(tmp_path / f"{number}.jpg").copy() for number in range(3)])
    made = drafted(tmp_path)
    entries = yaml.safe_load(made.text)["classes"]
    found = [tuple(one["colour"]) for one in entries]
    assert len(found) == made.class_lines[1] - made.class_lines[0] + 1 < 10
    assert all(near(tuple(colour), found) for colour in COLOURS.tolist())
    assert "colours, as JPEG and smoothing leave them at edges" in made.text


def test_patterns_without_classes_are_kept_in_the_draft(tmp_path: Path) -> None:
    save(tmp_path, CLASSES, CLASSES)
    said = "images: 'images/*.png'\nmasks: 'masks/{1}.png'\nsplit: {val: 0.5}\n"
    (tmp_path / "dataset.yaml").write_text(said)
    text = drafted(tmp_path).text
    assert text.startswith(said)
    assert text.count("split:") == 1
    (tmp_path / "dataset.yaml").write_text(text)
    assert read_description(tmp_path).images == "images/*.png"
    assert undescribed(tmp_path) is None
    (tmp_path / "dataset.yaml").write_text("imagez: 1\n")
    assert undescribed(tmp_path) is None  # what is wrong with it is said when it is read


@pytest.mark.parametrize(
    "said",
    [
        "{mask_suffix: _m, split: {val: 0.2}}\n",
        '{\n "mask_suffix": "_m", "split": {"val": 0.2}\n}\n',
        "mask_suffix: _m\nsplit: {val: 0.2}\n...\n",
        "  mask_suffix: _m\n  split: {val: 0.2}\n",
        'mask_suffix: _m\n"split": {val: 0.2}',
        "# split: comes below\nmask_suffix: _m\n",
        "null\n",
    ],
)
def test_a_draft_can_be_read_whatever_the_form_of_what_was_said(tmp_path: Path, said: str) -> None:
    root = tmp_path / "a\nb\udcff"
    suffix = "_m" if "_m" in said else "_mask"
    for number in range(4):
        picture = Image.fromarray(np.full((6, 10), number % 2, np.uint8))
        root.mkdir(exist_ok=True)
        picture.save(root / f"{number}.png")
        picture.save(root / f"{number}{suffix}.png")
    (root / "dataset.yaml").write_text(said)
    text = drafted(root).text
    (root / "dataset.yaml").write_bytes(text.encode())
    listing = list_dataset(root)
    assert listing.problems == () and len(listing.samples) == 4


def test_a_palette_with_one_colour_twice_is_drafted_by_labels(tmp_path: Path) -> None:
    indices = np.indices((6, 10))[1] % 3
    pictured = palette(indices, np.array([[0, 0, 0], [9, 9, 9], [9, 9, 9]], np.uint8))
    save(tmp_path, pictured, pictured)
    lines = drafted(tmp_path).text.splitlines()
    assert sum("colour:" in line for line in lines) == 1
    assert "- {name: class2, label: 2} " in "\n".join(lines)
