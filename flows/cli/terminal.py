"""What commands write to: results to `console`, what went wrong to `errors`."""

from __future__ import annotations

from rich.console import Console

console = Console(markup=False)
errors = Console(stderr=True, markup=False)
