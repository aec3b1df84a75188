"""Every reader against the corpus: refused with a message, whatever the file holds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from flows.servers.processes import Services
from nas_core.base.errors import DataError
from nas_core.base.files import write_json
from nas_core.config import MetaValSettings
from nas_core.data import folder as own_folder
from nas_core.data.check import check_dataset
from nas_core.data.images import read_image
from nas_core.data.listing import report
from nas_core.data.prepared import PreparedData
from nas_core.deploy.shipping import ship
from nas_core.loading import load_settings
from nas_core.models.checkpoint import METADATA_KEY, load_segmenter
from nas_core.search.journal import Journal
from nas_core.search.latencies import read_latencies
from nas_core.space.architectures import find_architecture
from nas_core.space.genotype import Genotype
from nas_core.training.record import Trainings
from tasks.tracking.store import connect, tracking_uri
from tests.robustness.cases import count, files, listed, refused, snapshot
from tests.robustness.conftest import own_dataset

pytestmark = pytest.mark.timeout(60)


def test_there_are_300_cases() -> None:
    assert sum(count().values()) >= 300, count()


@pytest.mark.parametrize("file", files("params"))
def test_params(project: Path, file: Path) -> None:
    shutil.copyfile(file, project / "params.yaml")
    with refused("params.yaml"):
        load_settings(root=project)


@pytest.mark.parametrize("file", files("params"))
def test_profiles(project: Path, file: Path) -> None:
    if file.stem in ("empty", "only_a_comment"):
        pytest.skip("the same as params.yaml")
    shutil.copyfile(file, project / "profiles" / "mine.yaml")
    with refused("mine.yaml"):
        load_settings("mine", root=project)


@pytest.mark.parametrize("override", listed("overrides"), ids=lambda text: ascii(text[:40]))
def test_overrides(project: Path, override: str) -> None:
    with refused(""):
        load_settings(overrides=[override], root=project)


def test_a_list_of_what_there_is_ends(project: Path) -> None:
    for number in range(40):
        shutil.copyfile(project / "params.yaml", project / "profiles" / f"{'x' * 60}{number}.yaml")
    shutil.copyfile(project / "params.yaml", project / "profiles" / "a\nb\nc.yaml")
    with refused("and 32 more"):
        load_settings("mine", root=project)


def test_a_key_with_dots_is_not_proposed_anew(project: Path) -> None:
    (project / "params.yaml").write_text("search.num_candidates: 5\n")
    with refused("write one key beneath another, without dots"):
        load_settings(root=project)


@pytest.mark.parametrize("file", files("dataset"))
def test_dataset_descriptions(tmp_path: Path, file: Path) -> None:
    own_dataset(tmp_path / "own")
    shutil.copyfile(file, tmp_path / "own" / "dataset.yaml")
    with refused("group" if file.stem.startswith("group") else "dataset.yaml", of_dataset=True):
        listing = own_folder.list_dataset(tmp_path / "own")
        if listing.problems:
            raise report(listing.root, listing.problems)


@pytest.mark.parametrize("group", [r"^(\w|\w\w)+$", r"^((a|aa)+)+\d$"])
def test_an_expression_that_would_take_for_ever(tmp_path: Path, group: str) -> None:
    own = tmp_path / "own"
    own_dataset(own)
    for kind in ("images", "masks"):
        (own / kind / "a.png").rename(own / kind / f"{'a' * 90}.png")
    (own / "dataset.yaml").write_text(
        f"classes: [road, sky]\nsplit: {{val: 0.2, group: '{group}'}}\n"
    )
    (problem,) = own_folder.list_dataset(own).problems
    assert "split.group takes more than 1 s" in problem and "dataset.yaml" in problem


@pytest.mark.parametrize("file", files("lists"))
def test_list_files(tmp_path: Path, file: Path) -> None:
    own = tmp_path / "own"
    own_dataset(own)
    (own / "dataset.yaml").write_text("classes: [road, sky]\n")
    shutil.copyfile(file, own / "train.txt")
    (own / "val.txt").write_text("b\n")
    with refused("train.txt", of_dataset=True):
        raise report(own, own_folder.list_dataset(own).problems)


@pytest.mark.parametrize("file", files("genotypes"))
def test_genotypes(tmp_path: Path, file: Path) -> None:
    with refused(file.name):
        Genotype.load(file)
    with refused(file.name):
        find_architecture(str(file), {})


@pytest.mark.parametrize("file", files("journals"))
def test_journals(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "search" / "journal.jsonl"
    path.parent.mkdir()
    shutil.copyfile(file, path)
    with refused("journal.jsonl"):
        Journal.read(path)
    before = path.read_bytes()
    with refused("journal.jsonl"):
        Journal.open(path)
    assert path.read_bytes() == before


def prepared(folder: Path) -> Path:
    """What the valid manifest of the corpus' cases describes."""
    folder.mkdir()
    for split, number in (("train", 3), ("val", 1)):
        np.save(folder / f"{split}_images.npy", np.zeros(number * 4 * 6 * 3, np.uint8))
        np.save(folder / f"{split}_masks.npy", np.zeros(number * 4 * 6, np.uint8))
    manifest = {
        "format": 3,
        "classes": ["a", "b"],
        "palette": [[0, 0, 0], [1, 1, 1]],
        "ignore_index": 255,
        "height": 4,
        "width": 6,
        "data_hash": "00",
        "code": "00",
        "content_hash": "00",
        "label_shares": [0.5, 0.5],
        "names": {"train": ["x", "y", "z"], "val": ["v"]},
        "groups": {"train": ["r", "r", "s"], "val": ["v"]},
        "places": {"train": [[0, 4, 6], [24, 4, 6], [48, 4, 6]], "val": [[0, 4, 6]]},
        "pixels": {"train": 72, "val": 24},
        "tile": None,
        "num_void": 0,
    }
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.mark.parametrize("file", files("manifests"))
def test_manifests(tmp_path: Path, file: Path) -> None:
    folder = prepared(tmp_path / "data")
    PreparedData.open(folder)
    shutil.copyfile(file, folder / "manifest.json")
    with refused(
        "manifest.json" if "one_name" not in file.stem and "other" not in file.stem else ""
    ):
        PreparedData.open(folder)


