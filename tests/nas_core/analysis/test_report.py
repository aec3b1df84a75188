"""The page of a search: what it tells of whole, running, failed and empty ones."""

import base64
import gzip
import json
import logging
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs
from pydantic import ValidationError

from benchmarks.load import PARAMS, stand_in
from nas_core.analysis.report.live import LiveReport
from nas_core.analysis.report.search_page import changed_settings, write_search_page
from nas_core.base.errors import RunError
from nas_core.base.times import duration
from nas_core.config import Settings
from nas_core.loading import validate_settings
from nas_core.search import loop
from nas_core.search.about import write_about
from nas_core.search.candidate_files import candidate_files, drawing_file
from nas_core.search.journal import FORMAT, Confirmation, Header, Journal
from nas_core.search.loop import Search
from nas_core.search.racing import Race
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.decisions import sample
from nas_core.workers.local import InProcessWorkers
from tests.nas_core.analysis.searches import (
    ROOT,
    drawing,
    failed,
    real_candidates,
    record_of,
    write_search,
    write_training,
)

ROWS = real_candidates(12)
BEST = max(ROWS, key=lambda row: row["quality"])


def confirmation(identifier: str, run: int, reward: float | None) -> Confirmation:
    return Confirmation(
        confirms=identifier,
        run=run,
        status="failed" if reward is None else "finished",
        reward=reward,
        scores=() if reward is None else (reward,),
        seed=run,
        reason="no luck" if reward is None else "",
    )


def page_of(root: Path, folder: Path) -> str:
    return write_search_page(root, folder).read_text()


