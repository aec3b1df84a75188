"""A flow with parameters like those of nas-search, which only says where and with what it runs."""

import json
import os
import sys
import time
from pathlib import Path

from prefect import flow, get_run_logger

from nas_core.base.project import project_dir
from nas_core.config import SearchSettings


@flow(name="nas-search")
def standin(
    profile: str = "camvid",
    stage: str = "all",
    seed: int | None = None,
    search: SearchSettings = SearchSettings(),
    seconds: float = 0,
    fail: bool = False,
) -> None:
    """Stand in for the search.

    This is not shown.
    """
    place = {
        "project": os.environ.get("NAS_PROJECT_DIR"),
        "root": str(project_dir()),
        "folder": str(Path.cwd()),
        "python": sys.executable,
        "profile": profile,
        "stage": stage,
        "seed": seed,
        "search": search.model_dump(mode="json", exclude_unset=True),
    }
    (project_dir() / "place.json").write_text(json.dumps(place))
    get_run_logger().info("candidate 1 of 2")
    if fail:
        raise ValueError("the reason")
    try:
        time.sleep(seconds)
    finally:
        (project_dir() / "ended.txt").write_text("cleanly")
