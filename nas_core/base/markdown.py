"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Container, Sequence


def table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], right: Container[int] = ()
) -> list[str]:
    """The lines of a table.

    Args:
        right: the columns, counted from 0, whose cells stand to the right.
    """
    rule = ["---:" if column in right else "---" for column in range(len(heading))]
    lines = [heading, rule, *rows]
    # A line break or a bar would end the cell.
    return [
        "| " + " | ".join(" ".join(str(cell).split()).replace("|", r"\|") for cell in line) + " |"
        for line in lines
    ]
