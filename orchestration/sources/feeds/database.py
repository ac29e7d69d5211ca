"""Tables of a SQL database, read through Ibis: only what is new since the last time.

Any database that Ibis reaches (``postgresql://``, ``sqlite:///``, ``duckdb:///``, ``mysql://`` ...), given its
driver. With a ``high_water`` column only rows at or above the largest value seen are read (rows with that very
value again, because more may have come); rows that were seen before are dropped. Without one the whole table
is read, and replaces what was read before if it differs.

Belongs here: rows of a table -> a Parquet file. Does not belong here: their mapping (`staging.py`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import pathlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.retailer import Feed
from contracts.settings import expand_address
from feature_repo.snapshots import connect, literal

BATCH_ROWS = 65_536


class DatabaseError(RuntimeError):
    """A database that cannot be read; the message names the feed and what was expected, never the address."""


def pull(
    feed: Feed, name: str, address: str, target: pathlib.Path, since: str | None
) -> tuple[str, str | None, int]:
    """Read the rows of a feed into a Parquet file.

    Args:
        feed: With ``table`` or ``query``, and perhaps ``high_water``.
        name: Of the feed, for messages.
        address: Of the database; ``${VARIABLE}`` is read from the environment.
        target: The file to write.
        since: Largest value of the high-water column that was seen, as `_as_text` wrote it.

    Returns:
        A hash of the rows that does not depend on their order, the largest value now, and the number of rows.

    Raises:
        DatabaseError: No connection, no such table or column, or a query that fails.
    """
    what = feed.table or "the query"
    with _reached(name, address, feed.connection or "") as con:
        try:
            table = con.table(feed.table) if feed.table is not None else _asked(con, feed.query or "")
            if feed.high_water is not None:
                table = _newer(table, feed.high_water, since, name)
            table = _readable(table)
            water, rows = None, 0
            with contextlib.ExitStack() as stack:
                writer = None
                for batch in table.to_pyarrow_batches(chunk_size=BATCH_ROWS):
                    plain = _plain(batch)
                    if writer is None:
                        writer = stack.enter_context(pq.ParquetWriter(target, plain.schema))
                    writer.write_batch(plain)
                    rows += plain.num_rows
                    if feed.high_water is not None and plain.num_rows:
                        found = pc.max(plain[feed.high_water]).as_py()
                        water = found if water is None or (found is not None and found > water) else water
                if writer is None:
                    schema = table.schema().to_pyarrow()
                    empty = pa.RecordBatch.from_pylist([], schema=schema)
                    stack.enter_context(pq.ParquetWriter(target, _plain(empty).schema))
        except DatabaseError:
            raise
        except Exception as error:  # Every backend raises errors of its own; all mean the same here.
            known = ""
            with contextlib.suppress(Exception):
                known = f"; the tables are: {', '.join(sorted(con.list_tables())[:20])}"
            raise DatabaseError(f"mapping.{name}: {what} cannot be read: {_short(error)}{known}") from error
    return _digest(target), since if water is None else _as_text(water), rows


@contextlib.contextmanager
def _reached(name: str, address: str, connection: str) -> Iterator[Any]:
    import ibis

    try:
        con = ibis.connect(expand_address(address))
    except ImportError as error:
        kind = address.partition(":")[0].replace("postgresql", "postgres")
        raise DatabaseError(
            f"connections.{connection} needs a driver that is not installed; expected the packages of "
            f"ibis-framework[{kind}]"
        ) from error
    except Exception as error:
        raise DatabaseError(
            f"mapping.{name}: connections.{connection} cannot be reached: {type(error).__name__}; "
            "expected an address such as postgresql://user:${PASSWORD}@host/database"
        ) from error
    try:
        yield con
    finally:
        con.disconnect()


def _newer(table: Any, column: str, since: str | None, name: str) -> Any:
    import ibis

    if column not in table.columns:
        raise DatabaseError(
            f"mapping.{name}.high_water is '{column}'; expected one of the columns: {', '.join(table.columns)}"
        )
    if since is None:
        return table
    kind = table[column].type()
    value: Any = since
    if kind.is_integer():
        value = int(since)
    elif kind.is_numeric():
        value = float(since)
    elif kind.is_timestamp():
        value = dt.datetime.fromisoformat(since)
    elif kind.is_date():
        value = dt.date.fromisoformat(since)
    return table.filter(table[column] >= ibis.literal(value, type=kind))


def _asked(con: Any, query: str) -> Any:
    if con.name != "postgres":
        return con.sql(query)
    # 2026-11: ibis 12 writes an empty DROP VIEW with sqlglot 30; a view of the session's own needs none. Remove when
    # ibis' PostgreSQL backend answers `sql` again.
    name = "continuum_query"
    with con.con.cursor() as cursor, con.con.transaction():
        cursor.execute(f"create or replace temporary view {name} as {query.strip().rstrip(';')}")
    return con.table(name)


def _readable(table: Any) -> Any:
    """The table with columns as text whose types Arrow does not know (UUIDs, JSON, addresses, intervals)."""
    odd = {
        name: table[name].cast("string")
        for name, kind in table.schema().items()
        if kind.is_uuid() or kind.is_json() or kind.is_inet() or kind.is_macaddr() or kind.is_interval()
    }
    return table.mutate(**odd) if odd else table


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with types that DuckDB reads: exact decimals as doubles, null columns as text."""
    fields, columns = [], []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        kind = field.type
        if pa.types.is_decimal(kind):
            kind = pa.float64()
        elif pa.types.is_null(kind) or isinstance(column, pa.ExtensionArray):
            kind = pa.string()
        fields.append(pa.field(field.name, kind))
        columns.append(column if kind == field.type else _cast(column, kind))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _cast(column: Any, kind: pa.DataType) -> Any:
    if isinstance(column, pa.ExtensionArray):
        return pa.array([None if v is None else str(v) for v in column.to_pylist()], kind)
    return column.cast(kind)


def _digest(path: pathlib.Path) -> str:
    con = connect()
    row = con.execute(
        f"select count(*), coalesce(bit_xor(md5_number(t::varchar)), 0) from read_parquet({literal(str(path))}) t"
    ).fetchone()
    con.close()
    count, mixed = row if row is not None else (0, 0)
    return f"{int(mixed) & (2**128 - 1):032x}{count:032x}"


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