def words(text: str) -> str:
    """What a reader sees of a page, on one line."""
    body = text[text.index("<body>") : text.index('<script type="application/json"')]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def data_of(text: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    content: dict[str, Any] = json.loads(found)
    return content


def test_a_network_with_a_name_is_what_the_best_is_measured_by(tmp_path: Path) -> None:
    arch0 = ARCHITECTURES["arch0"]
    start = {"id": arch0.id, "genotype": arch0.to_dict(), "num_parameters": 274_443}
    records = [record_of(ROWS[0], 0, reward=0.25, **start), record_of(BEST, 1)]
    page = page_of(tmp_path, write_search(tmp_path, records))
    text = words(page)
    for views in (data_of(page)["charts"][key] for key in ("progress", "pareto")):
        for view in views:
            (named,) = view["layout"]["annotations"]
            assert (named["text"], named["y"]) == ("arch0", 0.25), view["label"]
    assert "; arch0, which was tried too, has 0.2500 with 274,443 parameters." in text
    assert "arch0, candidate 1" in text
    records[1] = record_of(BEST, 1, reward=0.125)
    shutil.rmtree(tmp_path / "artifacts")
    text = words(page_of(tmp_path, write_search(tmp_path, records)))
    assert "which was tried too" not in text


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    records = [record_of(row, index) for index, row in enumerate(ROWS[:10])]
    records.append(record_of(ROWS[10], 10, status="stopped early", scores=(0.3,), reward=0.3))
    records.append(failed(ROWS[11], 11, "</script><script>alert(1)</script> & more"))
    return write_search(tmp_path, records)


def test_what_was_searched_and_found_and_what_it_costs(tmp_path: Path, whole: Path) -> None:
    text = page_of(tmp_path, whole)
    best = max(ROWS[:10], key=lambda row: row["quality"])
    assert (
        f"With the strategy evolution, 12 networks were tried on camvid, in 6 min of training. "
        f"The best, {best['id']}, has a reward of {best['quality']:.4f}"
    ) in words(text)
    assert f"{best['num_parameters']:,} parameters, {best['macs'] / 1e9:.2f} GMACs" in words(text)
    assert "complete" in words(text) and "1 of 12 candidates stopped early" in words(text)
    assert "search.strategy evolution ppo" in words(text)
    data = data_of(text)
    assert [view["label"] for view in data["charts"]["pareto"]] == [
        "parameters",
        "GMACs",
        "latency",
    ]
    assert set(data["drawings"]) == {row["id"] for row in ROWS}
    assert set(data["networks"]) == {row["id"] for row in ROWS}
    # The best ten with their losses; the failed one is none of them.
    assert len([name for name in data["charts"] if name.startswith("losses-")]) == 10
    assert text.count('<article class="card">') == 10


def test_the_points_of_a_front_are_the_networks_that_nothing_beats(
    tmp_path: Path, whole: Path
) -> None:
    (parameters, *_) = data_of(page_of(tmp_path, whole))["charts"]["pareto"]
    (front,) = [trace for trace in parameters["data"] if trace.get("name") == "Pareto front"]
    finished = ROWS[:10]
    unbeaten = {
        row["id"]
        for row in finished
        if not any(
            other["num_parameters"] <= row["num_parameters"] and other["quality"] > row["quality"]
            for other in finished
        )
    }
    assert set(front["customdata"]) == unbeaten


def test_nothing_that_a_name_or_reason_holds_acts_on_the_page(tmp_path: Path, whole: Path) -> None:
    text = page_of(tmp_path, whole)
    assert "<script>alert" not in text
    assert "</script><script>alert(1)</script> & more" in unescape(text)
    assert re.search(
        r"default-src 'none'[^>]*script-src 'sha256-[^']{44}' 'sha256-[^']{44}'\"", text
    )


def test_a_search_without_a_candidate(tmp_path: Path) -> None:
    text = words(page_of(tmp_path, write_search(tmp_path, [], planned=8)))
    assert "stopped at 0 of 8" in text and "No candidate is trained yet." in text
    assert "No candidate has come to its end yet" in text and "there is no front" in text


def test_a_search_in_which_all_failed(tmp_path: Path) -> None:
    records = [failed(row, index, "out of memory") for index, row in enumerate(ROWS[:3])]
    text = page_of(tmp_path, write_search(tmp_path, records))
    assert "All of them failed, for the reasons below." in words(text)
    assert "3 of the candidates failed" in words(text) and text.count("out of memory") == 3
    assert "Every candidate failed so far" in words(text)


def test_a_search_with_one_candidate(tmp_path: Path) -> None:
    text = words(page_of(tmp_path, write_search(tmp_path, [record_of(BEST, 0)])))
    assert "1 network was tried" in text and "The best one side by side" not in text


def test_what_was_confirmed_and_how(tmp_path: Path) -> None:
    records = [record_of(row, index) for index, row in enumerate(ROWS[:8])]
    folder = write_search(tmp_path, records)
    first, second = sorted(records, key=lambda record: -(record.reward or 0.0))[:2]
    assert first.reward and second.reward
    worse = first.reward - 0.2
    write_about(folder, 1.7e9, 8, {}, Race(candidates=2, max_seeds=3, top=1))
    with Journal.open(folder / "journal.jsonl") as journal:
        text = words(page_of(tmp_path, folder))
        assert "running, 8 of 8, confirming the best" in text
        journal.append(confirmation(first.id, 1, worse))
    text = words(page_of(tmp_path, folder))
    assert "stopped at 8 of 8, confirming the best" in text
    with Journal.open(folder / "journal.jsonl") as journal:
        journal.append(confirmation(second.id, 1, None))
        for run in (2, 3):
            journal.append(confirmation(first.id, run, worse))
            journal.append(confirmation(second.id, run, second.reward))
    text = words(page_of(tmp_path, folder))
    assert "complete" in text and "confirming" not in text
    # The second has the better mean.
    assert f"The best, {second.id}, has a reward of {second.reward:.4f}" in text
    assert "2 of the best were trained again with other seeds, in 6 trainings, 1 of which" in text
    assert "± is a mean's standard error." in text
    assert f"{second.index + 1}, seed 1 {second.id} no luck" in text
    assert re.search(r"mean of 4 seeds ± 0\.0\d+", text) and "mean of 3 seeds ±" in text


def test_a_search_that_was_not_confirmed_says_nothing_of_it(tmp_path: Path, whole: Path) -> None:
    text = words(page_of(tmp_path, whole))
    assert "trained again" not in text and "seeds ±" not in text


def test_many_failures_are_counted(tmp_path: Path) -> None:
    networks = [sample(np.random.default_rng(index)) for index in range(25)]
    records = [
        failed({**ROWS[0], "id": one.id, "genotype": json.dumps(one.to_dict())}, index, "none")
        for index, one in enumerate(networks)
    ]
    assert "and 5 more" in words(page_of(tmp_path, write_search(tmp_path, records)))


def test_whether_it_runs(tmp_path: Path) -> None:
    records = [record_of(row, index) for index, row in enumerate(ROWS[:3])]
    folder = write_search(tmp_path, records, planned=8)
    with Journal.open(folder / "journal.jsonl"):
        text = words(page_of(tmp_path, folder))
    assert "running, 3 of 8" in text and "reload it" in text
    text = words(page_of(tmp_path, folder))
    assert "stopped at 3 of 8" in text and "goes on from here" in text
    # A later command wanted more, or less.
    write_about(folder, 1.7e9, 3, {"commit": "abc123"})
    text = words(page_of(tmp_path, folder))
    assert "complete" in text and "commit abc123" in text
    write_about(folder, 1.8e9, 20, {})
    text = words(page_of(tmp_path, folder))
    assert "stopped at 3 of 20" in text and "begun 2023-11-1" in text


def test_full_trainings_with_their_spread(tmp_path: Path, whole: Path) -> None:
    best = max(ROWS[:10], key=lambda row: row["quality"])["id"]
    for seed, score in ((0, 0.60), (1, 0.64)):
        write_training(tmp_path, best, best, score, seed=seed)
    named = write_training(tmp_path, "arch0", "c0d7639bffbf", 0.58)
    # Of other data, of another search, and one that is not scored.
    write_training(tmp_path, "arch1", "0123456789ab", 0.89, data="other")
    write_training(tmp_path, "ffffffffffff", "ffffffffffff", 0.89)
    write_training(tmp_path, "camvid0", "50b8856ae2bb", None)
    sheet = named / "pictures" / "contact_sheet.png"
    sheet.parent.mkdir()
    Image.fromarray(np.full((60, 80, 3), 99, np.uint8)).save(sheet)
    text = page_of(tmp_path, whole)
    assert (
        f"trained fully, {best} scores 62.0 % [60.0 to 64.0] final mIoU, 4.0 points above arch0"
        in (words(text))
    )
    assert "ffffffffffff" not in words(text) and "89.0\N{NO-BREAK SPACE}%" not in text
    assert "camvid0 226,939 1.34 50.0 % not scored yet 1 train 2" in words(text)
    assert "data:image/webp;base64," in text and "it holds images of the data set" in text
    charts = data_of(text)["charts"]
    bars = {trace["name"]: trace for trace in charts["class_iou"][0]["data"]}
    assert bars[best]["y"] == ["road", "sky"] and bars[best]["x"] == pytest.approx([72, 52])
    assert bars[best]["error_x"]["array"] == pytest.approx([2, 2])
    (matrix,) = charts["confusion"][0]["data"]
    assert matrix["z"] == [[90.0, 10.0], [None, None]]


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (lambda folder, training: (training / "training.json").write_text("{"), "training.json"),
        (lambda folder, training: (training / "test.json").write_text("[]"), "test.json"),
        (
            lambda folder, training: (training / "test.json").write_text('{"class_iou": {}}'),
            "delete it to test again",
        ),
        (
            lambda folder, training: candidate_files(folder, BEST["id"])["losses"].unlink(),
            f"no losses of {BEST['id']}",
        ),
    ],
    ids=["training", "scores", "mean score", "losses"],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, spoil: Callable[[Path, Path], None], note: str
) -> None:
    folder = write_search(tmp_path, [record_of(BEST, 0)])
    training = write_training(tmp_path, "arch0", "c0d7639bffbf", 0.5)
    spoil(folder, training)
    text = words(page_of(tmp_path, folder))
    assert "Not shown" in text and note in text


