import json
from pathlib import Path

import pytest
from pydantic import RootModel

from nas_core.base.documents import Document, Number
from nas_core.base.errors import RunError
from nas_core.training.record import Training, Trainings


class Table(Document, RootModel[dict[str, list[Number]]]):
    remedy = "make it again"


OLD_TRAINING = {
    "label": "arch1", "identity": "0123", "id": "a", "num_parameters": 1, "macs": 2, "seed": 0,
    "splits": "train", "device": "cpu", "started": 1.0, "finished": 2.0, "val": {"mean_iou": 0.5},
    "history": [{"epoch": 1, "loss": 0.25}], "added_by_hand": [1, {"a": None}],
}  # fmt: skip


def test_a_copy_of_an_older_file_says_what_that_says(tmp_path: Path) -> None:
    path = tmp_path / "trainings.json"
    path.write_text(json.dumps({"arch1": OLD_TRAINING}))
    trainings = Trainings.read(path)
    assert trainings.root["arch1"].commit is None
    assert trainings.root["arch1"].input_size == (360, 480)
    trainings.write(path)
    assert json.loads(path.read_text()) == {"arch1": OLD_TRAINING}
    assert '"epoch": 1,' in path.read_text()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "not a JSON file"),
        ("[1]", "expected keys and values"),
        ('{"a": [true]}', "a.0: expected a number"),
        ('{"a": ["1"]}', "a.0: expected a number"),
        ('{"a": [NaN]}', "a.0: expected a number that is neither"),
        ('{"a": [1], "a": [2]}', "key 'a' is given twice"),
    ],
)
def test_what_is_no_such_document_is_named_with_its_remedy(
    tmp_path: Path, content: str, problem: str
) -> None:
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(RunError) as error:
        Table.read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and problem in message
    assert message.endswith(": make it again")


def test_a_document_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"training\.json cannot be read: No such file"):
        Training.read(tmp_path / "training.json")
