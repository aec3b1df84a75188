from pathlib import Path

import pytest

from nas_core.base.errors import DataError
from nas_core.data.picture_files import find_pictures


def test_folders_give_their_pictures(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "inner.png").mkdir()
    assert [path.name for path in find_pictures([tmp_path])] == ["a.png", "b.JPG"]
    assert find_pictures([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    with pytest.raises(DataError, match="no picture in this folder"):
        find_pictures([tmp_path / "inner.png"])
    with pytest.raises(DataError, match="does not exist"):
        find_pictures([tmp_path / "gone"])
