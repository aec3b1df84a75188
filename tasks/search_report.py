"""The page of a search, kept in MLflow and linked from Prefect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pandas as pd
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from nas_core.analysis.report.live import LiveReport
from nas_core.analysis.report.page import percent
from nas_core.analysis.report.search_page import state_words, summary
from nas_core.analysis.report.sources import SearchFacts
from nas_core.base.errors import ServiceError
from nas_core.base.logs import Logger
from nas_core.search.candidate_files import drawing_file
from tasks.progress_bars import Courier
from tasks.tracking.notes import artifact_link
from tasks.tracking.tracker import Tracker
from tasks.tracking.views import EXPERIMENT, run_path, view_path

_SEARCH = "A search"


class LinkedReport(LiveReport):
    """Writes the page, puts it into the search's run in MLflow, and a link to it into Prefect.

    Where a server is away, the page lies on the disk alone until it is written the next time.
    """

    def __init__(self, tracker: Tracker, logger: Logger, mlflow: str | None) -> None:
        """
        Args:
            mlflow: address of MLflow's pages, None if there is none.
        """
        origin = {key: value for key, value in tracker.tags.items() if "mlflow" not in key[:6]}
        super().__init__(logger, origin | {EXPERIMENT: tracker.experiment_id})
        self.tracker, self.mlflow = tracker, mlflow
        self._told = False
        self._courier = Courier(logger, "Prefect has no link to the page of the search")
        self._drawn: str | None = None
        self._artifacts: dict[str, UUID] = {}

    def on_written(self, path: Path, facts: SearchFacts) -> None:
        self._link(path, facts, self._record(path, facts))

    def _record(self, path: Path, facts: SearchFacts) -> str | None:
        try:
            run_id = self.tracker.search_run(facts.name)
            if run_id:
                self.tracker.log_search_file(run_id, path)
                self._describe(run_id, path, facts)
            return run_id
        except ServiceError as error:
            if not self._told:
                self.logger.warning("%s; the page of the search is not there yet", error)
                self._told = True
            return None

    def _describe(self, run_id: str, path: Path, facts: SearchFacts) -> None:
        """What MLflow's page tells of the search, with the drawing of the best so far."""
        page = run_path(self.tracker.experiment_id, run_id, path.name)
        lines = [
            f"{_SEARCH}, {state_words(facts)}. {summary(facts)}",
            f"[All of it on one page]({page})",
        ]
        best = "".join(facts.best["id"].head(1))
        if best in facts.drawings:
            drawing = drawing_file(facts.folder, best)
            if best != self._drawn:
                self.tracker.log_search_file(run_id, drawing)
                self._drawn = best
            lines.append(f"![{best}]({artifact_link(run_id, drawing.name)})")
        self.tracker.describe(run_id, "\n\n".join(lines), over=_SEARCH)

    def _link(self, path: Path, facts: SearchFacts, run_id: str | None) -> None:
        lines = [
            f"**{facts.name}** · {state_words(facts)}",
            summary(facts),
            f"- the page of the search: `{path}` on the machine that searches; "
            f"`nas report {facts.name} --open` opens it there",
        ]
        if self.mlflow and run_id:
            experiment = self.tracker.experiment_id
            view = self.mlflow + view_path(experiment, facts.name)
            lines.append(
                f"- in MLflow: [the candidates by reward]({view}), "
                f"[the page]({self.mlflow}/{run_path(experiment, run_id, path.name)}), "
                f"[the search]({self.mlflow}/{run_path(experiment, run_id)})"
            )
        name = facts.name.replace("_", "-")

        def show() -> None:
            what = f"What {facts.name} found, and where to see it"
            self._show(f"search-{name}", what, "\n\n".join(lines))
            if not facts.best.empty:
                best = f"The best candidates of {facts.name}"
                self._show(f"best-{name}", best, _best_rows(facts))

        self._courier.bring(show, last=facts.state != "running")

    def _show(self, key: str, description: str, data: str | list[dict[str, Any]]) -> None:
        """An artifact of the flow run, the same one each time: Prefect keeps all that are made."""
        if known := self._artifacts.get(key):
            content = data if isinstance(data, str) else json.dumps(data)
            with get_client(sync_client=True) as client:
                client.update_artifact(known, ArtifactUpdate(data=content))
        elif isinstance(data, str):
            made = create_markdown_artifact(data, key=key, description=description)
            self._artifacts[key] = cast(UUID, made)  # in a flow that is not async
        else:
            table = create_table_artifact(data, key=key, description=description)
            self._artifacts[key] = cast(UUID, table)


def _best_rows(facts: SearchFacts) -> list[dict[str, Any]]:
    return [
        {
            "rank": row["rank"],
            "candidate": row["candidate"],
            "id": row["id"],
            "reward": f"{row['reward']:.4f}",
            "mIoU": percent(row["mean_iou"]),
            "parameters": f"{row['num_parameters']:,}",
            "GMACs": f"{row['macs'] / 1e9:.2f}",
            "latency": "" if pd.isna(row["latency_ms"]) else f"{row['latency_ms']:.1f} ms",
            "status": row["status"],
        }
        for row in facts.best.astype(object).to_dict("records")
    ]
