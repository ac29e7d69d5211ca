"""The shop's numbers, each defined once as an Ibis expression; dashboards, gates and experiments use these.

A KPI is a function from tables and a window of time to an Ibis table with one row, or one row per group. A definition
calls no backend: the same expressions run on DuckDB and Spark. A share over nobody is null, not 0.

Belongs here: definitions, which tables they read, whose part of them. Does not belong here: drawing charts.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from contracts.moments import BAD

if TYPE_CHECKING:
    import ibis.expr.types as ir

REACHING: tuple[str, ...] = ("impression", "open", "click")
"""Actions by which the shop reached a person."""

PERSON = "person_id"
"""Group of the numbers of one person, as audiences use them."""


class KpiError(ValueError):
    """A KPI or group that does not exist; the message names what was expected."""


@dataclasses.dataclass(frozen=True)
class Tables:
    """What KPIs are computed from; all Ibis tables.

    Attributes:
        events: ``tables.EVENTS`` with ``person_id``.
        sessions: `orchestration.lake.sessions.SESSIONS`.
        moments: `orchestration.lake.moments.MOMENTS_TABLE`.
        products: ``tables.PRODUCTS``.
    """

    events: ir.Table
    sessions: ir.Table
    moments: ir.Table
    products: ir.Table


@dataclasses.dataclass(frozen=True)
class Window:
    """From start (included) to end (excluded), both with a zone."""

    start: dt.datetime
    end: dt.datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None or self.start >= self.end:
            raise KpiError(
                f"window is {self.start} to {self.end}; expected two times with a zone, start first"
            )

    def before(self) -> Window:
        """The window of equal length that ends where this one starts."""
        return Window(self.start - (self.end - self.start), self.start)


@dataclasses.dataclass(frozen=True)
class Kpi:
    """One number.

    Attributes:
        name: How code calls it.
        meaning: In plain words.
        unit: ``share``, ``money``, ``hours`` or ``people``.
        better: ``higher`` or ``lower``.
        groups: Columns by which it can be told apart.
        table: From tables and window to rows and the value of a group of rows.
    """

    name: str
    meaning: str
    unit: str
    better: str
    groups: tuple[str, ...]
    table: Callable[[Tables, Window], tuple[Any, Callable[[Any], Any]]]


def measure(name: str, tables: Tables, window: Window, by: Sequence[str] = ()) -> ir.Table:
    """The expression of a KPI.

    Args:
        name: Of `KPIS`.
        tables: What to compute from.
        window: When.
        by: Groups, some of the KPI's.

    Returns:
        Columns ``by``, ``value`` float64 and ``rows`` int64 (on how many rows the value rests).

    Raises:
        KpiError: No such KPI or group.
    """
    if name not in KPIS:
        raise KpiError(f"there is no KPI '{name}'; expected one of {', '.join(KPIS)}")
    kpi = KPIS[name]
    strange = [column for column in by if column not in kpi.groups]
    if strange:
        raise KpiError(
            f"KPI '{name}' has no group '{strange[0]}'; expected some of {', '.join(kpi.groups) or 'none'}"
        )
    rows, value = kpi.table(tables, window)
    numbers = {"value": value(rows).cast("float64"), "rows": rows.count().cast("int64")}
    if by:
        return rows.group_by(list(by)).aggregate(**numbers).order_by(list(by))
    return rows.aggregate(**numbers)


def attach_tables(con: Any, lake: pathlib.Path, hold_from: dt.datetime | None = None) -> Tables:
    """The tables that KPIs are computed from, as every reader of KPIs sees them.

    Args:
        con: A DuckDB connection; gets views ``known``, ``sessions``, ``moments`` and ``products``.
        lake: Folder of the lake, with identities, sessions and moments.
        hold_from: Hold what happened from this moment on in memory, for who measures many times; all is read anew for
            each measure by default.

    Raises:
        SnapshotError: A table is missing.
    """
    import ibis

    from feature_repo.snapshots import attach

    for name, folder in (("events", "events"), ("persons", "identity_events"), ("sessions", "sessions"),
                         ("moments", "moments"), ("products", "products")):  # fmt: skip
        attach(con, name, lake / folder)
    con.execute(
        """create or replace temp view known as select e.*, p.person_id from events e
        join persons p on p.source = e.source and p.event_id = e.event_id where p.person_id is not null"""
    )
    names = ["known", "sessions", "moments", "products"]
    if hold_from is not None:
        for place, column in enumerate(("occurred_at", "started_at", "occurred_at")):
            held = f"held_{names[place]}"
            query = f"create or replace temp table {held} as select * from {names[place]} where {column} >= ?"
            con.execute(query, [hold_from])
            names[place] = held
    backend = ibis.duckdb.from_connection(con)
    return Tables(*(backend.table(name) for name in names))


def among(tables: Tables, people: Any) -> Tables:
    """The same shop as if only some people came to it: how an experiment reads a KPI in each of its arms.

    Args:
        tables: What KPIs are computed from.
        people: Ibis table with ``person_id``.
    """
    who = people.select("person_id").distinct()
    return dataclasses.replace(
        tables,
        events=tables.events.semi_join(who, "person_id"),
        sessions=tables.sessions.semi_join(who, "person_id"),
        moments=tables.moments.semi_join(who, "person_id"),
    )


def _inside(table: Any, column: str, window: Window) -> Any:
    import ibis

    start, end = (ibis.literal(moment, "timestamp('UTC', 6)") for moment in (window.start, window.end))
    return table.filter(table[column] >= start, table[column] < end)


def _visits(tables: Tables, window: Window) -> Any:
    return _inside(tables.sessions, "started_at", window)


def _lines(tables: Tables, window: Window) -> Any:
    """Bought lines with revenue and what the product is."""
    events = _inside(tables.events, "occurred_at", window)
    lines = events.filter(events.action == "purchase", events.person_id.notnull())
    products = tables.products.select("product_id", "department", "category")
    lines = lines.left_join(products, "product_id")
    revenue = lines.quantity.fill_null(1.0) * lines.unit_price.fill_null(0.0)
    return lines.select("person_id", "occurred_at", "channel", "department", "category", revenue=revenue)


def _conversion(tables: Tables, window: Window) -> Any:
    return _visits(tables, window), lambda rows: (rows.purchases > 0).cast("float64").mean()


def _retention(tables: Tables, window: Window) -> Any:
    first = _lines(tables, window.before()).select("person_id").distinct()
    again = _lines(tables, window).select("person_id").distinct().mutate(again=1.0)
    joined = first.left_join(again, "person_id")
    rows = joined.select("person_id", again=joined.again.fill_null(0.0))
    return rows, lambda rows: rows.again.mean()


def _value(tables: Tables, window: Window) -> Any:
    lines = _lines(tables, window)
    rows = lines.group_by("person_id").aggregate(revenue=lines.revenue.sum())
    return rows, lambda rows: rows.revenue.mean()


def _order_value(tables: Tables, window: Window) -> Any:
    lines = _lines(tables, window)
    rows = lines.group_by(["person_id", "occurred_at", "channel"]).aggregate(revenue=lines.revenue.sum())
    return rows, lambda rows: rows.revenue.mean()


def _moment_quality(tables: Tables, window: Window) -> Any:
    moments = _inside(tables.moments, "occurred_at", window)
    hurt = moments.filter(moments.kind.isin(BAD), moments.session_id.notnull())
    hurt = hurt.select("session_id").distinct().mutate(hurt=1.0)
    visits = _visits(tables, window)
    joined = visits.left_join(hurt, "session_id")
    rows = joined.select("session_id", "first_channel", PERSON, hurt=joined.hurt.fill_null(0.0))
    return rows, lambda rows: 1 - rows.hurt.mean()


def _bad(tables: Tables, window: Window) -> Any:
    moments = _inside(tables.moments, "occurred_at", window)
    return moments.filter(moments.kind.isin(BAD))


def _recovery(tables: Tables, window: Window) -> Any:
    return _bad(tables, window), lambda rows: rows.recovered_at.notnull().cast("float64").mean()


def _time_to_recovery(tables: Tables, window: Window) -> Any:
    bad = _bad(tables, window)
    made_good = bad.filter(bad.recovered_at.notnull())
    micros = made_good.recovered_at.epoch_seconds() - made_good.occurred_at.epoch_seconds()
    rows = made_good.mutate(hours=micros.cast("float64") / 3600.0)
    return rows, lambda rows: rows.hours.median()


def _reach(tables: Tables, window: Window) -> Any:
    known = tables.events.filter(tables.events.person_id.notnull()).select("person_id").distinct()
    inside = _inside(tables.events, "occurred_at", window)
    touched = inside.filter(inside.action.isin(REACHING), inside.person_id.notnull())
    touched = touched.select("person_id").distinct().mutate(touched=1.0)
    joined = known.left_join(touched, "person_id")
    rows = joined.select("person_id", touched=joined.touched.fill_null(0.0))
    return rows, lambda rows: rows.touched.mean()


def _reached_people(tables: Tables, window: Window) -> Any:
    inside = _inside(tables.events, "occurred_at", window)
    rows = inside.filter(inside.action.isin(REACHING), inside.person_id.notnull()).select(
        "person_id", "channel"
    )
    return rows, lambda rows: rows.person_id.nunique()


def _contribution(tables: Tables, window: Window) -> Any:
    lines = _lines(tables, window)
    total = lines.mutate(total=lines.revenue.sum().over())
    return total, lambda rows: rows.revenue.sum() / rows.total.max().nullif(0.0)


def _revenue(tables: Tables, window: Window) -> Any:
    return _lines(tables, window), lambda rows: rows.revenue.sum()


_OF_LINES = ("channel", "department", "category")

KPIS: dict[str, Kpi] = {
    kpi.name: kpi
    for kpi in (
        Kpi("conversion", "Visits that ended in a purchase.", "share", "higher", ("first_channel", PERSON),
            _conversion),
        Kpi("retention", "Buyers of the window before who bought again in this one.", "share", "higher", (),
            _retention),
        Kpi("value", "Revenue per buyer.", "money", "higher", (PERSON,), _value),
        Kpi("order_value", "Revenue per order.", "money", "higher", ("channel", PERSON), _order_value),
        Kpi("revenue", "What was paid.", "money", "higher", (*_OF_LINES, PERSON), _revenue),
        Kpi("moment_quality", "Visits without a bad moment.", "share", "higher", ("first_channel", PERSON),
            _moment_quality),
        Kpi("recovery", "Bad moments that were made good within 30 days.", "share", "higher",
            ("kind", "channel", PERSON), _recovery),
        Kpi("time_to_recovery", "Median time from a bad moment to its making good, of those made good.", "hours",
            "lower", ("kind", "channel", PERSON), _time_to_recovery),
        Kpi("reach", "Known people whom a message or an ad reached.", "share", "higher", (), _reach),
        Kpi("reached_people", "People whom a message or an ad reached.", "people", "higher", ("channel",),
            _reached_people),
        Kpi("contribution", "Share of revenue.", "share", "higher", _OF_LINES, _contribution),
    )
}  # fmt: skip
"""All KPIs by name."""
