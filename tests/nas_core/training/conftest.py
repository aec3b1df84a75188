import pytest
import torch

from nas_core.config import DatasetSettings, SyntheticSettings
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.models.compute import Compute

FP32 = Compute(torch.device("cpu"), bf16=False)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """A few small synthetic street scenes, prepared."""
    root = tmp_path_factory.mktemp("scenes")
    sizes = SyntheticSettings(num_train=20, num_val=4, num_test=4, height=48, width=64)
    dataset = DatasetSettings(kind="synthetic", path="raw", synthetic=sizes)
    return prepare(dataset, root, root / "prepared")


@pytest.fixture
def compute() -> Compute:
    return FP32
