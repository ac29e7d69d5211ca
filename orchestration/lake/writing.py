"""Atomic commits to the lake's Delta tables.

A commit is one file in the table's log: readers see all of it or nothing, whatever happens to the
writer. Files that a killed writer leaves behind are named by no commit, so no reader opens them, and
`tidy` removes them later. An application transaction (Delta protocol, "Transaction Identifiers") makes
an append happen at most once per batch number.

Belongs here: create, replace, append, tidy. Does not belong here: what the rows mean.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from orchestration.lake.tables import Table

Rows: TypeAlias = pa.Table | pa.RecordBatchReader
COMMIT_RETRIES = 20


class SchemaMismatchError(TypeError):
    """Rows that do not have the table's columns; the message names the difference."""


class Counted:
    """A stream of batches that knows how many rows have passed."""

    def __init__(self, rows: Rows, schema: pa.Schema) -> None:
        if not rows.schema.equals(schema):
            missing = [f"{f.name}: {f.type}" for f in schema if f not in list(rows.schema)]
            extra = [f"{f.name}: {f.type}" for f in rows.schema if f not in list(schema)]
            raise SchemaMismatchError(
                f"columns differ from the table's: missing {missing}, not expected {extra}"
            )
        self.count = 0
        self._batches: Iterable[pa.RecordBatch] = rows.to_batches() if isinstance(rows, pa.Table) else rows
        self.reader = pa.RecordBatchReader.from_batches(schema, self._pass())

    def _pass(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.count += batch.num_rows
            yield batch


@dataclasses.dataclass(frozen=True)
class Commit:
    """What one write did.

    Attributes:
        table: Name of the table.
        version: Version after the write.
        rows: Rows written.
        applied: False where the batch had been written before and nothing was done.
    """

    table: str
    version: int
    rows: int
    applied: bool = True


def ensure(table: Table, lake: pathlib.Path) -> DeltaTable:
    """Open a table, creating it empty where there is none."""
    path = table.path(lake)
    path.parent.mkdir(parents=True, exist_ok=True)
    partition = [table.partition] if table.partition else None
    return DeltaTable.create(
        str(path),
        schema=table.schema,
        mode="ignore",
        name=table.name,
        description=table.description,
        partition_by=partition,
    )


def replace_all(table: Table, lake: pathlib.Path, rows: Rows) -> Commit:
    """Put these rows in place of everything in the table."""
    ensure(table, lake)
    counted = Counted(rows, table.schema)
    _write(table, lake, counted.reader, mode="overwrite")
    return _done(table, lake, counted.count)


def replace_days(
    table: Table,
    lake: pathlib.Path,
    rows: Rows,
    first_day: dt.date,
    last_day: dt.date,
    source: str | None = None,
) -> Commit:
    """Put these rows in place of a window of days; running it again leaves the same rows.

    Args:
        table: A table with a ``day`` column.
        lake: Folder of the lake.
        rows: All rows of the window (every row's day lies inside, its source is ``source``).
        first_day: First UTC day of the window.
        last_day: Last UTC day, inclusive.
        source: Replace only rows of this source; rows of other sources on the same days stay.
    """
    days = f"day >= '{first_day.isoformat()}' AND day <= '{last_day.isoformat()}'"
    where = days if source is None else f"{days} AND source = '{_sql(source)}'"
    return _replace_where(table, lake, rows, where)


def replace_weeks(table: Table, lake: pathlib.Path, rows: Rows, first_week: int, last_week: int) -> Commit:
    """Put these rows in place of a range of weeks (both inclusive)."""
    return _replace_where(table, lake, rows, f"week >= {int(first_week)} AND week <= {int(last_week)}")


def replace_letters(
    table: Table, lake: pathlib.Path, rows: Rows, first_day: dt.date, last_day: dt.date, source: str
) -> Commit:
    """Put these dead letters in place of a source's bulk letters of a window; letters of the inbox stay."""
    where = (
        f"day >= '{first_day.isoformat()}' AND day <= '{last_day.isoformat()}' "
        f"AND source = '{_sql(source)}' AND origin = 'source'"
    )
    return _replace_where(table, lake, rows, where)


def remove_letters(table: Table, lake: pathlib.Path, letters: Sequence[tuple[int, str]]) -> Commit:
    """Remove letters of the inbox, each named by its offset and raw text; others stay."""
    keys = pa.table({"offset": [offset for offset, _ in letters], "raw": [raw for _, raw in letters]})
    delta = ensure(table, lake)
    done = (
        delta.merge(
            keys,
            predicate="t.origin = 'inbox' AND t.offset = k.offset AND t.raw = k.raw",
            source_alias="k",
            target_alias="t",
            commit_properties=CommitProperties(max_commit_retries=COMMIT_RETRIES),
        )
        .when_matched_delete()
        .execute()
    )
    return Commit(table.name, int(delta.version()), int(done["num_target_rows_deleted"]))


def append_once(table: Table, lake: pathlib.Path, rows: Rows, app_id: str, txn_version: int) -> Commit:
    """Append a batch unless a batch of the same or a later number has been appended under this name.

    Args:
        table: Where to.
        lake: Folder of the lake.
        rows: The batch.
        app_id: Name of the stream of batches, for example ``inbox``.
        txn_version: Number of the batch; numbers grow along the stream.

    Returns:
        The commit; ``applied`` is False where nothing was done.
    """
    delta = ensure(table, lake)
    done = delta.transaction_version(app_id)
    if done is not None and done >= txn_version:
        return Commit(table.name, delta.version(), 0, applied=False)
    counted = Counted(rows, table.schema)
    properties = CommitProperties(
        app_transactions=[Transaction(app_id, txn_version)], max_commit_retries=COMMIT_RETRIES
    )
    _write(table, lake, counted.reader, mode="append", commit_properties=properties)
    return _done(table, lake, counted.count)


def last_transaction(table: Table, lake: pathlib.Path, app_id: str) -> int | None:
    """Number of the latest batch that `append_once` wrote under a name, or None."""
    version = ensure(table, lake).transaction_version(app_id)
    return None if version is None else int(version)


def tidy(table: Table, lake: pathlib.Path, keep_hours: float = 168.0) -> dict[str, int]:
    """Merge small files, then delete files that no version of the last ``keep_hours`` names.

    Old versions become unreadable, so keep at least as long as the longest training run.

    Returns:
        ``files_merged``, ``files_written``, ``files_deleted``.
    """
    delta = ensure(table, lake)
    merged = delta.optimize.compact()
    deleted = delta.vacuum(
        retention_hours=max(0, round(keep_hours)), dry_run=False, enforce_retention_duration=False
    )
    delta.create_checkpoint()
    return {
        "files_merged": int(merged["numFilesRemoved"]),
        "files_written": int(merged["numFilesAdded"]),
        "files_deleted": len(deleted),
    }


def _replace_where(table: Table, lake: pathlib.Path, rows: Rows, where: str) -> Commit:
    ensure(table, lake)
    counted = Counted(rows, table.schema)
    _write(table, lake, counted.reader, mode="overwrite", predicate=where)
    return _done(table, lake, counted.count)


def _write(table: Table, lake: pathlib.Path, reader: pa.RecordBatchReader, **options: Any) -> None:
    options.setdefault("commit_properties", CommitProperties(max_commit_retries=COMMIT_RETRIES))
    partition = [table.partition] if table.partition else None
    write_deltalake(str(table.path(lake)), reader, partition_by=partition, **options)


def _done(table: Table, lake: pathlib.Path, rows: int) -> Commit:
    return Commit(table.name, int(DeltaTable(str(table.path(lake))).version()), rows)


def _sql(text: str) -> str:
    return text.replace("'", "''")