@pytest.mark.parametrize("file", files("latencies"))
def test_latencies(tmp_path: Path, file: Path) -> None:
    about = b'{"command": "", "threads": 1, "height": 32, "width": 32}'
    content = b'{"measured_by": ' + about + b', "milliseconds": ' + file.read_bytes() + b"}"
    (tmp_path / "latency.json").write_bytes(content)
    with refused("latency.json"):
        read_latencies(tmp_path / "latency.json")


@pytest.mark.parametrize("file", files("trainings"))
def test_trainings(tmp_path: Path, file: Path) -> None:
    shutil.copyfile(file, tmp_path / "trainings.json")
    with refused("trainings.json"):
        Trainings.read(tmp_path / "trainings.json")


@pytest.mark.parametrize("file", files("training"))
def test_shipping_a_damaged_training(project: Path, file: Path) -> None:
    training = project / "artifacts" / "trainings" / "arch1-0123"
    shutil.copyfile(file, training / "training.json")
    with refused("training.json"):
        ship(training, "mine", "none", project / "models")
    assert not (project / "models").exists()


@pytest.mark.parametrize("file", files("services"))
def test_services(tmp_path: Path, file: Path) -> None:
    shutil.copyfile(file, tmp_path / "services.json")
    with refused("services.json"):
        Services.read(tmp_path / "services.json")


@pytest.mark.parametrize("file", files("cards"))
def test_cards_of_networks(project: Path, file: Path) -> None:
    path = project / "artifacts" / "trainings" / "arch1-0123" / "model.safetensors"
    save_file(load_file(path), path, {METADATA_KEY: file.read_text()})
    with refused("model.safetensors"):
        load_segmenter(path)


