"""The flow run that began last, as a Prefect server tells it. Without Prefect: it takes a second to
import."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from nas_core.base.errors import first_line
from nas_core.base.times import moment

SECONDS_TO_ANSWER = 3.0


class _State(BaseModel):
    type: str
    name: str
    message: str | None = None
    timestamp: datetime


class _Run(BaseModel):
    id: str
    name: str
    state: _State | None = None


_RUNS = TypeAdapter(list[_Run])


def latest_run(api_url: str) -> str | None:
    """What became of it in words, None if that was nothing but its end.

    Args:
        api_url: of a server of this machine.
    """
    now = datetime.now(UTC).isoformat()
    try:
        answer = httpx.post(
            f"{api_url}/flow_runs/filter",
            json={
                "sort": "EXPECTED_START_TIME_DESC",
                "limit": 1,
                "flow_runs": {
                    "expected_start_time": {"before_": now},
                    "parent_task_run_id": {"is_null_": True},
                },
            },
            timeout=SECONDS_TO_ANSWER,
            trust_env=False,
        )
        runs = _RUNS.validate_json(answer.raise_for_status().content)
    except (httpx.HTTPError, ValidationError) as error:
        return f"Prefect does not say: {first_line(error)}"
    run = runs[0] if runs else None
    if run is None or run.state is None or run.state.type == "COMPLETED":
        return None
    said = f": {first_line(run.state.message)}" if run.state.message else ""
    when = moment(run.state.timestamp.timestamp())
    page = f"{api_url.removesuffix('/api')}/runs/flow-run/{run.id}"
    return f"{run.name}, {run.state.name.lower()} since {when}{said} ({page})"
