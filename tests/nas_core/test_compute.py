import pytest
import torch

from nas_core.compute import Compute
from nas_core.config import ComputeSettings
from nas_core.errors import SettingsError


def test_a_device_that_is_not_there_is_refused() -> None:
    missing = torch.cuda.device_count()
    with pytest.raises(SettingsError, match=f"'cuda:{missing}': this machine has {missing}"):
        Compute.from_settings(ComputeSettings(device=f"cuda:{missing}"))


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float)])
def test_autocast_follows_the_precision(precision: str, dtype: torch.dtype) -> None:
    compute = Compute.from_settings(ComputeSettings(device="cpu", precision=precision))
    layer = compute.place(torch.nn.Conv2d(3, 4, 1))
    with compute.autocast():
        assert layer(torch.zeros(1, 3, 2, 2)).dtype == dtype
    assert precision in compute.describe()


def test_the_number_of_threads_is_set() -> None:
    before = torch.get_num_threads()
    try:
        Compute.from_settings(ComputeSettings(device="cpu", threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_is_chosen_where_there_is_one() -> None:
    assert Compute.from_settings(ComputeSettings()).device.type == "cuda"
