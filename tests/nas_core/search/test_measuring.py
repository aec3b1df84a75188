"""The latency that a command says of a network's ONNX file. Each command is a process."""

import os
import re
import sys
from collections import Counter
from pathlib import Path

import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from nas_core.base.errors import RunError, SettingsError
from nas_core.base.seeds import seeded
from nas_core.config import LatencySettings
from nas_core.deploy import measure
from nas_core.deploy.export import onnx_model
from nas_core.models.checkpoint import load_segmenter
from nas_core.models.encoder import Encoder
from nas_core.search import measuring
from nas_core.search.measuring import Meter, check_latency
from nas_core.training.finding import find_weights

SIZE = (32, 48)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SECONDS_BETWEEN", 0)


def script(folder: Path, text: str) -> str:
    """A command that runs in the project's folder."""
    path = folder / "bench.sh"
    path.write_text(f"#!/bin/sh\necho >> calls\n{text}\n")
    path.chmod(0o755)
    return "./bench.sh {model}"


def measured(folder: Path, text: str, time_limit: float = 30.0) -> float:
    settings = LatencySettings(command=script(folder, text), time_limit=time_limit)
    return Meter(settings, SIZE, folder).measure(Encoder())


def num_calls(folder: Path) -> int:
    return (folder / "calls").read_text().count("\n")


def test_the_file_is_what_nas_export_writes(tmp_path: Path) -> None:
    """Of a new network, whose weights are equal in part, too."""
    trained, card = load_segmenter(find_weights("camvid0-camvid"))
    settings = LatencySettings(command=script(tmp_path, 'cp "$1" kept.onnx; echo 5'))
    assert Meter(settings, SIZE, tmp_path).measure(seeded(0, card.build)) == 5
    kept = onnx.load(tmp_path / "kept.onnx")
    exported = onnx.load_from_string(onnx_model(trained, card, SIZE))
    (image,), (logits,) = kept.graph.input, kept.graph.output
    assert [one.dim_value for one in image.type.tensor_type.shape.dim] == [1, 3, *SIZE]
    assert [one.dim_value for one in logits.type.tensor_type.shape.dim] == [1, 11, *SIZE]
    kinds, expected = (Counter(one.op_type for one in m.graph.node) for m in (kept, exported))
    assert kinds == expected and kinds["BatchNormalization"] == 7  # of 61


def test_without_a_command_onnx_runtime_measures(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('not the project\\'s')")
    assert 0 < Meter(LatencySettings(), SIZE, tmp_path).measure(Encoder()) < 60_000


@pytest.mark.parametrize(
    "said",
    ["", "1 2", "1\n2", "nan", "inf", "-3", "0", "1e300", "12 ms", "fast", "1_0", "\u0661\u0662"],
)
def test_what_is_no_number_of_milliseconds_is_shown(tmp_path: Path, said: str) -> None:
    with pytest.raises(RunError) as raised:
        measured(tmp_path, f"printf %s '{said}'")
    first, *lines = str(raised.value).splitlines()
    assert re.match(
        r"search\.latency: \./bench\.sh /\S+/model\.onnx did not print one number", first
    )
    assert lines == [f"    {line}" for line in said.splitlines()]
    assert first.endswith("it said:" if said else "said nothing")
    assert num_calls(tmp_path) == measuring.NUM_TRIES


def test_a_command_that_fails_is_shown_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"model\.onnx ended with 7; it said:") as raised:
        measured(tmp_path, "seq 1000000 1999999 >&2; echo 12.5; exit 7")
    lines = [line.strip() for line in str(raised.value).splitlines()[1:]]
    assert lines == ["1999996", "1999997", "1999998", "1999999", "12.5"]


def test_a_command_may_fail_once(tmp_path: Path) -> None:
    assert measured(tmp_path, "[ $(wc -l < calls) -gt 1 ] && echo 12.5") == 12.5
    assert num_calls(tmp_path) == 2


def test_a_command_may_remove_what_it_is_given(tmp_path: Path) -> None:
    text = 'rm -r "$(dirname $1)"; [ $(wc -l < calls) -gt 2 ] && echo 12.5'
    assert measured(tmp_path, text) == 12.5


def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"took longer than search\.latency\.time_limit, 0\.3 s"):
        measured(tmp_path, "sleep 600 & echo $! > pid; wait", time_limit=0.3)
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_command_gets_no_input_and_no_shell(tmp_path: Path) -> None:
    settings = LatencySettings(
        command="""sh -c 'cat; echo "$1" > arguments; echo 3' {model} '$HOME;a'"""
    )
    assert Meter(settings, SIZE, tmp_path).measure(Encoder()) == 3
    assert (tmp_path / "arguments").read_text() == "$HOME;a\n"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"command": "no-such-program {model}"},
            r"command: there is no program no-such-program on ",
        ),
        ({"command": "./bench.sh {model}"}, r"there is no program \./bench\.sh in /"),
        ({"threads": 1024}, rf"threads = 1024: this machine has {os.cpu_count()} CPU cores"),
    ],
)
def test_what_cannot_be_run_is_refused(
    tmp_path: Path, settings: dict[str, object], problem: str
) -> None:
    (tmp_path / "bench.sh").write_text("echo 1")  # not executable
    with pytest.raises(SettingsError, match=problem):
        check_latency(LatencySettings.model_validate(settings), tmp_path)


def test_what_can_be_run_is_not_refused(tmp_path: Path) -> None:
    check_latency(LatencySettings(), tmp_path)
    check_latency(LatencySettings(command=script(tmp_path, "")), tmp_path)
    check_latency(LatencySettings(command="sh bench.sh {model}"), tmp_path)


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (None, [], "File doesn't exist"),
        (b"no model", [], "model.onnx: "),
        (b"", ["--threads", "-1"], "expected 1 or more"),
    ],
)
def test_what_the_own_program_cannot_measure_is_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    arguments: list[str],
    said: str,
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["measure.py", str(path), *arguments])
    with pytest.raises(SystemExit) as ended:
        measure.main()
    assert ended.value.code != 0 and said in str(ended.value.code) + capsys.readouterr().err


def test_a_model_of_any_size_has_no_latency(tmp_path: Path) -> None:
    shape = ["n", 3, "h", "w"]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 18)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    with pytest.raises(ValueError, match=r"of any size; write it with nas export --size"):
        measure.median_milliseconds(str(path), 1)
