"""`nas pick`, as a person reads it in a terminal of 80 columns."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nas_core.search.journal import Header, Journal
from nas_core.search.latencies import LATENCY_FILE
from tests.command_line import run_nas
from tests.nas_core.analysis.test_picking import IDS, confirm, write_search, write_training


@pytest.fixture
def nas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "params.yaml").write_text("name: camvid\n")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "streets.yaml").write_text("name: streets\n")
    monkeypatch.setenv("NAS_PROJECT_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    return partial(run_nas, monkeypatch, capsys, "pick")


def test_the_best_within_limits_and_what_is_missing(nas, tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    confirm(write_search(artifacts, "streets-1"), 2, (0.43, 0.47))
    write_training(artifacts, 0, 0, 0.6, test=0.123456, data="streets")
    code, out, _ = nas()
    assert code == 0 and "0.12" not in out
    lines = out.splitlines()
    tables = [line for line in lines if line.startswith(("streets: ", *IDS))]
    assert max(map(len, tables)) <= 80
    assert [line.split()[0] for line in tables] == ["streets:", IDS[0], "streets:", *[
        IDS[index] for index in (2, 1, 3)
    ]]  # fmt: skip
    trained, confirmed, single = tables[1], tables[3], tables[4]
    assert trained.split()[1:] == ["200K", "0.00", "50.0", "0.6000", "1", "another", "seed"]
    assert "0.4500±." in confirmed and " 3 " in confirmed and "full training" in confirmed
    assert "0.5000 " in single and "±" not in single
    assert f"`nas train {IDS[0]} -p streets -S seed=1`" in out
    assert f"only proxy: `nas train {IDS[2]} -p streets`" in out
    assert "scores of two tables do not compare" in out
    write_training(artifacts, 3, 1, 0.7, data="streets")
    assert f"`nas train {IDS[3]} -p streets -S seed=0`" in nas()[1]
    found = json.loads(nas("--json", "--num", "1")[1])
    assert [group["evidence"] for group in found["groups"]] == ["trained", "proxy"]
    assert [len(group["networks"]) for group in found["groups"]] == [1, 1]
    assert found["groups"][1]["num_within"] == 2


def test_commands_name_what_is_not_configured(nas, tmp_path: Path) -> None:
    other = "timm/ghostnet_100"
    write_search(tmp_path / "artifacts", "streets-1", encoder=other)
    write_training(tmp_path / "artifacts", 0, 0, 0.6, data="streets", epochs=7)
    out = nas()[1]
    assert f"only proxy: `nas train {IDS[1]} -p streets -S network.encoder={other}`" in out
    assert f"\nwith -S network.encoder={other}\n" in out
    assert f"`nas train {IDS[0]} -p streets -S train.epochs=7 -S seed=1`" in out
    assert f"`nas verify streets --architecture {IDS[0]} -S train.epochs=7`" in out
    assert "50.0" not in next(line for line in out.splitlines() if "another seed" in line)


def test_it_says_how_latencies_were_measured(nas, tmp_path: Path) -> None:
    write_search(tmp_path / "artifacts", "camvid-1")
    assert "\nms in ONNX Runtime with 1 thread at " in nas("--num", "4")[1]
    board = write_search(tmp_path / "artifacts", "camvid-2", seed=1)
    confirm(board, 1, (0.43, 0.47))
    path = board / LATENCY_FILE
    path.write_text(path.read_text().replace('"command": ""', '"command": "board {model}"'))
    out = nas("--num", "4")[1]
    assert f"ms of {IDS[0]} in ONNX Runtime with 1 thread at " in out
    assert f"ms of {IDS[1]} by board {{model}} at " in out


def test_what_a_limit_leaves_out_is_counted(nas, tmp_path: Path) -> None:
    write_search(tmp_path / "artifacts", "camvid-1")
    code, out, _ = nas("--max-latency-ms", "80", "--max-parameters", "250000")
    assert code == 0 and "camvid: proxy task, by reward; 1 within the limits" in out
    assert "4 networks have a score; over a limit: 1; without a latency" in out
    assert f"only proxy: `nas train {IDS[0]}`" in out


@pytest.mark.parametrize(
    "changes",
    [
        {"val": {"mean_iou": 7.0}},
        {"val": {"mean_iou": -1e-9}},
        {"val": {"mean_iou": 1e300}},
        {"id": ""},
        {"splits": "x"},
        {"id": "../../x"},
        {"id": "[red]x[/bold]"},
        {"id": "\x1b[2J"},
        {"data": "[/red]"},
        {"data": "-S x=1"},
    ],
)
def test_a_training_that_cannot_be_is_left_out(
    nas, tmp_path: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    write_search(tmp_path / "artifacts", "camvid-1")
    path = write_training(tmp_path / "artifacts", 0, 0, 0.6) / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    code, out, _ = nas()
    assert code == 0 and "4 networks have a score" in out and "proxy task" in out
    key = next(iter(changes))
    assert f"training.json: {key}" in caplog.text and "is left out" in caplog.text


def test_a_name_that_looks_like_markup_is_shown_as_it_is(nas, tmp_path: Path) -> None:
    folder = write_search(tmp_path / "artifacts", "camvid-1")
    named = folder.with_name("[red]-1")
    folder.rename(named)
    journal = named / "journal.jsonl"
    records = Journal.read(journal).records
    journal.unlink()
    header = Header(format=1, settings={"name": "[/red]"}, identity={})
    with Journal.create(journal, header) as opened:
        for record in records:
            opened.append(record)
    code, out, _ = nas()
    assert code == 0 and out.startswith("[/red]: proxy task") and "from [red]-1; only" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-latency-ms", "nan"], "--max-latency-ms nan: expected milliseconds"),
        (["--max-latency-ms", "-3"], "--max-latency-ms -3.0: expected milliseconds"),
        (["--max-macs", "1"], "none of 4 networks is within the limits"),
        (["camvid-2"], "no search 'camvid-2'; there are: camvid-1"),
        (["camvid-1", "camvid-1"], "camvid-1 is given twice"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    nas, tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_search(tmp_path / "artifacts", "camvid-1")
    code, out, err = nas(*arguments)
    assert code == 1 and not out
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
