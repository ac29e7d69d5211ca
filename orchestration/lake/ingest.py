"""From a source into the lake: the bulk way in, one window of days at a time.

Running a window again replaces its rows by the same rows; a single day can be run alone; events of
other sources and of the inbox on the same days stay.

Belongs here: the flow source -> validation -> tables. Does not belong here: the inbox (`intake.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Iterator

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from orchestration.lake import tables, writing
from orchestration.lake.tables import TABLES
from orchestration.lake.validation import split
from orchestration.sources import Source, Window


@dataclasses.dataclass(frozen=True)
class Ingested:
    """What one window brought.

    Attributes:
        events: Commit of the events table.
        dead_letters: Commit of the dead letters.
        read: Raw rows read.
        reasons: How many rows broke which rule.
    """

    events: writing.Commit
    dead_letters: writing.Commit
    read: int
    reasons: dict[str, int]


def ingest_events(
    lake: pathlib.Path, source_name: str, source: Source, window: Window, now: dt.datetime | None = None
) -> Ingested:
    """Map, check and store the events of a window.

    Args:
        lake: Folder of the lake.
        source_name: Value of the ``source`` column that this source writes.
        source: The source.
        window: Which days.
        now: The receiver's clock.
    """
    clock = now or dt.datetime.now(dt.UTC)
    bad: list[pa.Table] = []
    read = 0

    def good() -> Iterator[pa.RecordBatch]:
        nonlocal read
        for batch in source.events(window):
            read += batch.num_rows
            kept, broken = split(batch, clock)
            if broken.num_rows:
                bad.append(_letters(broken, source_name, clock, window))
            yield from _belongs(kept, source_name, window).to_batches()

    stream = pa.RecordBatchReader.from_batches(tables.EVENTS, good())
    days = (window.first_day, window.last_day)
    events = writing.replace_days(TABLES["events"], lake, stream, *days, source=source_name)
    letters = pa.concat_tables([tables.DEAD_LETTERS.empty_table(), *bad])
    reasons = {row["values"]: row["counts"] for row in letters["reason"].value_counts().to_pylist()}
    commit = writing.replace_letters(TABLES["dead_letters"], lake, letters, *days, source=source_name)
    return Ingested(events, commit, read, reasons)


def ingest_products(lake: pathlib.Path, source: Source) -> writing.Commit:
    """Store the catalogue, in place of the one before."""
    return writing.replace_all(TABLES["products"], lake, source.products())


def ingest_customers(lake: pathlib.Path, source: Source, households: int | None = None) -> writing.Commit:
    """Store the customers, in place of those before."""
    return writing.replace_all(TABLES["customers"], lake, source.customers(households))


def ingest_offers(lake: pathlib.Path, source: Source) -> writing.Commit:
    """Store the coupons, in place of those before."""
    return writing.replace_all(TABLES["offers"], lake, source.offers())


def ingest_exposures(lake: pathlib.Path, source: Source, window: Window) -> writing.Commit:
    """Store displays and mailers of every week that touches the window."""
    weekly = source.exposures(window)
    return writing.replace_weeks(TABLES["exposures"], lake, weekly.rows, weekly.first_week, weekly.last_week)


def _belongs(rows: pa.Table, source_name: str, window: Window) -> pa.Table:
    strangers = pc.any(pc.not_equal(rows["source"], source_name)).as_py()
    if strangers:
        found = pc.unique(rows["source"]).to_pylist()
        raise ValueError(f"source '{source_name}' yields rows of {found}; expected only its own name")
    days = pc.min_max(rows["day"]).as_py()
    if rows.num_rows and not window.first_day <= days["min"] <= days["max"] <= window.last_day:
        raise ValueError(
            f"source '{source_name}' yields events of {days['min']} to {days['max']}; "
            f"expected {window.first_day} to {window.last_day}"
        )
    return rows


def _letters(broken: pa.Table, source_name: str, now: dt.datetime, window: Window) -> pa.Table:
    rows = broken.to_pylist()
    home = window.first or window.first_day

    def day(row: dict[str, object]) -> dt.date:
        moment = row["occurred_at"]
        return moment.date() if isinstance(moment, dt.datetime) else home

    columns: dict[str, list[object]] = {
        "received_at": [now] * len(rows),
        "source": [source_name] * len(rows),
        "reason": [row["reason"] for row in rows],
        "field": [row["field"] for row in rows],
        "raw": [_raw(row) for row in rows],
        "origin": ["source"] * len(rows),
        "offset": [None] * len(rows),
        "day": [day(row) for row in rows],
    }
    return pa.table(columns, schema=tables.DEAD_LETTERS)


def _raw(row: dict[str, object]) -> str:
    kept = {
        name: value for name, value in row.items() if value is not None and name not in {"field", "reason"}
    }
    return msgspec.json.encode(kept).decode()
