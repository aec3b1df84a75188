import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running
from rich.console import Console

from flows.cli.watch import live_view, progress_of
from nas_core.config import Settings
from nas_core.search.journal import Record
from tasks.progress_bars import SearchProgress, TrainingProgress
from tests.nas_core.analysis.searches import real_candidates, record_of

LOGGER = logging.getLogger(__name__)


def search_of(records: list[Record]) -> Any:
    settings = Settings.model_validate({"search": {"num_candidates": 4}})
    journal = SimpleNamespace(candidates=records, confirmations=[])
    return SimpleNamespace(folder=Path("tiny_1-abc"), settings=settings, journal=journal)


def test_bars_grow_with_the_candidates_and_the_epochs(prefect_server: str) -> None:
    rows = real_candidates(4)
    records: list[Record] = []
    seen: list[list[tuple[float, str]]] = []

    @flow
    def searching() -> None:
        def look() -> None:
            with get_client(sync_client=True) as client:
                seen.append(progress_of(client, UUID(str(flow_run.id))))

        search = SearchProgress(LOGGER)
        search.on_begin(search_of(records))
        look()
        for number in range(4):
            records.append(record_of(rows[number], number))
            search.on_record(records[-1])
        look()
        training = TrainingProgress(LOGGER, "arch0", "c0d7639bffbf", 4)
        training.on_epoch({"epoch": 1.0, "val_mean_iou": 0.5})
        training.on_epoch({"epoch": 2.0})
        look()
        for number in range(4):
            TrainingProgress(LOGGER, f"net{number}", "c0d7639bffbf", 1).on_epoch({"epoch": 1.0})
        look()

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        searching()
    best = max(records, key=lambda record: record.reward or 0)
    candidates = (100.0, f"4 of 4 candidates; best reward {best.reward:.4f} ({best.id[:6]})")
    assert seen[:3] == [
        [(0.0, "0 of 4 candidates")],
        [candidates],
        [candidates, (50.0, "arch0: epoch 2 of 4; val mIoU 50.0 %")],
    ]
    assert [words.partition(":")[0] for _, words in seen[3]] == ["net1", "net2", "net3"]


@pytest.mark.parametrize("width", [40, 80])
def test_the_live_view_has_a_line_a_bar(width: int) -> None:
    """One that wraps would be left behind on the screen."""
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="synthetic · all", state=Running())
    bars = [(25.0, "2 of 8 candidates; best reward 0.5799 (e67f20)"), (50.0, "arch0: " + "x" * 99)]
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(live_view(run, bars, "Beginning flow run"))
    state, *lines = console.file.getvalue().splitlines()
    assert "synthetic · all · Running" in state and "Beginning" not in state
    assert ["2 of 8" in lines[0], "arch0" in lines[1], len(lines)] == [True, True, 2]
    console.print(live_view(run, [], "A line of the log" * 9))
    assert len(console.file.getvalue().splitlines()) == 4
    assert max(map(len, console.file.getvalue().splitlines())) <= width


def test_a_search_goes_on_where_prefect_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        progress = SearchProgress(LOGGER)
        progress.on_begin(search_of([]))
        progress.on_end()
    (message,) = caplog.messages
    assert message.startswith("Prefect shows no progress: ")
