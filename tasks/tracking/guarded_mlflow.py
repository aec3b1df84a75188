"""MLflow's server behind the guard; its command finds it by the entry point in pyproject.toml."""

from __future__ import annotations

from tasks.guard import Guard, guarded

MLFLOW_APP = "nas-guarded"  # the name of the entry point


def mlflow_app() -> Guard:
    """MLflow's server."""
    from mlflow.server.fastapi_app import app

    return guarded(app)
