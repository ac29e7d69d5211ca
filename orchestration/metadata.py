"""What materializations show in the Dagster UI: row counts, schemas, snapshot versions, tables, plots.

Belongs here: turning plain values into Dagster metadata. Does not belong here: computing the values.
"""

from __future__ import annotations

import base64
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure
    from PIL import Image

Metadata = dict[str, Any]


def table_metadata(path: pathlib.Path, schema: pa.Schema, version: int, rows: int, **extra: Any) -> Metadata:
    """Standard metadata of a table that was written.

    Args:
        path: The Delta table.
        schema: Its columns.
        version: Snapshot that holds the rows.
        rows: Rows written by this materialization.
        extra: More entries, as plain values.
    """
    columns = [dg.TableColumn(name=field.name, type=str(field.type)) for field in schema]
    return {
        "dagster/row_count": rows,
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/uri": str(path),
        "snapshot_version": version,
        **extra,
    }


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dg.MarkdownMetadataValue:
    """Rows as a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return dg.MetadataValue.md("\n".join(lines))


def plot(figure: Figure, title: str) -> dg.MarkdownMetadataValue:
    """A figure as an inline picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=72, bbox_inches="tight")
    data = base64.b64encode(buffer.getvalue()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{data})")


def picture(image: Image.Image, title: str) -> dg.MarkdownMetadataValue:
    """A picture of pixels, inline as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/jpeg;base64,{data})")


def bars(values: Mapping[str, float], title: str, highlight: str = "") -> dg.MarkdownMetadataValue:
    """A horizontal bar chart, best value on top."""
    from matplotlib.figure import Figure

    ordered = sorted(values.items(), key=lambda pair: pair[1])
    figure = Figure(figsize=(7, 0.4 * len(ordered) + 1))
    axes = figure.add_subplot()
    colors = ["#2f6f4f" if name == highlight else "#b9c7bf" for name, _ in ordered]
    axes.barh([name for name, _ in ordered], [value for _, value in ordered], color=colors)
    for row, (_, value) in enumerate(ordered):
        axes.text(value, row, f" {value:.4f}", va="center")
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    return plot(figure, title)


def lines(series: Mapping[str, Sequence[float]], title: str) -> dg.MarkdownMetadataValue:
    """A line chart; the x axis counts the values of each series."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3))
    axes = figure.add_subplot()
    for name, values in series.items():
        axes.plot(range(1, len(values) + 1), values, label=name)
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axes.legend()
    return plot(figure, title)
