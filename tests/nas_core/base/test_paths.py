"""The places of a project's files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nas_core.base import paths
from nas_core.base.errors import RunError
from nas_core.loading import validate_settings
from tests.tiny import tiny

SETTINGS = validate_settings(tiny(), "test")


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("searches", paths.searches_folder),
        ("trainings", paths.trainings_folder),
        ("fidelity", paths.fidelity_folder),
        ("prepared", lambda root: paths.prepared_folder(root, SETTINGS)),
    ],
)
def test_what_takes_the_place_of_a_folder_is_named(
    tmp_path: Path, name: str, use: Callable[[Path], Path]
) -> None:
    path = tmp_path / "artifacts" / name
    path.parent.mkdir()
    for make in (path.touch, lambda: path.symlink_to(path), lambda: path.symlink_to("nowhere")):
        make()
        with pytest.raises(RunError, match=f"{name} is no folder: move it away"):
            use(tmp_path)
        path.unlink()
    path.mkdir()
    assert use(tmp_path).is_relative_to(path)
