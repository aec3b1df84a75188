"""A prepared dataset, for the tests that search with stand-ins for training."""

from pathlib import Path

import pytest

from benchmarks.load import PARAMS
from nas_core.base.paths import prepared_folder
from nas_core.data.preparing import prepare
from nas_core.loading import validate_settings


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with the settings of `benchmarks.load`."""
    root = tmp_path_factory.mktemp("prepared")
    settings = validate_settings(PARAMS, "test")
    prepare(settings.dataset, root, prepared_folder(root, settings))
    return root