def test_a_journal_with_other_settings_than_todays(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "searches" / "old"
    strange: dict[str, Any] = {"search": ["ppo"], "network": 1, "gone": {"key": 2}}
    header = Header(format=FORMAT, settings=strange, identity={})
    with Journal.create(folder / "journal.jsonl", header) as journal:
        journal.append(record_of(BEST, 0))
    text = words(page_of(tmp_path, folder))
    assert "complete" in text and "gone.key 2" in text


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("about.json", ": began: "),
        ("test_confusion_matrix.csv", " is damaged: no confusion matrix of arch0"),
        ("contact_sheet.png", " is damaged: no pictures of arch0"),
        ("architecture.svg", f" is damaged: no drawing of {BEST['id']}"),
    ],
)
def test_what_is_damaged_is_named_and_left_out(tmp_path: Path, name: str, note: str) -> None:
    folder = write_search(tmp_path, [record_of(BEST, 0)])
    training = write_training(tmp_path, "arch0", "c0d7639bffbf", 0.5)
    assert "Not shown" not in words(page_of(tmp_path, folder)), "what is missing is no damage"
    path = {
        "about.json": folder / name,
        "architecture.svg": drawing_file(folder, BEST["id"]),
        "contact_sheet.png": training / "pictures" / name,
    }.get(name, training / name)
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"began": "yesterday"}')
    text = page_of(tmp_path, folder)
    assert "complete" in words(text) and "data:image/webp" not in text
    assert f"{path}{note}" in words(text)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        drawing(BEST["id"]).encode()[:-9],
        b"<html></html>",
        b'<?xml version="1.0" encoding="x"?><svg/>',
        b"\x89PNG",
    ],
)
def test_drawings_that_are_none(tmp_path: Path, content: bytes) -> None:
    folder = write_search(tmp_path, [record_of(BEST, 0)])
    path = drawing_file(folder, BEST["id"])
    path.write_bytes(content)
    text = page_of(tmp_path, folder)
    assert f"{path} is damaged" in words(text) and data_of(text)["drawings"] == {}


