"""Where the weights of a network lie that a user names."""

from __future__ import annotations

from pathlib import Path

from nas_core.base.errors import WeightsError, shown, some_of
from nas_core.base.files import expanded
from nas_core.base.paths import shipped_models, trainings_folder
from nas_core.base.project import find_project
from nas_core.training.record import Training

TRAINED = "model.safetensors"
"""In the folder of a full training."""


def find_weights(model: str | Path, start: Path = Path()) -> Path:
    """The weights file of a model.

    Args:
        model: the name of a shipped model, the path of a .safetensors file, of a training's
            folder, or of a folder with a single .safetensors file. A name goes first.
        start: the folder where a relative path starts.

    Raises:
        WeightsError: there is no such model, or the folder holds several.
        RunError: there is none, and a training that may be meant has a malformed training.json.
        SettingsError: see `find_project`.
    """
    reference = str(model)
    shipped = shipped_models(find_project())
    if reference in shipped:
        return shipped[reference]
    path = start / expanded(reference)
    try:
        is_there = path.exists()
    except OSError as error:  # a name that is too long
        raise WeightsError(f"{shown(reference)} cannot be read: {error.strerror}") from None
    if path.is_dir():
        if (path / TRAINED).is_file():
            return path / TRAINED
        inside = sorted(path.glob("*.safetensors"))
        if len(inside) == 1:
            return inside[0]
        found = "several .safetensors files" if inside else "no .safetensors file"
        raise WeightsError(f"{path} holds {found}: give the path of one")
    if is_there:
        return path
    raise WeightsError(
        f"unknown model {shown(reference)}: {trainings_like(reference)}there are "
        f"{some_of(shipped)}; or give the path of a .safetensors file or folder"
    )


def trainings_like(reference: str) -> str:
    """What a message says of the trainings that an id, or a folder that is not there, may mean.

    Raises:
        RunError: one of them has a malformed training.json.
    """
    root, name = find_project(), Path(reference).name
    if not root or not name:
        return ""
    meant = []
    for file in sorted(trainings_folder(root).glob("*/training.json")):
        folder = file.parent.name
        if folder.startswith(name) or folder.rpartition("-")[0] == name.rpartition("-")[0]:
            meant.append(f"{folder} (seed {Training.read(file).seed})")
    return f"its trainings in {trainings_folder(root)} are {some_of(meant)}; " if meant else ""
