"""The scripts of examples/, as a reader runs them."""

import runpy
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from nas_core.config import LatencySettings
from nas_core.data.overlay import overlay
from nas_core.deploy.predict import Predictor
from nas_core.models.checkpoint import load_segmenter
from nas_core.search.measuring import Meter
from nas_core.training.finding import find_weights

ROOT = Path(__file__).parents[2]
# Runs a script and then says which of these packages it has loaded.
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("loaded:", *sorted({"prefect", "mlflow", "dvc"} & set(sys.modules)))
"""


@pytest.mark.timeout(900)
def test_a_search_without_servers(tmp_path: Path) -> None:
    script = ROOT / "examples" / "search_without_servers.py"
    lines = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(script), str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
        *said, loaded = done.stdout.splitlines()
        assert loaded == "loaded:", loaded
        lines.append(said[-1])
        # The second time nothing is trained.
        assert ("going on after 4 candidates" in done.stderr) == (len(lines) == 2)
        assert ("epoch 2/2" in done.stderr) == (len(lines) == 1)
    assert lines[0] == lines[1]
    assert "parameters, test mIoU 0." in lines[0]
    assert {path.name for path in tmp_path.iterdir()} == {"artifacts", "scenes"}


def test_a_video_is_labelled_frame_by_frame(tmp_path: Path) -> None:
    video, out = tmp_path / "street.mkv", tmp_path / "out.mp4"
    rng = np.random.default_rng(0)
    with av.open(video, "w") as target:
        stream = target.add_stream("ffv1", 10, width=49, height=33, pix_fmt="bgr0")
        frames = rng.integers(0, 256, (3, 33, 49, 3), dtype=np.uint8)
        for frame in frames:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        target.mux(stream.encode(None))
    said = label(f"{ROOT}/models/arch0-camvid.safetensors", video, out, "--frames", "2")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(f"{out}: 2 frames, ")
    predictor = Predictor.load(ROOT / "models" / "arch0-camvid.safetensors")
    palette = np.array(predictor.card.palette, np.uint8)
    with av.open(out) as found:
        shown = [frame.to_ndarray(format="rgb24") for frame in found.decode(video=0)]
    assert len(shown) == 2
    for frame, picture in zip(frames, shown, strict=False):
        image = frame[:32, :48]
        expected = np.asarray(overlay(image, predictor(image), palette))
        # The encoder loses detail, and noise has much of it: other frames differ by more.
        assert np.abs(expected.astype(int) - picture).mean() < 40


def test_a_video_that_is_none_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    said = label("arch0-camvid", tmp_path / "absent.mp4", out)
    assert said.returncode == 1 and "absent.mp4" in said.stderr and not out.exists()
    assert "Traceback" not in said.stderr
    (tmp_path / "text.mp4").write_text("no video")
    said = label("arch0-camvid", tmp_path / "text.mp4", out)
    assert said.returncode == 1 and "text.mp4" in said.stderr and not out.exists()
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["street.mp4", "street.mp4"], "it would be overwritten"),
        (["street.mp4", "link.mp4"], "it would be overwritten"),
        (["street.mp4", "out.gif"], "expected the path of an .mp4 file"),
        (["street.mp4", "nowhere/out.mp4"], "expected the path of an .mp4 file"),
        (["street.mp4", "out.mp4", "--frames", "-1"], "expected 1 or more"),
        (["street.mp4", "out.mp4", "--format", "nix"], "street.mp4: no container format 'nix'"),
    ],
)
def test_what_a_video_cannot_be_written_with(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("street.mp4").write_text("a video")
    Path("link.mp4").symlink_to("street.mp4")
    monkeypatch.setattr(sys, "argv", ["label_video.py", "arch0-camvid", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / "label_video.py"), run_name="__main__")
    assert ended.value.code != 0
    assert said in str(ended.value.code) + capsys.readouterr().err
    assert Path("street.mp4").read_text() == "a video" and not Path("out.mp4").exists()


def label(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "examples" / "label_video.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_latency_in_int8_as_a_search_asks_for_it(tmp_path: Path) -> None:
    script = ROOT / "examples" / "int8_latency.py"
    command = LatencySettings(command=f"{sys.executable} {script} {{model}} --runs 2")
    segmenter, _ = load_segmenter(find_weights("arch0-camvid"))
    small, large = (
        Meter(command, size, tmp_path).measure(segmenter) for size in ((64, 96), (256, 384))
    )
    assert 0 < small < large


@pytest.mark.parametrize(
    ("name", "extra"), [("label_video", "video"), ("int8_latency", "openvino")]
)
def test_a_package_that_is_missing_is_named(
    name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("av", "nncf"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match=rf"is missing; install nas-seg\[{extra}\]"):
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"))
