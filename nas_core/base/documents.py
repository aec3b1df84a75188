"""JSON files that one stage leaves for another: each is a model with its own read and write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from nas_core.base.errors import RunError, first_line
from nas_core.base.files import json_bytes, read_json, write_bytes
from nas_core.base.problems import at_its_key


class Document(BaseModel):
    """A JSON file; its fields are the keys, in the order in which they are written.

    A field that was not given is not written: so what an older file lacks, its copy lacks too.
    For an object with any keys derive from `RootModel` as well.

    Attributes:
        remedy: what to do about a file that is malformed.
        error: what is raised for a file that cannot be used.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    remedy: ClassVar[str] = "run the stage before it again"
    error: ClassVar[type[RunError]] = RunError

    @classmethod
    def read(cls, path: Path) -> Self:
        """The content of a file.

        Raises:
            RunError: it cannot be read, or is no such document.
        """
        try:
            return cls.model_validate(read_json(path))
        except OSError as error:
            raise cls.error(f"{path} cannot be read: {error.strerror}") from None
        except ValidationError as error:
            raise cls.error(f"{path}: {at_its_key(error.errors()[0])}: {cls.remedy}") from None
        except ValueError as error:
            raise cls.error(f"{path}: not a JSON file: {first_line(error)}: {cls.remedy}") from None

    def to_bytes(self) -> bytes:
        # As Python has them: the mode `json` would write an integer as 1.0 where a float may be.
        return json_bytes(self.model_dump(exclude_unset=True))

    def write(self, path: Path) -> None:
        """Raises RunError: the disk does not take it."""
        write_bytes(path, self.to_bytes())


def _as_it_is(value: float, check: ValidatorFunctionWrapHandler) -> float:
    check(value)
    return value


Number = Annotated[float, WrapValidator(_as_it_is)]
"""A float that may be an integer, and is written as one then."""