@pytest.mark.parametrize("uri", listed("uris"), ids=lambda uri: ascii(uri[:40]))
def test_tracking_addresses(
    project: Path, uri: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(project)
    with refused(""):
        connect(tracking_uri(uri, project))
    out, err = capfd.readouterr()
    assert "hunter2" not in out + err
    assert snapshot(project) == before


def _pipe(path: Path) -> None:
    import os

    os.mkfifo(path)


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": _pipe,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
}
READERS: dict[str, Callable[[Path], object]] = {
    "params.yaml": lambda path: load_settings(root=path.parent),
    "dataset.yaml": lambda path: own_folder.list_dataset(path.parent),
    "genotype.json": Genotype.load,
    "journal.jsonl": Journal.read,
    "manifest.json": lambda path: PreparedData.open(path.parent),
    "trainings.json": Trainings.read,
    "model.safetensors": load_segmenter,
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file(tmp_path: Path, name: str, make: Callable[[Path], object]) -> None:
    make(tmp_path / name)
    with refused(name):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
@pytest.mark.parametrize("read", [Genotype.load, load_segmenter, Trainings.read, read_image])
def test_what_can_be_no_name_of_a_file(
    tmp_path: Path, name: str, read: Callable[[Path], object]
) -> None:
    with refused("no name of a file"):
        read(tmp_path / name)


@pytest.mark.parametrize("kind", ["pipe", "device", "dangling", "loop"])
def test_an_image_that_is_no_file_is_named(tmp_path: Path, kind: str) -> None:
    own_dataset(tmp_path / "own")
    for folder in ("images", "masks"):
        UNREADABLE[kind](tmp_path / "own" / folder / "z.png")
    with refused("images/z.png", of_dataset=True):
        raise report(tmp_path / "own", own_folder.list_dataset(tmp_path / "own").problems)
    checked = check_dataset(own_folder.list_dataset(tmp_path / "own"), MetaValSettings())
    assert len(checked.problems) == len(set(checked.problems)) >= 2


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_list_that_is_no_file_is_named(tmp_path: Path, kind: str) -> None:
    own = tmp_path / "own"
    own_dataset(own)
    (own / "dataset.yaml").write_text("classes: [road, sky]\n")
    (own / "train.txt").write_text("a\nb\nc\n")
    (own / "val.txt").write_text("d\n")
    UNREADABLE[kind](own / "test.txt")
    with refused("has 1 problem:\n  test.txt: cannot be read", of_dataset=True):
        raise report(own, own_folder.list_dataset(own).problems)


@pytest.mark.parametrize("name", ["images/night", "masks/night"])
def test_a_folder_that_is_gone_is_named(tmp_path: Path, name: str) -> None:
    own_dataset(tmp_path / "own")
    (tmp_path / "own" / name).symlink_to("gone")
    with refused(f"{name}: a link that leads nowhere", of_dataset=True):
        raise report(tmp_path / "own", own_folder.list_dataset(tmp_path / "own").problems)


def test_a_split_that_is_gone_is_named(tmp_path: Path) -> None:
    for split in ("train", "val"):
        own_dataset(tmp_path / split)
    (tmp_path / "test").symlink_to("gone")
    (tmp_path / "dataset.yaml").write_text("classes: [road, sky]\n")
    with refused("test/images/: folder is missing", of_dataset=True):
        raise report(tmp_path, own_folder.list_dataset(tmp_path).problems)


def test_a_journal_of_one_enormous_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"format":' + b"1" * 2**25 + b"\n")
    with refused("line 1"):
        Journal.read(path)


def test_a_list_and_a_description_of_enormous_size(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own_dataset(own)
    (own / "dataset.yaml").write_text("classes: [road, sky]\n")
    (own / "train.txt").write_bytes(b"a\n" * 2**24)
    (own / "val.txt").write_text("b\n")
    assert any(
        "train.txt: cannot be read" in line for line in own_folder.list_dataset(own).problems
    )
    (own / "dataset.yaml").write_bytes(b"classes: [road, sky]\n" + b"#" * 2**21)
    with pytest.raises(DataError, match="more than 1048576 bytes"):
        own_folder.list_dataset(own)


def test_json_of_enormous_size(tmp_path: Path) -> None:
    with (tmp_path / "big.json").open("wb") as file:
        file.truncate(2**33)  # without a block on the disk
    with refused("big.json"):
        Genotype.load(tmp_path / "big.json")
    assert json.loads("1") == 1


@pytest.mark.parametrize("key", ["threads", "height", "width"])
@pytest.mark.parametrize("value", [-1, 0, 10**30])
def test_latencies_of_a_size_that_is_none(tmp_path: Path, key: str, value: int) -> None:
    about = {"command": "", "threads": 1, "height": 32, "width": 48, key: value}
    write_json(tmp_path / "latency.json", {"measured_by": about, "milliseconds": {}})
    with refused(key):
        read_latencies(tmp_path / "latency.json")
