"""The page of a search, kept in MLflow and linked from Prefect."""

from __future__ import annotations

from pathlib import Path

import httpx
from prefect.artifacts import create_markdown_artifact

from nas_core.analysis.report.live import LiveReport
from nas_core.analysis.report.search_page import state_words, summary
from nas_core.analysis.report.sources import SearchFacts
from nas_core.base.errors import ServiceError, first_line
from nas_core.base.logs import Logger
from tasks.tracking.tracker import Tracker


class SearchReport(LiveReport):
    """Writes the page, puts it into the search's run in MLflow, and a link to it into Prefect.

    Where a server is away, the page lies on the disk alone until it is written the next time.
    """

    def __init__(self, tracker: Tracker, logger: Logger, mlflow: str | None) -> None:
        """
        Args:
            mlflow: address of MLflow's pages, None if there is none.
        """
        about = {key: value for key, value in tracker.tags.items() if "mlflow" not in key[:6]}
        super().__init__(logger, about)
        self.tracker, self.mlflow = tracker, mlflow
        self._told = False
        self._linked: tuple[str, int] | None = None

    def on_written(self, path: Path, facts: SearchFacts) -> None:
        run_id = self._record(path, facts.name)
        # Each artifact of Prefect is kept: not one a round.
        told = (facts.state, len(facts.trained))
        if told != self._linked:
            self._link(path, facts, run_id)
            self._linked = told

    def _record(self, path: Path, search: str) -> str | None:
        try:
            run_id = self.tracker.search_run(search)
            if run_id:
                self.tracker.log_search_file(run_id, path)
            return run_id
        except ServiceError as error:
            if not self._told:
                self.logger.warning("%s; the page of the search is not there yet", error)
                self._told = True
            return None

    def _link(self, path: Path, facts: SearchFacts, run_id: str | None) -> None:
        lines = [
            f"**{facts.name}** · {state_words(facts)}",
            summary(facts),
            f"- the page of the search: `{path}` on the machine that searches; "
            f"`nas report {facts.name} --open` opens it there",
        ]
        if self.mlflow and run_id:
            page = f"{self.mlflow}/#/experiments/{self.tracker.experiment_id}/runs/{run_id}"
            lines.append(
                f"- in MLflow: [the page]({page}/artifacts/{path.name}), [the search]({page})"
            )
        try:
            create_markdown_artifact(
                "\n\n".join(lines),
                key=f"search-{facts.name.replace('_', '-')}",
                description=f"What {facts.name} found, and where to see it",
            )
        except httpx.HTTPError as error:
            self.logger.warning("Prefect has no link to %s: %s", path, first_line(error))
