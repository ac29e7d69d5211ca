"""How every verb prints: one JSON object for programs, or text for people; errors on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def emit(value: Any, as_json: bool, text: str) -> None:
    """Print `value` as JSON, or `text`."""
    click.echo(json.dumps(value, default=str, indent=1) if as_json else text)


def fail(message: str, hint: str = "") -> NoReturn:
    """Print what went wrong and what to do about it, and leave with exit code 1."""
    click.echo(f"error: {message}" + (f"\n  {hint}" if hint else ""), err=True)
    sys.exit(1)


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Rows as an aligned text table."""
    cells = [columns, *[[_cell(row.get(column)) for column in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