def test_counts_of_pixels_below_0_are_damage(tmp_path: Path) -> None:
    folder = write_search(tmp_path, [record_of(BEST, 0)])
    training = write_training(tmp_path, "arch0", "c0d7639bffbf", 0.5)
    (training / "test_confusion_matrix.csv").write_text("truth,road,sky\nroad,9,-1\nsky,0,0\n")
    assert "test_confusion_matrix.csv is damaged" in words(page_of(tmp_path, folder))


@pytest.mark.parametrize("race", [(-1, 3, 1), (2, 0, 1), (2, 3, 0)])
def test_a_race_that_cannot_be(race: tuple[int, int, int]) -> None:
    with pytest.raises(ValidationError):
        Race(candidates=race[0], max_seeds=race[1], top=race[2])


def test_settings_that_differ() -> None:
    defaults = Settings().model_dump(mode="json")
    assert changed_settings(defaults) == []
    changed = Settings.model_validate({"seed": 3, "train": {"also": ("arch1",)}})
    found = changed_settings({**changed.model_dump(mode="json"), "gone": {"key": True}})
    assert found == [
        ("seed", "3", "0"), ("train.also", "['arch1']", "['arch0']"), ("gone.key", "True", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "1 h 30 min"), (11100, "3 h 05 min"),
     (190000, "2 d 4 h")],
)  # fmt: skip
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_wheel_holds_the_templates() -> None:
    """What is no module must be named in pyproject.toml."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    others = {
        path
        for part in ("nas_core", "tasks", "flows")
        for path in (ROOT / part).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    packed = {
        path
        for package, patterns in built["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    assert others and others == packed


def settings_of(**search: Any) -> Settings:
    changes = {"batch_size": 2, "num_candidates": 5, **search}
    return validate_settings({**PARAMS, "search": {**PARAMS["search"], **changes}}, "test")


@pytest.fixture
def search(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Search]:
    monkeypatch.setattr(loop, "score_candidate", stand_in)
    root = shutil.copytree(prepared, tmp_path / "project")
    with Search.open(settings_of(), root, InProcessWorkers()) as search:
        yield search


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw a network takes longer than all the rest."""
    monkeypatch.setattr("nas_core.analysis.report.sources._draw", lambda *_: b"<svg/>")


