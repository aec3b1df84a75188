"""What a setting may be: text, a path, a name, a device, a seed, and a number up to what limit."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

# Linux' limits, PATH_MAX and NAME_MAX, the former with room for the project's folder.
_MAX_PATH = 3000
_MAX_PART = 255

_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,40}$")
_VARIABLE = re.compile(r"\$(\{|[A-Za-z_])")
_DEVICE = re.compile(r"^(auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?)$")

# Strict: True is no number, where a flow takes a seed without a section around it.
MAX_SEED = 2**31 - 1
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED + 1, strict=True)]

# Limits of what could be meant. Without them a slip of the keyboard overflows a float or an
# integer of 64 bits hours later.
MOST_COUNTED = 10**15
MOST_MILLISECONDS = 3_600_000
LARGEST_NORM = 1e6


def is_text(value: str) -> str:
    """Settings are recorded: in journals, in MLflow, in Prefect's database."""
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in value):
        raise ValueError("has a character that is no text (control character, or not UTF-8)")
    return value


def _is_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            "expected 1 to 41 of the letters a to z, digits, '_' and '-', the first of them a "
            "letter or digit"
        )
    return value


def _is_device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError("expected auto, cpu, mps, cuda or cuda:N with a number up to 99")
    return value


def _is_path(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty: give a path")
    if value.startswith("~") or _VARIABLE.search(value):
        raise ValueError("only a shell replaces ~ and $NAME: give the path that they stand for")
    if "://" in value:
        raise ValueError("is an address; give the path of a file or folder of this machine")
    if len(value.encode()) > _MAX_PATH or any(
        len(part.encode()) > _MAX_PART for part in value.split("/")
    ):
        raise ValueError(
            f"too long: a path has {_MAX_PATH} bytes at most, and {_MAX_PART} between two slashes"
        )
    return value


Text = Annotated[str, AfterValidator(is_text)]
PathText = Annotated[Text, AfterValidator(_is_path)]
Name = Annotated[
    str,
    AfterValidator(_is_name),
    WithJsonSchema({"type": "string", "pattern": _NAME.pattern}),
]
Device = Annotated[
    str,
    AfterValidator(_is_device),
    WithJsonSchema({"type": "string", "pattern": _DEVICE.pattern}),
]


class Section(BaseModel):
    """Values have the type that they are declared with: neither True nor "8" is a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
