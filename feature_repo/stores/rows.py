"""What goes into a point-in-time join and what comes out: feature rows, matches, the joined rows.

Belongs here: the data that the join takes and gives, and how its result is put together piece by
piece. Does not belong here: how matches are found (`feature_repo/stores/matching.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 250_000
"""Rows of a streamed piece unless the caller says otherwise."""

TABLE_ROWS = 1 << 20
"""Rows per piece of a whole result: keeps string offsets below 2 GB whatever the result's length."""


class JoinError(ValueError):
    """Entities or feature rows that cannot be joined; the message names the table and the column."""


@dataclasses.dataclass(frozen=True)
class FeatureRows:
    """Feature rows with times, and how they are joined.

    Attributes:
        name: For messages.
        rows: A DuckDB query, or an Arrow table.
        keys: Column of ``rows`` to entity column; empty where one row holds for every entity.
        timestamp: Column of ``rows`` from which on a row is valid (without zone: UTC).
        columns: Output column to column of ``rows``.
        created: Column that says when a row was written: of rows with equal keys and times the one
            written last counts (never one without it, if another has it). Without this column the
            last one in source order counts.
        ttl: How long a row stays valid, bound included; None or zero: for ever.
        known_only: Use a row only for moments at or after ``created``.
    """

    name: str
    rows: str | pa.Table
    keys: Mapping[str, str]
    timestamp: str
    columns: Mapping[str, str]
    created: str | None = None
    ttl: dt.timedelta | None = None
    known_only: bool = False

    @property
    def needed(self) -> list[str]:
        """Columns of ``rows`` that the join reads."""
        created = [self.created] if self.created else []
        return list(dict.fromkeys([*self.keys, self.timestamp, *created, *self.columns.values()]))


@dataclasses.dataclass(frozen=True)
class Matched:
    """The matched rows of one feature table.

    Attributes:
        values: Output columns of the feature rows that at least one entity row needs.
        position: int32, one per entity row: its row in ``values``, -1 for none.
    """

    values: pa.Table
    position: npt.NDArray[np.int32]

    def slice(self, start: int, stop: int) -> pa.Table:
        """Features of the entity rows from ``start`` to ``stop``, NULL where there is no row."""
        position = self.position[start:stop]
        return self.values.take(pa.array(position, mask=position < 0))


@dataclasses.dataclass(frozen=True)
class Joined:
    """Entity rows with their features, in input order; pieces are put together when asked for.

    Attributes:
        entities: The entity rows, or the Parquet file that holds them.
        matched: One per feature table.
    """

    entities: pa.Table | pathlib.Path
    matched: Sequence[Matched]

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
        """The result in pieces of at most ``rows`` rows; at least one piece, so that the schema is known."""
        start = 0
        for piece in _pieces(self.entities, rows):
            stop = start + piece.num_rows
            for matched in self.matched:
                found = matched.slice(start, stop)
                for name in found.column_names:
                    piece = piece.append_column(name, found[name])
            yield piece
            start = stop

    def table(self) -> pa.Table:
        """The whole result."""
        return pa.concat_tables(list(self.batches(TABLE_ROWS)))


def entity_schema(entities: pa.Table | pathlib.Path) -> pa.Schema:
    """Names and types of the entity rows.

    Raises:
        JoinError: The path is not a readable Parquet file.
    """
    if not isinstance(entities, pathlib.Path):
        return entities.schema
    try:
        return pq.read_schema(entities)
    except (OSError, pa.ArrowInvalid) as error:
        raise JoinError(f"entities {entities}: expected the path of one Parquet file ({error})") from error


def _pieces(entities: pa.Table | pathlib.Path, rows: int) -> Iterator[pa.Table]:
    if isinstance(entities, pathlib.Path):
        with pq.ParquetFile(entities) as file:
            empty = True
            for batch in file.iter_batches(rows):
                empty = False
                yield pa.Table.from_batches([batch])
            if empty:
                yield file.schema_arrow.empty_table()
        return
    for start in range(0, max(entities.num_rows, 1), rows):
        yield entities.slice(start, rows)
