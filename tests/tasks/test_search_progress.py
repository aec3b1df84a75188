import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from nas_core.config import Settings
from nas_core.search.journal import Record
from tasks.search_progress import ProgressBar
from tests.nas_core.analysis.searches import real_candidates, record_of

LOGGER = logging.getLogger(__name__)


def search_of(records: list[Record]) -> Any:
    settings = Settings.model_validate({"search": {"num_candidates": 4}})
    journal = SimpleNamespace(candidates=records)
    return SimpleNamespace(folder=Path("tiny_1-abc"), settings=settings, journal=journal)


def test_the_bar_grows_with_the_candidates(prefect_server: str) -> None:
    rows = real_candidates(4)
    records: list[Record] = []
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        bar = ProgressBar(LOGGER)
        bar.on_begin(search_of(records))
        for number, share in enumerate((25, 50, 75, 100)):
            records.append(record_of(rows[number], number))
            bar.on_record(records[-1])
            with get_client(sync_client=True) as client:
                (artifact,) = [
                    one
                    for one in client.read_artifacts()
                    if one.type == "progress" and one.key == "progress-tiny-1-abc"
                ]
            assert artifact.data == share
    best = max(record.reward or 0 for record in records)
    assert str(artifact.description).startswith(
        f"tiny_1-abc: 4 of 4 candidates; best reward {best:.4f} ("
    )


def test_a_search_goes_on_where_prefect_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        bar = ProgressBar(LOGGER)
        bar.on_begin(search_of([]))
        bar.on_end()
    (message,) = caplog.messages
    assert message.startswith("Prefect shows no progress: ")
