"""The page of a search, written while it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from nas_core.analysis.report.search_page import write_search_page
from nas_core.analysis.report.sources import write_about
from nas_core.base.errors import NasError, first_line
from nas_core.base.logs import Logger
from nas_core.search.loop import Observer, Search

log = logging.getLogger(__name__)

# Rounds may be shorter than it takes to write the page: a search is to train.
LARGEST_SHARE = 0.05


class LiveReport(Observer):
    """Writes the page of a search at its beginning, after rounds, and at its end.

    A page that cannot be written is told of, and the search goes on.
    """

    def __init__(self, logger: Logger = log, about: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            about: what the page tells of the search's origin: `commit`, `device`, `data_hash`, and
                `version.NAME` of packages; see `sources.write_about`.
        """
        self.logger, self.about = logger, dict(about or {})
        self._not_before = 0.0

    def on_begin(self, search: Search) -> None:
        self.search = search
        self._try(self._begin)

    def on_round(self, number: int, diagnostics: dict[str, float]) -> None:
        if time.monotonic() >= self._not_before:
            self._try(self._write)

    def on_end(self) -> None:
        self._try(self._write)

    def on_written(self, path: Path) -> None:
        """The page is there, or there anew. To be overridden."""

    def _begin(self) -> None:
        planned = self.search.settings.search.num_candidates
        write_about(self.search.folder, time.time(), planned, self.about)
        self._write()

    def _write(self) -> None:
        started = time.monotonic()
        path = write_search_page(self.search.root, self.search.folder)
        self.on_written(path)
        took = time.monotonic() - started
        self._not_before = time.monotonic() + took / LARGEST_SHARE

    def _try(self, write: Any) -> None:
        try:
            write()
        except (NasError, OSError, ValueError, TemplateError) as error:
            self.logger.warning(
                "the page of the search is not written: %s; the search goes on, and `nas report` "
                "writes it later",
                first_line(error, 500),
            )
