"""How MLflow's pages show a record: the kind of the experiment, and views of its candidates.

A view is the state of MLflow's page of runs, as JSON in the experiment's tag
`mlflow.sharedViewState.KEY`; the address that ends in `?viewStateShareKey=KEY` opens it. In an
envelope with a name the page also lists it under "Views", which holds no more than 40. MLflow
has no call for this; the form is that of its page in version 3.17.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nas_core.search.about import read_about

if TYPE_CHECKING:  # it takes seconds to import, and an address needs none of it
    from mlflow import MlflowClient

CANDIDATES = "candidates"
"""The key of the view of all candidates of an experiment."""
EXPERIMENT = "mlflow_experiment"
"""The key of the experiment's id in a search's about.json."""
NOTE_TAG = "mlflow.note.content"
STATUS_TAG = "status"

# What counts, in this order, with widths in pixels that show the headings; the page shows the name
# of a run before.
COLUMNS = {
    "metrics.`reward`": 95,
    "metrics.`mean_iou`": 95,
    "metrics.`num_parameters`": 135,
    "metrics.`gmacs`": 85,
    "metrics.`latency_ms`": 95,
    f"tags.`{STATUS_TAG}`": 110,
}
# Else the pages of 3.17 open in the form that is for language models.
_MODEL_TRAINING = "workflowType=machine_learning"
_IS_CANDIDATE = "tags.`nas.kind` = 'candidate'"
_VIEW_TAG = "mlflow.sharedViewState."
_COSTS = ("num_parameters", "gmacs", "latency_ms")
_FIRST_SECTION = "quality and cost"
# MLflow's own name for the section of all other metrics; without it the page drops them.
_MODEL_METRICS = "Model metrics"


def prepare_pages(client: MlflowClient, experiment_id: str) -> None:
    """Have MLflow open the experiment as model training, with a view of its candidates.

    What is set there already, as by hand, stays.
    """
    experiment = client.get_experiment(experiment_id)
    now = round(time.time() * 1000)
    envelope = {
        "name": "Candidates by reward",
        "createdAt": now,
        "updatedAt": now,
        "state": json.dumps(_state(_IS_CANDIDATE)),
    }
    wanted = {
        # The pages of 3.17 ask the address or the switch on them instead, see `view_path`.
        "mlflow.experimentKind": "custom_model_development",
        NOTE_TAG: (
            # One line: the page folds the rest away.
            f"Searches on `{experiment.name}`. **Views** has the candidates by reward; the chart "
            "view shows them against their cost."
        ),
        _VIEW_TAG + CANDIDATES: json.dumps(envelope),
    }
    _set_missing(client, experiment_id, experiment.tags, wanted)


def add_search_view(client: MlflowClient, experiment_id: str, search: str, run_id: str) -> None:
    """A view of the candidates of one search, at `view_path` of its name.

    Args:
        run_id: the search's run, below which they are.
    """
    state = json.dumps(_state(f"{_IS_CANDIDATE} and tags.`mlflow.parentRunId` = '{run_id}'"))
    client.set_experiment_tag(experiment_id, _VIEW_TAG + search, state)


def view_path(experiment_id: str, key: str = CANDIDATES) -> str:
    """Where a view opens, as model training: what follows the address of MLflow's pages."""
    return f"/#/experiments/{experiment_id}/runs?{_MODEL_TRAINING}&viewStateShareKey={quote(key)}"


def run_path(experiment_id: str, run_id: str, artifact: str = "") -> str:
    """Where a run or one of its artifacts opens: what follows the address of MLflow and a slash."""
    place = f"/artifacts/{quote(artifact)}" if artifact else ""
    return f"#/experiments/{experiment_id}/runs/{run_id}{place}?{_MODEL_TRAINING}"


def search_view(folder: Path) -> str | None:
    """`view_path` of the search in `folder`, None before it is in MLflow."""
    about = read_about(folder)
    experiment = about and about.origin.get(EXPERIMENT)
    return view_path(experiment, folder.name) if experiment else None


def latest_search_view(searches: Path) -> str | None:
    """`search_view` of the search that was written to last, None if there is none."""
    journals = sorted(searches.glob("*/journal.jsonl"), key=lambda path: path.stat().st_mtime)
    return search_view(journals[-1].parent) if journals else None


def _set_missing(
    client: MlflowClient, experiment_id: str, there: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    for key, value in wanted.items():
        if key not in there:
            client.set_experiment_tag(experiment_id, key, value)


def _state(chosen: str) -> dict[str, Any]:
    """The page's state: these runs by reward, and charts of reward against each cost."""
    return {
        "searchFilter": chosen,
        "orderByKey": "metrics.`reward`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(COLUMNS),
        "columnWidths": COLUMNS,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [*(_scatter(cost) for cost in _COSTS), _parallel()],
        "compareRunSections": [
            _section(_FIRST_SECTION),
            _section(_MODEL_METRICS, display=False),
        ],
    }


def _scatter(metric: str) -> dict[str, Any]:
    return {
        **_chart("SCATTER", f"reward-{metric}"),
        "xaxis": {"key": metric, "type": "METRIC"},
        "yaxis": {"key": "reward", "type": "METRIC"},
        "runsCountToCompare": 500,
    }


def _parallel() -> dict[str, Any]:
    return {
        **_chart("PARALLEL", "reward-costs"),
        "selectedParams": [],
        "selectedMetrics": ["num_parameters", "gmacs", "mean_iou", "reward"],
        "showAllRuns": True,
        "runsCountToCompare": 500,
    }


def _chart(kind: str, key: str) -> dict[str, Any]:
    return {
        "uuid": key,
        "type": kind,
        "metricSectionId": _FIRST_SECTION,
        "deleted": False,
        "isGenerated": False,
    }


def _section(name: str, display: bool = True) -> dict[str, Any]:
    return {
        "uuid": name,
        "name": name,
        "display": display,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
    }
