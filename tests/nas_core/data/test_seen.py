from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from nas_core.config import MetaValSettings, TileSettings
from nas_core.data import check as checking
from nas_core.data.check import DatasetReport, check_dataset
from nas_core.data.folder import list_dataset

NUMBER = 8


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    rng = np.random.default_rng(0)
    for split, number in (("train", 6), ("val", 2)):
        for part in ("images", "masks"):
            (root / split / part).mkdir(parents=True)
        for index in range(number):
            save_image(root / split / "images" / f"{split}{index}.png", rng)
            labels = rng.integers(0, 3, (48, 64), dtype=np.uint8)
            Image.fromarray(labels).save(root / split / "masks" / f"{split}{index}.png")
    plain = root / "train/images/train0.png"  # too even for a fingerprint
    Image.fromarray(np.full((48, 64, 3), 7, np.uint8)).save(plain)
    describe(root, ["soil", "leaf"], [2])
    return root


def save_image(path: Path, rng: np.random.Generator) -> None:
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)


def describe(root: Path, classes: list[str], ignored: list[int]) -> None:
    values = {"classes": classes, "ignore_labels": ignored}
    (root / "dataset.yaml").write_text(yaml.safe_dump(values))


def check(root: Path, **options: Any) -> DatasetReport:
    seen = root.parent / "seen.json"
    return check_dataset(list_dataset(root), MetaValSettings(), kept_in=seen, **options)


def same(one: DatasetReport, other: DatasetReport) -> bool:
    """Whether two reports tell the same, whatever was read for them."""
    texts = []
    for report in (one, other):
        plain = replace(report, num_known=0, listing=replace(report.listing, read_mask=min))
        texts.append(repr(plain))
    return texts[0] == texts[1]


def test_a_second_check_reads_nothing_and_tells_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = check(root)
    assert (first.num_known, first.problems) == (0, [])
    written = (root.parent / "seen.json").stat().st_mtime_ns

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is to be read")

    monkeypatch.setattr(checking, "inspect_sample", refuse)
    done = []
    second = check(root, on_done=lambda: done.append(1))
    assert second.num_known == len(done) == NUMBER
    assert same(first, second)
    assert (root.parent / "seen.json").stat().st_mtime_ns == written


def test_what_has_changed_is_read_and_a_fault_each_time(root: Path) -> None:
    check(root)
    save_image(root / "train/images/train1.png", np.random.default_rng(9))
    assert check(root).num_known == NUMBER - 1
    assert check(root).num_known == NUMBER
    bad = root / "val/masks/val1.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:60])
    for _ in range(2):
        found = check(root)
        assert found.num_known == NUMBER - 1
        assert len(found.problems) == 1
    bad.write_bytes(good)
    assert check(root).problems == []


def test_other_classes_or_tiles_are_read_anew(root: Path) -> None:
    check(root)
    describe(root, ["soil", "leaf", "stem"], [])
    found = check(root)
    assert found.num_known == 0
    assert found.label_shares["train"][2] > 0
    tiled = check(root, tile=TileSettings(size=32, overlap=8))
    assert tiled.num_known == 0
    assert tiled.prepared == {"train": 36, "val": 12}
    assert same(tiled, check(root, tile=TileSettings(size=32, overlap=8)))


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": {"size": [1, 1]}}', b"\xff" * 9])
def test_a_damaged_file_is_as_none(root: Path, content: bytes) -> None:
    (root.parent / "seen.json").write_bytes(content)
    assert check(root).num_known == 0
    assert check(root).num_known == NUMBER
