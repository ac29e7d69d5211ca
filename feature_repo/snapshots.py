"""Reading one committed version of a Delta table through DuckDB.

A snapshot is the list of Parquet files that one Delta commit names. Readers take that list and
nothing else, so a half-written or superseded file is never seen, and the same version gives the same
rows for ever (until it is vacuumed).

Belongs here: opening DuckDB, listing a snapshot's files and naming them as a DuckDB view. Does not
belong here: writing (`orchestration/lake/writing.py`).
"""

from __future__ import annotations

import datetime as dt
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import duckdb
import pyarrow as pa


class SnapshotError(LookupError):
    """A table or version that cannot be read; the message names the path and the version."""


def connect(memory_limit: str = "1500MB", threads: int = 2) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB whose clock is UTC, with a memory bound and without network access.

    Args:
        memory_limit: What DuckDB may hold before it spills to its temporary folder.
        threads: Worker threads.
    """
    con = duckdb.connect()
    con.execute("set TimeZone = 'UTC'")
    con.execute("set autoinstall_known_extensions = false")
    con.execute("set enable_progress_bar = false")
    con.execute(f"set memory_limit = '{memory_limit}'")
    con.execute(f"set threads = {int(threads)}")
    return con


def delta_files(path: pathlib.Path, version: int | None = None) -> tuple[int, list[str]]:
    """The Parquet files of one version of a Delta table.

    Args:
        path: Folder of the table.
        version: Committed version, or None for the latest.

    Returns:
        The version that was read and the absolute paths of its files (may be empty).

    Raises:
        SnapshotError: No Delta table there, or no such version.
    """
    table = _open(path, version)
    return table.version(), sorted(table.file_uris())


def partition_days(files: Iterable[str]) -> list[dt.date]:
    """Days of the ``day=`` partition folders that hold these files, ascending."""
    names = {pathlib.PurePosixPath(file).parent.name for file in files}
    matches = (re.fullmatch(r"day=(\d{4}-\d{2}-\d{2})", name) for name in names)
    return sorted(dt.date.fromisoformat(match.group(1)) for match in matches if match)


def attach(con: duckdb.DuckDBPyConnection, name: str, path: pathlib.Path, version: int | None = None) -> int:
    """Create a DuckDB view over exactly one version of a Delta table.

    Columns come in the order and with the types of the table's schema, partition columns included.
    The view holds only file names, so it costs nothing until it is queried.

    Args:
        con: Connection that gets the view (replaced if it exists).
        name: Name of the view.
        path: Folder of the table.
        version: Committed version, or None for the latest.

    Returns:
        The version that the view shows.

    Raises:
        SnapshotError: As `delta_files`.
    """
    table = _open(path, version)
    con.execute(f"create or replace view {quoted(name)} as {_select(table)}")
    return int(table.version())


def scan_sql(path: pathlib.Path, version: int | None = None) -> str:
    """A DuckDB query that yields one version of a Delta table, for use inside a larger statement.

    Raises:
        SnapshotError: As `delta_files`.
    """
    return _select(_open(path, version))


def table_schema(path: pathlib.Path, version: int | None = None) -> pa.Schema:
    """The Arrow schema of one version of a Delta table, partition columns included.

    Raises:
        SnapshotError: As `delta_files`.
    """
    return pa.schema(_open(path, version).schema().to_arrow())


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"


def duckdb_type(kind: pa.DataType) -> str:
    """The DuckDB name of an Arrow type that lake and feature tables use.

    Raises:
        TypeError: A type that the tables do not use.
    """
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{duckdb_type(kind.value_type)}[]"
    for check, name in _TYPES:
        if check(kind):
            return name
    raise TypeError(f"Arrow type {kind} has no place in the lake; expected one of {[n for _, n in _TYPES]}")


_TYPES = (
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_int8, "TINYINT"),
    (pa.types.is_int16, "SMALLINT"),
    (pa.types.is_int32, "INTEGER"),
    (pa.types.is_int64, "BIGINT"),
    (pa.types.is_float32, "FLOAT"),
    (pa.types.is_float64, "DOUBLE"),
    (pa.types.is_date32, "DATE"),
    (pa.types.is_timestamp, "TIMESTAMPTZ"),
    (pa.types.is_string, "VARCHAR"),
    (pa.types.is_large_string, "VARCHAR"),
)


def _open(path: pathlib.Path, version: int | None) -> Any:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        return DeltaTable(str(path), version=version)
    except TableNotFoundError as error:
        raise SnapshotError(f"no Delta table at {path}; expected one that the lake has written") from error
    except DeltaError as error:
        wanted = "latest" if version is None else str(version)
        raise SnapshotError(f"Delta table {path} has no readable version '{wanted}': {error}") from error


def _select(table: Any) -> str:
    schema = pa.schema(table.schema().to_arrow())
    partitions = set(table.metadata().partition_columns)
    files = sorted(table.file_uris())
    if not files:
        nothing = ", ".join(f"null::{duckdb_type(field.type)} as {quoted(field.name)}" for field in schema)
        return f"select {nothing} where false"
    names = ", ".join(quoted(field.name) for field in schema)
    kinds = ", ".join(f"{literal(f.name)}: {duckdb_type(f.type)}" for f in schema if f.name in partitions)
    hive = f", hive_partitioning = true, hive_types = {{{kinds}}}" if kinds else ", hive_partitioning = false"
    return f"select {names} from read_parquet([{', '.join(map(literal, files))}]{hive})"
