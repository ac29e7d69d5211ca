"""Questions that the lake must answer well before anything is built on it.

Each check reads DuckDB views named `events` and `products` (`open_lake` attaches one snapshot of each)
and returns an `Answer`; nothing is raised, nothing is written. An answer with severity ``error`` that
does not pass blocks what is downstream; ``warn`` is shown to people.

Belongs here: checks of data. Does not belong here: the Dagster decorators around them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Callable
from typing import Any, Literal

import duckdb

from feature_repo.snapshots import attach, connect, table_schema
from orchestration.lake.tables import TABLES, Table

Severity = Literal["error", "warn"]

USUAL_WEEKS = 4
"""A day is compared with the same weekday of this many weeks before."""
FEWEST_RATIO, MOST_RATIO = 1 / 3, 3.0
"""Bounds of a day's volume over the usual."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a check found.

    Attributes:
        name: Name of the check.
        passed: Whether all is well.
        severity: What a failure means.
        description: One sentence for people.
        evidence: Numbers and examples behind it.
    """

    name: str
    passed: bool
    severity: Severity
    description: str
    evidence: dict[str, Any]


def open_lake(lake: pathlib.Path, versions: dict[str, int] | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB with one view per existing lake table.

    Args:
        lake: Folder of the lake.
        versions: Committed version of some tables; the others are read at their latest.
    """
    con = connect()
    for table in TABLES.values():
        if (table.path(lake) / "_delta_log").is_dir():
            attach(con, table.name, table.path(lake), (versions or {}).get(table.name))
    return con


def schema(table: Table, lake: pathlib.Path, version: int | None = None) -> Answer:
    """The stored columns are those that the code declares, in name, type and order."""
    found = {field.name: str(field.type) for field in table_schema(table.path(lake), version)}
    wanted = {field.name: str(field.type) for field in table.schema}
    differing = {
        name: f"{found.get(name, 'absent')} instead of {wanted.get(name, 'nothing')}"
        for name in {**wanted, **found}
        if found.get(name) != wanted.get(name)
    }
    same = list(found.items()) == list(wanted.items())
    text = "columns are as declared" if same else f"columns differ: {differing or 'their order'}"
    return Answer("schema", same, "error", text, {"columns": found, "differing": differing})


def unique_events(con: duckdb.DuckDBPyConnection, first_day: dt.date, last_day: dt.date) -> Answer:
    """No (source, event_id) of the window's events occurs twice anywhere in the lake."""
    inside = _inside(first_day, last_day)
    twice = con.execute(
        f"""select source, event_id, count(*) as times from events
        where (source, event_id) in (select (source, event_id) from events where {inside})
        group by 1, 2 having times > 1 order by times desc, 1, 2"""
    ).fetchall()
    text = "every event is stored once" if not twice else f"{len(twice)} events are stored more than once"
    examples = [f"{source}/{event_id} x{times}" for source, event_id, times in twice[:5]]
    return Answer("unique_events", not twice, "error", text, {"repeated": len(twice), "examples": examples})


def known_products(
    con: duckdb.DuckDBPyConnection, first_day: dt.date, last_day: dt.date, most: float = 0.01
) -> Answer:
    """Nearly every event that names a product names one of the catalogue.

    Args:
        con: Views `events` and `products`.
        first_day: First UTC day.
        last_day: Last UTC day, inclusive.
        most: Largest share of events with an unknown product that still passes.
    """
    named, unknown = _row(
        con,
        f"""select count(*), count(*) filter (p.product_id is null)
        from (select product_id from events where product_id is not null and {_inside(first_day, last_day)}) e
        left join products p using (product_id)""",
    )
    share = unknown / named if named else 0.0
    examples = con.execute(
        f"""select product_id, count(*) from events where product_id is not null
        and {_inside(first_day, last_day)} and product_id not in (select product_id from products)
        group by 1 order by 2 desc, 1 limit 5"""
    ).fetchall()
    text = f"{unknown} of {named} events name a product outside the catalogue"
    evidence = {"events": named, "unknown": unknown, "share": share, "examples": [p for p, _ in examples]}
    return Answer("known_products", share <= most, "error", text, evidence)


def freshness(con: duckdb.DuckDBPyConnection, until: dt.datetime, patience: dt.timedelta) -> Answer:
    """The latest event is recent.

    Args:
        con: View `events`.
        until: The moment up to which events are expected: now, or the end of the ingested window.
        patience: How much older than that the latest event may be.
    """
    latest = _row(con, "select max(occurred_at) from events")[0]
    passed = latest is not None and latest >= until - patience
    text = (
        "the lake is empty"
        if latest is None
        else f"latest event {latest.isoformat()}, expected until {until.isoformat()}"
    )
    return Answer(
        "freshness", passed, "error", text, {"latest": None if latest is None else latest.isoformat()}
    )


def volume(con: duckdb.DuckDBPyConnection, first_day: dt.date, last_day: dt.date) -> Answer:
    """No day of the window has far fewer or far more events than the same weekday before it.

    A window without a single event fails as an error; an unusual day is a warning, because shops do
    close and campaigns do work.
    """
    start = first_day - dt.timedelta(days=7 * USUAL_WEEKS)
    counts = dict(
        con.execute(
            f"select day, count(*) from events where {_inside(start, last_day)} group by 1"
        ).fetchall()
    )
    days = [first_day + dt.timedelta(days=i) for i in range((last_day - first_day).days + 1)]
    total = sum(counts.get(day, 0) for day in days)
    if total == 0:
        return Answer("volume", False, "error", f"no event from {first_day} to {last_day}", {"events": 0})
    unusual = {
        day.isoformat(): round(counts.get(day, 0) / usual, 2)
        for day in days
        if (usual := _usual(counts, day)) and not FEWEST_RATIO <= counts.get(day, 0) / usual <= MOST_RATIO
    }
    text = f"{total} events; " + (f"{len(unusual)} unusual days" if unusual else "every day is as usual")
    evidence = {"events": total, "days": len(days), "unusual": unusual}
    return Answer("volume", not unusual, "warn", text, evidence)


def check_events(
    lake: pathlib.Path,
    first_day: dt.date,
    last_day: dt.date,
    versions: dict[str, int] | None = None,
    patience: dt.timedelta = dt.timedelta(days=2),
) -> list[Answer]:
    """Every check on the events of a window, at given or latest snapshots."""
    con = open_lake(lake, versions)
    end = dt.datetime.combine(last_day + dt.timedelta(days=1), dt.time(), dt.UTC)
    table = TABLES["events"]
    questions: list[Callable[[], Answer]] = [
        lambda: schema(table, lake, (versions or {}).get("events")),
        lambda: unique_events(con, first_day, last_day),
        lambda: known_products(con, first_day, last_day),
        lambda: freshness(con, end, patience),
        lambda: volume(con, first_day, last_day),
    ]
    return [question() for question in questions]


def _usual(counts: dict[dt.date, int], day: dt.date) -> float | None:
    before = [counts.get(day - dt.timedelta(days=7 * weeks)) for weeks in range(1, USUAL_WEEKS + 1)]
    known = sorted(count for count in before if count is not None)
    return float(known[len(known) // 2]) if len(known) >= 3 else None


def _inside(first_day: dt.date, last_day: dt.date) -> str:
    return f"day between date '{first_day.isoformat()}' and date '{last_day.isoformat()}'"


def _row(con: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = con.execute(query).fetchall()[0]
    return row
