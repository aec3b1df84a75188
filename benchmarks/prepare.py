"""How long a dataset takes to prepare, and to find that it is prepared already.

python -m benchmarks.prepare --data DIR [--json]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, errors_in_words
from nas_core.config import DatasetSettings
from nas_core.data.preparing import prepare


def measure(source: Path, folder: Path) -> dict[str, float]:
    """Prepare `source` twice into `folder`; the second time must write nothing."""
    dataset = DatasetSettings(kind="camvid", path=str(source.resolve()))
    start = time.perf_counter()
    data = prepare(dataset, source, folder)
    first = time.perf_counter()
    written = _state(folder)
    again = time.perf_counter()
    prepare(dataset, source, folder)
    second = time.perf_counter()
    return {
        "seconds": first - start,
        "images": sum(len(split) for split in data.splits.values()),
        "megabytes": sum(size for _, size, _ in written) / 1e6,
        "second_seconds": second - again,
        "second_writes_nothing": _state(folder) == written,
    }


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change of every file."""
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in files]


@errors_in_words
def main(
    data: Annotated[Path, typer.Option(help="Folder of a dataset in CamVid's layout.")],
    as_json: AsJson = False,
) -> None:
    """Time the preparation of a dataset into a temporary folder."""
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(data, Path(temporary) / "prepared")
    if as_json:
        print(json.dumps(figures))
    else:
        table = Table("work", "seconds", "", title=f"prepare {data}")
        size = f"{figures['images']} images, {figures['megabytes']:.0f} MB"
        table.add_row("decode and write", f"{figures['seconds']:.2f}", size)
        outcome = "nothing written" if figures["second_writes_nothing"] else "WRITTEN AGAIN"
        table.add_row("prepare again", f"{figures['second_seconds']:.2f}", outcome)
        Console().print(table)
    if not figures["second_writes_nothing"]:
        sys.exit("the second prepare wrote files: it must find the first one's work up to date")


if __name__ == "__main__":
    typer.run(main)
