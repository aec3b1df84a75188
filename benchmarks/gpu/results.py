"""results.json, as far as it is gone on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from benchmarks.gpu.box import RESULTS
from benchmarks.gpu.outcomes import Outcomes
from benchmarks.gpu.rates import OUTCOMES
from nas_core.base.documents import Document
from nas_core.base.errors import GenotypeError
from nas_core.base.files import check_writable, read_json
from nas_core.space.genotype import Genotype


class _Found(BaseModel):
    """What a step found; what else stands there is for its reader alone."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Best(_Found):
    id: str
    genotype: dict[str, Any]

    @field_validator("genotype")
    @classmethod
    def is_network(cls, genotype: dict[str, Any]) -> dict[str, Any]:
        try:
            Genotype.from_dict(genotype)
        except GenotypeError as error:
            raise ValueError(str(error)) from None
        return genotype


class _Searched(_Found):
    best: list[_Best]


class _Trained(_Found):
    trainings: list[dict[str, Any]]
    planned: int


class _Scored(_Found):
    id: str
    val: float


class _Decided(_Found):
    trainings: list[_Scored] = Field(min_length=1)
    planned: int


class _Tested(_Found):
    id: str
    test: float


class _HeldOut(_Found):
    trainings: list[_Tested]
    planned: int


class _Teacher(_Found):
    folder: str


class _Teachers(_Found):
    trainings: list[_Teacher] = Field(min_length=1)
    planned: int


class _Student(_Found):
    label: Literal["alone", "taught"]
    val: float
    test: float | None = None


class _Students(_Found):
    trainings: list[_Student]
    planned: int


class Results(Document):
    """The names of the steps that are done, and what each has found, in their order."""

    remedy: ClassVar[str] = "restore it from a copy, or give --out another folder"

    done: list[str]
    tests: dict[str, Any] | None = None
    rates: dict[str, Any] | None = None
    search: _Searched | None = None
    search_two_repeats: _Searched | None = Field(None, alias="search-two-repeats")
    claims: _Trained | None = None
    best: _Decided | None = None
    held_out: _HeldOut | None = Field(None, alias="held-out")
    teacher: _Teachers | None = None
    taught: _Students | None = None
    winner: _Trained | None = None

    @model_validator(mode="after")
    def has_what_is_done(self) -> Self:
        found = self.model_dump(by_alias=True, exclude={"done"})
        for name in self.done:
            if found.get(name) is None:
                raise ValueError(f"{name} is done, and nothing of it is there")
        return self


def read_results(out: Path) -> dict[str, Any]:
    """What a folder holds of an earlier call, by step; nothing is done if that is new.

    Raises:
        RunError: results.json is malformed, or the folder cannot be written.
        OSError: the outcomes of the tests cannot be read.
    """
    check_writable(out, "give --out another place")
    Outcomes.read(out / OUTCOMES)
    path = out / RESULTS
    if not path.exists():
        return {"done": []}
    Results.read(path)
    found: dict[str, Any] = read_json(path)
    return found
