"""Random architectures within limits."""

from pathlib import Path

import pytest

from nas_core.base.errors import RunError
from nas_core.base.paths import prepared_folder
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.loading import validate_settings
from nas_core.models.cost import count_parameters
from nas_core.search.sampling import sample_architectures
from tests.tiny import tiny


def settings_with(limit: int) -> Settings:
    images = {"num_train": 3, "num_val": 1, "num_test": 1, "height": 32, "width": 32}
    return validate_settings(
        tiny(dataset={"synthetic": images}, search={"constraints": {"max_parameters": limit}}),
        "test",
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sampling")
    settings = settings_with(100_000)
    prepare(settings.dataset, root, prepared_folder(root, settings))
    return root


def test_they_are_within_the_limits_and_more_begin_with_the_same(root: Path) -> None:
    settings = settings_with(10**9)
    data = PreparedData.open(prepared_folder(root, settings))
    free = sample_architectures(settings, root, data, 4)
    assert list(sample_architectures(settings, root, data, 6))[:4] == list(free)
    numbers = [
        count_parameters(one, num_classes=11, agg_size=8, sep_repeats=1) for one in free.values()
    ]
    assert min(numbers) < max(numbers)
    limited = sample_architectures(settings_with(max(numbers) - 1), root, data, 4)
    assert len(limited) == 4
    kept = [name for name, number in zip(free, numbers, strict=True) if number < max(numbers)]
    assert list(limited)[: len(kept)] == kept


def test_a_limit_that_none_meets_is_named(root: Path) -> None:
    settings = settings_with(10)
    data = PreparedData.open(prepared_folder(root, settings))
    with pytest.raises(
        RunError, match=r"search\.constraints\.max_parameters = 10: the encoder alone"
    ):
        sample_architectures(settings, root, data, 4)
