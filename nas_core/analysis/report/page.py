"""A page as one file that loads nothing: Plotly's script, the style and all data stand in it."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from nas_core.base.files import write_bytes
from nas_core.base.times import duration, moment

REPORT_FILE = "report.html"


def write_page(path: Path, template: str, content: Mapping[str, Any]) -> Path:
    """Fill a template with `content` and write it; returns its path.

    Args:
        content: what the template names, and `charts`, see `charts.chart`. All of it is escaped.

    Raises:
        RunError: the disk does not take it; then `path` is as before.
    """
    script = Markup(_text("page.js"))
    scripts = (get_plotlyjs(), script)
    page = _environment().get_template(template)
    text = page.render(
        **content,
        style=Markup(_text("page.css")),
        scripts=[Markup(one) for one in scripts],
        # No other script runs, whatever a name may hold, and nothing is loaded.
        script_hashes=[f"'sha256-{_hash(one)}'" for one in scripts],
        written=datetime.now().astimezone(),
    )
    # A lone surrogate, as of a name that is not UTF-8.
    write_bytes(path, text.encode(errors="backslashreplace"))
    return path


def packed(content: bytes) -> str:
    """A file in base64, compressed, as the page's script takes it."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def percent(share: float | None) -> str:
    return "none" if _is_missing(share) else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"  # type: ignore[operator]


def spread(values: list[float]) -> str:
    """Per cent: of several the mean, and the least and the most."""
    if not values:
        return "none"
    mean = percent(sum(values) / len(values))
    if len(values) == 1:
        return mean
    return f"{mean} [{100 * min(values):.1f} to {100 * max(values):.1f}]"


def number(value: Any, form: str = ",") -> str:
    """A number by a format of Python's; "none" where there is none."""
    return "none" if _is_missing(value) else format(value, form)


def _is_missing(value: Any) -> bool:
    return value is None or value != value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("nas_core.analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (duration, moment, percent, spread, number)
    environment.filters |= {one.__name__: one for one in filters}
    return environment


def _text(name: str) -> str:
    loader = _environment().loader
    assert loader
    return loader.get_source(_environment(), name)[0]


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
