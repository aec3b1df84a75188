"""What a search spends on anything but training: Prefect, MLflow, journal, files.

python -m benchmarks.overhead [--run NAME] [--json]

Reads a search that ran without interruption. From the end of its first candidate to the end of
its last one, what is not training or validation is overhead.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from benchmarks.command import AsJson, errors_in_words
from nas_core.analysis.leaderboard import read_search
from nas_core.base.errors import RunError
from nas_core.base.paths import searches_folder
from nas_core.base.project import project_dir
from nas_core.search.candidate_files import candidate_files


def measure(run: str | None) -> dict[str, float | str]:
    """Seconds and share of overhead of a search."""
    searches = searches_folder(project_dir())
    name, records = read_search(searches, run)
    scored = [record for record in records if record.is_scored]
    if len(scored) < 2:
        raise RunError(f"{name} has {len(scored)} scored candidates: two or more are needed")
    ends = [candidate_files(searches / name, r.id)["weights"].stat().st_mtime for r in scored]
    whole = ends[-1] - ends[0]
    training = sum(sum(record.seconds.values()) for record in scored[1:])
    return {
        "search": name,
        "candidates": len(scored) - 1,
        "seconds": whole,
        "overhead_seconds_per_candidate": (whole - training) / (len(scored) - 1),
        "overhead_share": 1 - training / whole,
    }


@errors_in_words
def main(
    run: Annotated[str | None, typer.Option(help="Folder name in artifacts/searches.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the overhead of a finished search."""
    figures = measure(run)
    if as_json:
        print(json.dumps(figures))
        return
    each = figures["overhead_seconds_per_candidate"]
    print(f"{figures['search']}: {figures['candidates']} candidates in {figures['seconds']:.0f} s")
    print(f"overhead: {figures['overhead_share']:.1%}, {each:.2f} s a candidate")


if __name__ == "__main__":
    typer.run(main)
