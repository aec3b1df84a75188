"""The page of a search, written while it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jinja2 import TemplateError

from nas_core.analysis.report.search_page import write_facts
from nas_core.analysis.report.sources import SearchFacts, read_search_facts
from nas_core.base.errors import NasError, first_line
from nas_core.base.logs import Logger
from nas_core.search.about import write_about
from nas_core.search.confirming import race_of
from nas_core.search.journal import Confirmation
from nas_core.search.loop import Observer, Search

log = logging.getLogger(__name__)

# Rounds may be shorter than it takes to write the page: a search is to train.
LARGEST_SHARE = 0.05


class LiveReport(Observer):
    """Writes the page of a search at its beginning, now and then, and at its end.

    A page that cannot be written is told of, and the search goes on.
    """

    def __init__(self, logger: Logger = log, origin: Mapping[str, str] | None = None) -> None:
        """
        Args:
            origin: what the page tells of the search's origin: `commit`, `device`, `data_hash`, and
                `version.NAME` of packages; see `about.About`.
        """
        self.logger, self.origin = logger, dict(origin or {})
        self._not_before = 0.0

    def on_begin(self, search: Search) -> None:
        self.search = search
        planned, race = search.settings.search.num_candidates, race_of(search.settings)
        with self._telling():
            write_about(search.folder, time.time(), planned, self.origin, race)
        self.write(search.root, search.folder)

    def on_round(self, number: int, diagnostics: dict[str, float]) -> None:
        self._write_now_and_then()

    def on_confirmation(self, confirmation: Confirmation) -> None:
        self._write_now_and_then()

    def _write_now_and_then(self) -> None:
        if time.monotonic() >= self._not_before:
            self.write(self.search.root, self.search.folder)

    def on_end(self) -> None:
        self.write(self.search.root, self.search.folder)

    def on_written(self, path: Path, facts: SearchFacts) -> None:
        """The page is there, or there anew. To be overridden."""

    def write(self, root: Path, folder: Path) -> None:
        """Write the page of the search in `folder`; see `search_page.write_search_page`."""
        started = time.monotonic()
        with self._telling():
            facts = read_search_facts(root, folder)
            self.on_written(write_facts(facts), facts)
        ended = time.monotonic()
        self._not_before = ended + (ended - started) / LARGEST_SHARE

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (NasError, OSError, ValueError, TemplateError) as error:
            self.logger.warning(
                "the page of the search is not written: %s; the search goes on, and `nas report` "
                "writes it later",
                first_line(error, 500),
            )
