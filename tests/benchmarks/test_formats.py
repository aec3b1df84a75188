import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import formats
from benchmarks.formats import BASE, LITERT
from nas_core.data.street_scene import draw_scene
from nas_core.deploy import litert

SIZE = (64, 96)


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """A folder of CamVid's layout."""
    rng = np.random.default_rng(0)
    for name in ("train", "val"):
        for folder in (name, f"{name}annot"):
            (tmp_path / folder).mkdir()
        for number in range(4):
            image, mask = draw_scene(*SIZE, rng)
            image.save(tmp_path / name / f"{number}.png")
            Image.fromarray(np.asarray(mask)).save(tmp_path / f"{name}annot" / f"{number}.png")
    return tmp_path


def test_each_format(
    camvid: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(litert.VARIABLE, str(camvid))
    formats.main(camvid, runs=1, as_json=True)
    captured = capsys.readouterr()
    rows = {row["format"]: row for row in json.loads(captured.out)}
    assert len(rows) == 8 and LITERT not in rows and "LiteRT is left out" in captured.err
    assert rows[BASE]["speed"] == 1 and rows[BASE]["points_lost"] == rows[BASE]["labels"] == 0
    for name, row in rows.items():
        assert row["milliseconds"] > 0 and row["megabytes"] > 0.3
        assert ("int8" in name) == (row["labels"] > 0)
    assert rows["ONNX Runtime int8"]["megabytes"] < rows[BASE]["megabytes"]