class Seen(LiveReport):
    """Remembers what each page said of how far the search is."""

    def on_written(self, path: Path, facts: Any) -> None:
        text = words(path.read_text())
        self.said = [*getattr(self, "said", []), re.findall(r"running, \d of \d|complete", text)[0]]


def test_the_page_is_written_at_the_beginning_after_rounds_and_at_the_end(
    search: Search, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas_core.analysis.report.live.LARGEST_SHARE", 1e9)
    seen = Seen(origin={"commit": "abc"})
    search.run([seen])
    assert seen.said == ["running, 0 of 5", "running, 2 of 5", "running, 4 of 5", "complete"]
    assert "commit abc" in words(page_of(search.root, search.folder))


def test_what_is_not_drawn_yet_is_drawn_once(search: Search) -> None:
    search.run()
    for _ in range(2):
        drawings = data_of(page_of(search.root, search.folder))["drawings"]
        assert set(drawings) == {record.id for record in search.candidates}
    for record in search.candidates:
        path = search.folder / "candidates" / record.id / "architecture.svg"
        assert gzip.decompress(base64.b64decode(drawings[record.id])) == path.read_bytes()
        assert f"{record.num_parameters:,} parameters" in path.read_text()


def test_a_damaged_drawing_is_made_anew(search: Search) -> None:
    search.run()
    page_of(search.root, search.folder)
    best = max(search.candidates, key=lambda record: record.reward or 0.0)
    path = drawing_file(search.folder, best.id)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert f"{path} is damaged: it is drawn anew" in words(page_of(search.root, search.folder))
    assert path.read_bytes() == whole


def test_short_rounds_are_not_held_up(search: Search, undrawn: None) -> None:
    seen = Seen()
    search.run([seen])
    assert seen.said == ["running, 0 of 5", "complete"]


def test_a_page_that_cannot_be_written_is_told_and_the_search_goes_on(
    search: Search, undrawn: None, caplog: pytest.LogCaptureFixture
) -> None:
    (search.folder / "report.html").mkdir()
    (search.folder / "about.json").mkdir()
    with caplog.at_level(logging.WARNING):
        found = search.run([LiveReport()])
    assert len(found) == 5
    told = [record.message for record in caplog.records if "is not written" in record.message]
    assert any("report.html" in message for message in told)
    assert any("about.json" in message for message in told)
    assert all("the search goes on" in message for message in told)


def test_nas_report_and_status_do_not_wait_for_torch() -> None:
    code = (
        "import sys, flows.cli.overview, nas_core.analysis.report.search_page;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_page_of_a_search_of_many_is_small(tmp_path: Path) -> None:
    """Beside Plotly's script, which is 4.8 MB."""
    folder = write_search(
        tmp_path, [record_of(row, i) for i, row in enumerate(real_candidates(150))]
    )
    size = write_search_page(tmp_path, folder).stat().st_size
    assert size - len(get_plotlyjs().encode()) < 500_000


def test_an_unreadable_journal_is_an_error(tmp_path: Path) -> None:
    folder = write_search(tmp_path, [])
    (folder / "journal.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match=r"journal\.jsonl, line 1"):
        write_search_page(tmp_path, folder)
    assert not (folder / "report.html").exists()
