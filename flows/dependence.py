"""What DVC's stages depend on in the code: the stage `code` of dvc.yaml writes it.

python -m flows.dependence

A file for each stage, with a digest of each module that decides its results: so a stage runs again
when one of those changes, and not for a comment.
"""

from __future__ import annotations

from nas_core.base.code import meanings
from nas_core.base.files import write_json
from nas_core.base.paths import artifacts_folder
from nas_core.base.project import project_dir

# Where the work of each stage begins, and what only other stages need.
STAGES = {
    "prepare": (("nas_core.data.preparing", "tasks.dataset"), frozenset[str]()),
    "search": (("flows.search",), frozenset({"flows.trainings", "tasks.dataset"})),
    "train": (("flows.trainings",), frozenset[str]()),
    "evaluate": (("flows.trainings",), frozenset[str]()),
}


def main() -> None:
    """Write artifacts/code/STAGE.json of the project."""
    folder = artifacts_folder(project_dir()) / "code"
    for stage, (entries, without) in STAGES.items():
        write_json(folder / f"{stage}.json", meanings(entries, without))


if __name__ == "__main__":
    main()
