"""A new project: the checkout's own settings, profiles and pipelines, laid out in a folder.

setup.py reads `FILES` without anything that this module would import, and puts them into the wheel.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

# Of the checkout.
FILES = (
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvc/plots/*.json",
    ".dvcignore",
    ".gitignore",
    "data.dvc",
    "dvc.yaml",
    "params.yaml",
    "prefect.yaml",
    "profiles/cityscapes.yaml",
    "profiles/synthetic.yaml",
)
README = """\
# Compact segmentation networks

`params.yaml` has every setting, for CamVid; a file of `profiles/` has what differs from it.

    nas search -p synthetic                                    # on built-in scenes
    nas data check PATH --profile mine && nas search -p mine   # on your own images
    nas up && nas run nas-search/synthetic                     # through Prefect, with its pages
    dvc pull data.dvc && dvc repro                             # CamVid, as stages of DVC

`nas report --open` shows what was found; `artifacts/` has all that runs leave. `data.dvc` is the
import of CamVid: remove it where data of your own take its place.
"""
_CODE_BY_PATH = "    deps:\n    - flows\n    - nas_core\n    - tasks\n"
# Installed code has no path that is the same everywhere.
_CODE_INSTALLED = "    always_changed: true    # takes a second; the digests say what runs again\n"


def lay_out(folder: Path) -> bool:
    """Make a project in a folder that is new or empty: all of its files, or none.

    Returns:
        Whether it lies in a git repository, which DVC wants: one is made if need be, by git.

    Raises:
        OSError: the disk does not take it.
    """
    is_new = not folder.exists()
    around = folder.parent if is_new else folder
    around.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".nas-init-", dir=around) as temporary:
        made = Path(temporary) / "project"
        _write_files(made)
        in_git = _is_in_git(around) or _git(made, "init", "--quiet")
        if is_new:
            made.rename(folder)
        else:  # it stays the folder that a shell may be in
            last = "params.yaml"  # which makes it a project
            for path in sorted(made.iterdir(), key=lambda one: one.name == last):
                path.rename(folder / path.name)
    return in_git


def _write_files(made: Path) -> None:
    source = _source()
    for path in sorted(path for pattern in FILES for path in source.glob(pattern)):
        place = made / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    stages = made / "dvc.yaml"
    stages.write_text(stages.read_text().replace(_CODE_BY_PATH, _CODE_INSTALLED))
    (made / "README.md").write_text(README)


def _source() -> Path:
    """The folder that `FILES` are read from: in an installed package, or the checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "project_files"
    return installed if installed.is_dir() else package.parent


def _is_in_git(folder: Path) -> bool:
    return _git(folder, "rev-parse", "--is-inside-work-tree")


def _git(folder: Path, *arguments: str) -> bool:
    from nas_core.base.git import git  # not there yet when setup.py runs this file

    try:
        return git(folder, *arguments).returncode == 0
    except OSError:
        return False
