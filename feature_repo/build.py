"""Computing feature rows from a lake snapshot and storing them as Delta tables, by window of days.

A window is replaced as a whole in one commit, so a run that is repeated leaves the same rows and a
killed run leaves the rows of before. Rows accumulate over a customer's life: after late events of an
earlier day, build from that day to the last one.

Belongs here: reading the lake, running a transform on DuckDB, the atomic write. Does not belong here:
arithmetic (`feature_repo/transforms`), scheduling (`orchestration/defs/features`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
import time
from collections.abc import Iterator, Sequence

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake

from contracts.settings import Settings
from feature_repo.catalog import ViewSpec, view
from feature_repo.snapshots import attach, connect, delta_files, partition_days, quoted, table_schema

BATCH_ROWS = 65_536
COMMIT_RETRIES = 20


class FeatureSchemaError(TypeError):
    """A stored feature table of another time, with other columns; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Built:
    """What one build wrote.

    Attributes:
        view: Name of the view.
        rows: Rows of the window.
        version: Version of the feature table after the write.
        events_version: Version of the events table that was read.
        seconds: How long it took.
    """

    view: str
    rows: int
    version: int
    events_version: int
    seconds: float


def build_views(
    settings: Settings,
    views: Sequence[str],
    first_day: dt.date,
    last_day: dt.date,
    events_version: int | None = None,
    memory_limit: str = "2GB",
) -> list[Built]:
    """Compute and store the rows of some views for a window of days.

    Args:
        settings: Where lake and features lie.
        views: Names of views (`feature_repo.catalog.VIEWS`).
        first_day: First UTC day. An event's rows belong to its day; a product's row at a midnight belongs
            to the day that ends there.
        last_day: Last UTC day, inclusive.
        events_version: Version of the events table, or None for the latest.
        memory_limit: What DuckDB may hold.

    Raises:
        UnknownViewError: No such view.
        SnapshotError: The lake lacks a table or that version.
    """
    specs = [view(name) for name in views]
    con = connect(memory_limit)
    version = attach(con, "events", settings.lake / "events", events_version)
    attach(con, "products", settings.lake / "products")
    built = []
    for spec in specs:
        started = time.perf_counter()
        reader = window_rows(con, spec, first_day, last_day)
        rows, written = store_rows(settings.features / spec.name, spec, reader, first_day, last_day)
        built.append(Built(spec.name, rows, written, version, round(time.perf_counter() - started, 2)))
    return built


def changed_days(settings: Settings, since: int | None) -> tuple[int, list[dt.date]]:
    """Days of lake/events whose files differ between a version and the latest, ascending; all without one.

    Returns:
        The latest version, and the days.

    Raises:
        SnapshotError: The lake lacks the table or that version.
    """
    path = settings.lake / "events"
    version, now = delta_files(path)
    before = [] if since is None else delta_files(path, since)[1]
    return version, partition_days(set(now) ^ set(before))


def window_rows(
    con: duckdb.DuckDBPyConnection, spec: ViewSpec, first_day: dt.date, last_day: dt.date
) -> pa.RecordBatchReader:
    """Rows of one view for a window of days, from DuckDB views `events` and `products`.

    Only events of keys that can have a row in the window are read, which makes a single day cheap.
    """
    backend = ibis.duckdb.from_connection(con)
    con.execute("create or replace temp view timed as select *, epoch_us(occurred_at) as at_us from events")
    events, products = backend.table("timed"), backend.table("products")
    rows = spec.rows(relevant(events, spec, first_day, last_day), products)
    moment = rows.event_timestamp
    if spec.at_midnight:
        moment = moment - ibis.interval(days=1)
    rows = rows.mutate(day=moment.date())
    rows = rows.filter(rows.day.between(ibis.date(first_day), ibis.date(last_day)))
    names = ", ".join(quoted(name) for name in spec.schema.names)
    query = f"select {names} from ({ibis.to_sql(rows, dialect='duckdb')})"
    raw = con.sql(query).to_arrow_reader(BATCH_ROWS)
    return pa.RecordBatchReader.from_batches(spec.schema, (batch.cast(spec.schema) for batch in raw))


def relevant(events: ir.Table, spec: ViewSpec, first_day: dt.date, last_day: dt.date) -> ir.Table:
    """Events up to the window's end, of the keys that have a row in the window.

    A customer's rows are at the customer's own events; a product's values also change when a sale
    leaves a window of days.
    """
    past = events.filter(events.day <= ibis.date(last_day))
    spans = [
        past.day.between(*(ibis.date(day - dt.timedelta(days=shift)) for day in (first_day, last_day)))
        for shift in spec.reach
    ]
    active = past.filter(ibis.or_(*spans), past[spec.driver].notnull()).select(spec.driver).distinct()
    return past.semi_join(active, spec.driver)


def store_rows(
    path: pathlib.Path, spec: ViewSpec, rows: pa.RecordBatchReader, first_day: dt.date, last_day: dt.date
) -> tuple[int, int]:
    """Replace a window of days of a feature table in one commit.

    Returns:
        Rows written and the table's version.

    Raises:
        FeatureSchemaError: The stored table has other columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    DeltaTable.create(
        str(path),
        schema=spec.schema,
        mode="ignore",
        name=spec.name,
        description=spec.description,
        partition_by=["day"],
    )
    stored = table_schema(path).names
    if stored != spec.schema.names:
        raise FeatureSchemaError(
            f"feature table {path} has columns {stored}; expected {spec.schema.names}: its columns have changed "
            "since it was written, so remove the folder and build all days again"
        )
    count = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal count
        for batch in rows:
            count += batch.num_rows
            yield batch

    write_deltalake(
        str(path),
        pa.RecordBatchReader.from_batches(spec.schema, counted()),
        mode="overwrite",
        predicate=f"day >= '{first_day.isoformat()}' AND day <= '{last_day.isoformat()}'",
        partition_by=["day"],
        commit_properties=CommitProperties(max_commit_retries=COMMIT_RETRIES),
    )
    return count, int(DeltaTable(str(path)).version())
