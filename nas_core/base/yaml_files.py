"""Reading YAML that a person wrote, so that no file of it can surprise, hang or run anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from nas_core.base.errors import first_line
from nas_core.base.files import read_text

MAX_BYTES = 2**20


class _Loader(yaml.SafeLoader):
    """Without aliases, which let a few lines stand for billions, and without keys given twice.

    Without sets, whose order would change from process to process where a list is meant.

    Nor with the numbers of YAML 1.1 that are others to a reader: 010 would be 8, and 1:30 be 90.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not accepted",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        # With a tag it may be anything; then the call below says so.
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value[:60]!r} is given twice",
                        problem_mark=key.start_mark,
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (LookupError, TypeError, AttributeError):
            # Of a tag that PyYAML takes at its word, as !!bool 1.
            raise yaml.MarkedYAMLError(
                problem=f"it is no {node.tag.rpartition(':')[2][:60]}",
                problem_mark=node.start_mark,
            ) from None

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        is_number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if is_number and _MISREAD.match(str(node.value)):
            raise yaml.MarkedYAMLError(
                problem=f"{node.value[:60]} is a number in base 8 or 60: write it without the "
                "leading zero or the colon, or in quotes if it is a text",
                problem_mark=node.start_mark,
            )
        return super().construct_scalar(node)


_Loader.add_constructor(
    "tag:yaml.org,2002:set",
    yaml.SafeLoader.construct_undefined,  # type: ignore[type-var]
)
_MISREAD = re.compile(r"[-+]?(0[0-9_]+$|[^:]+:)")
# The floats of YAML 1.2, which DVC reads, that PyYAML takes for text: 1e-3, 1.5e3.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> Any:
    """The value of a file.

    Raises:
        OSError: it cannot be read, or has more than `MAX_BYTES`.
        ValueError: it is no YAML; the message names the file, and the line where there is one.
    """
    try:
        text = read_text(path, MAX_BYTES)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """The value of a text.

    Raises:
        ValueError: it is no YAML; the message begins with `source`.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = first_line(error.problem or "")
        raise ValueError(f"{source}{where}: not valid YAML ({reason})") from None
    # ValueError: a date or a number that Python has not.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{source}: not valid YAML ({first_line(error)})") from None
