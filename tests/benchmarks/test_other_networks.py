import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import other_networks
from nas_core.base.errors import SettingsError

OTHER = """
from torch import nn
from torchsummary import summary

class Tiny(nn.Module):
    def __init__(self, classes, width=3):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 1), nn.Conv2d(width, classes, 1))

    def forward(self, images):
        return self.layers(images)
"""


def test_others_run_beside_the_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_networks, "OTHERS", {"Tiny": {"width": 2}})
    with pytest.raises(SettingsError, match=r"model/Tiny\.py is in none of"):
        other_networks.measure([tmp_path], (40, 56), 1)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "Tiny.py").write_text(OTHER)
    rows = other_networks.measure([tmp_path / "none", tmp_path], (40, 56), 2)
    assert not {"torchsummary", "IPython"} & sys.modules.keys()  # which others look for
    parameters = {row["network"]: row["parameters"] for row in rows}
    assert parameters == {
        "arch0-camvid": 274_443,
        "arch1-camvid": 262_531,
        "camvid0-camvid": 210_363,
        "Tiny": (3 * 2 + 2) + (2 * 11 + 11),
    }
    assert rows[0]["relative"] == 1 and all(row["milliseconds"] > 0 for row in rows)


def test_unpooling_is_torchs() -> None:
    features = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    pooled, indices = nn.functional.max_pool2d(features, 2, return_indices=True)
    expected = nn.MaxUnpool2d(2)(pooled, indices)
    torch.testing.assert_close(other_networks.Unpool()(pooled, indices), expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def (", "invalid syntax"),
        ("import nosuchpackage", "No module named 'nosuchpackage'"),
        ("", "has no attribute 'Tiny'"),
        ("def Tiny(): pass", "unexpected keyword argument"),
    ],
)
def test_another_checkout_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr(other_networks, "OTHERS", {"Tiny": {}})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "Tiny.py").write_text(text)
    with pytest.raises(SettingsError, match=rf"Tiny\.py cannot be used \(.*{said}.*must be a"):
        other_networks.load_other([tmp_path], "Tiny")
