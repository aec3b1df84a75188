"""What pydantic finds wrong is said in words that tell what to write."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import nas_core
from nas_core.base.problems import _WORDS, in_words, key_of
from nas_core.config import Settings

VALUES: list[Any] = [
    None, True, -1, 0, 7, 1.5, math.nan, math.inf, 2**70, "", "x", "7", "\ud800", "x" * 5000,
    [], [None], [1, 2], ["a", "a"], [[]], {}, {"a": None}, {1: 2}, [{}], {"a": {}}, {"a": [None]},
]  # fmt: skip
PYDANTIC = ("nput should", "Field required", "should have", "should match", "valid ")


def models() -> list[type[BaseModel]]:
    """Every model of the library."""
    for module in pkgutil.walk_packages(nas_core.__path__, "nas_core."):
        importlib.import_module(module.name)
    found, waiting = set[type[BaseModel]](), [BaseModel]
    while waiting:
        new = [one for one in waiting.pop().__subclasses__() if one not in found]
        found |= {one for one in new if one.__module__.startswith("nas_core.")}
        waiting += new
    return sorted(found, key=lambda one: (one.__module__, one.__qualname__))


def problems(model: type[BaseModel]) -> Iterator[Any]:
    contents: list[Any] = [*VALUES, {"colour": "red"}]
    contents += [{key: value} for key in model.model_fields for value in VALUES]
    texts = [b"", b"{", b"\xff", b"[1" * 300]
    for content in contents:
        try:
            model.model_validate(content)
        except ValidationError as error:
            yield from error.errors()
        texts.append(json.dumps(content).encode())
    for text in texts:
        try:
            model.model_validate_json(text)
        except ValidationError as error:
            yield from error.errors()


def test_no_problem_of_a_model_is_in_pydantics_words() -> None:
    found = [(model, problem) for model in models() for problem in problems(model)]
    assert {problem["type"] for _, problem in found} - {*_WORDS} == {"value_error"}
    for model, problem in found:
        said = in_words(problem)
        assert said and "\n" not in said and len(said) < 500, (model, problem)
        assert not any(words in said for words in PYDANTIC), (model, said)


def test_what_is_expected_is_said() -> None:
    values = {
        "seed": 1.5, "name": "A", "search": {"num_candidates": 0, "start_from": "arch0"},
        "compute": {"device": "gpu", "threads": True}, "dataset": {"kind": "mine"}, "train": 7,
        "encoder": {"weights": 3}, "runner": {"time_limit": "1 h"},
    }  # fmt: skip
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate(values)
    assert {key_of(problem): in_words(problem) for problem in raised.value.errors()} == {
        "seed": "expected a whole number, as 8",
        "name": "expected 1 to 41 of the letters a to z, digits, '_' and '-', the first of them a "
        "letter or digit",
        "search.num_candidates": "expected 1 or more",
        "search.start_from": "expected a list, as [a, b]",
        "compute.device": "expected auto, cpu, mps, cuda or cuda:N with a number up to 99",
        "compute.threads": "expected a whole number, as 8",
        "dataset.kind": "expected 'camvid', 'cityscapes', 'folder' or 'synthetic'",
        "train": "expected keys and values, as {key: value}",
        "encoder.weights": "expected text",
        "runner.time_limit": "expected a number, as 0.5",
    }
