"""What pydantic finds wrong, in words that say what to write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_core.base.errors import first_line, shown

_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "unknown key",
    "json_invalid": "not JSON: {error}",
    "recursion_loop": "nested too deeply",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "int_type": "expected a whole number, as 8",
    "int_parsing": "expected a whole number, as 8",
    "int_from_float": "expected a whole number, as 8",
    "int_parsing_size": "has too many digits",
    "float_type": "expected a number, as 0.5",
    "float_parsing": "expected a number, as 0.5",
    "finite_number": "expected a number that is neither infinite nor NaN",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected {ge} or more",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected {le} or less",
    "string_type": "expected text",
    "string_unicode": "expected text in UTF-8",
    "string_too_short": "expected {min_length} or more characters",
    "string_too_long": "expected {max_length} or fewer characters",
    "string_pattern_mismatch": "expected text that matches {pattern}",
    "literal_error": "expected {expected}",
    "list_type": "expected a list, as [a, b]",
    "tuple_type": "expected a list, as [a, b]",
    "named_tuple_type": "expected a list, as [a, b]",
    "too_short": "expected {min_length} or more entries, found {actual_length}",
    "too_long": "expected {max_length} or fewer entries",
    "dict_type": "expected keys and values, as {{key: value}}",
    "model_type": "expected keys and values, as {{key: value}}",
    "dataclass_type": "expected keys and values, as {{key: value}}",
    "invalid_key": "expected text for a key",
}


def in_words(problem: Mapping[str, Any]) -> str:
    """What is wrong and what is expected, without the key.

    Args:
        problem: one of `ValidationError.errors`. The words of a validator of ours stay as they are,
            those of others are pydantic's.
    """
    kind = problem["type"]
    if kind == "missing" and problem["loc"] and isinstance(problem["loc"][-1], int):
        return "expected one more entry"
    if kind in _WORDS:
        context = {key: _plain(value) for key, value in problem.get("ctx", {}).items()}
        return first_line(_WORDS[kind].format_map(context))
    message = first_line(problem["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _plain(bound: Any) -> Any:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def at_its_key(problem: Mapping[str, Any]) -> str:
    """`in_words`, with the key before it where it is of one."""
    key = key_of(problem)
    return f"{key}: {in_words(problem)}" if key else in_words(problem)


def key_of(problem: Mapping[str, Any]) -> str:
    """The dotted key of a problem; empty if it is one of the whole."""
    return shown(".".join(str(part) for part in problem["loc"]))[1:-1]
