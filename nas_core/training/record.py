"""training.json, what a finished full training says of itself, and trainings.json, several of them.

They are handed from stage to stage, and by `dvc pull` from machine to machine, so they are checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from nas_core.base.errors import RunError, first_line, shown
from nas_core.base.files import read_json

# Labels and identities become names of files and folders.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
# Seconds since the epoch, as far as MLflow takes them.
Moment = Annotated[float, Field(ge=0, le=1e11)]


class _Training(BaseModel):
    """What is relied on; more may stand there."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    label: Name
    identity: Name
    num_parameters: Count
    macs: Count
    seed: Count
    started: Moment
    finished: Moment
    val: dict[str, float]
    history: list[dict[str, float]]


class _Test(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    class_iou: dict[str, float]


class _Outcome(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    scores: list[float]
    seconds: dict[str, float]


_ONE, _SEVERAL, _TEST, _OUTCOME = (
    TypeAdapter[Any](model) for model in (_Training, dict[Name, _Training], _Test, _Outcome)
)


def read_training(path: Path) -> dict[str, Any]:
    """The content of a training.json.

    Raises:
        RunError: the file cannot be read, or is none.
    """
    return _read(path, _ONE)


def read_trainings(path: Path) -> dict[str, dict[str, Any]]:
    """The content of a trainings.json: trainings by label. Raises as `read_training`."""
    return _read(path, _SEVERAL)


def read_test(path: Path) -> dict[str, Any]:
    """The content of a test.json: scores. Raises as `read_training`."""
    return _read(path, _TEST)


def read_outcome(path: Path) -> dict[str, Any]:
    """What a training on the proxy task gave. Raises as `read_training`."""
    return _read(path, _OUTCOME)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RunError: the file cannot be read, or is none.
    """
    try:
        content = read_json(path)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise RunError(f"{path}: not a JSON file: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected an object, found {type(content).__name__}")
    return content


def _read(path: Path, kind: TypeAdapter[Any]) -> dict[str, Any]:
    content = read_object(path)
    try:
        kind.validate_python(content)
    except ValidationError as error:
        problem = error.errors()[0]
        key = shown(".".join(str(part) for part in problem["loc"]))[1:-1]
        raise RunError(f"{path}: {key}: {problem['msg']}: run the stage before it again") from None
    return content
