"""The point-in-time join: for every entity row the newest feature row that was valid at its moment.

DuckDB finds pairs of row numbers (`feature_repo/stores/matching.py`); feature values are then copied
with one `take` per column straight into input order. Wide rows are never sorted, and memory beyond
the result is bounded by DuckDB's limit plus the feature rows that were really matched.

Belongs here: the join's entry point and the checks of its input. Does not belong here: anything of
Feast (`feature_repo/stores/asof.py`) and how a source becomes a query (`feature_repo/stores/sources.py`).
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from feature_repo.snapshots import connect, literal
from feature_repo.stores.matching import load_entities, load_features, match
from feature_repo.stores.rows import FeatureRows, Joined, JoinError, entity_schema

_PRUNE_ROWS = 1_000_000
"""Up to so many entity rows, feature rows of other keys are dropped while they are loaded."""


def asof_join(
    entities: pa.Table | pathlib.Path,
    features: Sequence[FeatureRows],
    *,
    timestamp: str = "event_timestamp",
    memory_limit: str = "1500MB",
    threads: int = 2,
) -> Joined:
    """Find for every entity row and feature table the newest row valid at the entity row's moment.

    A feature row is valid from its time on (time <= moment) until its ttl has passed
    (moment - time <= ttl). A NULL key or moment matches nothing. Times count in whole microseconds.

    Args:
        entities: Entity rows, or the path of one Parquet file: key columns, ``timestamp`` (without
            zone: UTC) and anything else, which is passed through. Rows may repeat and be unsorted.
        features: The tables to join; their output columns must differ from all other columns.
        timestamp: Column of ``entities`` that holds the moment.
        memory_limit: What DuckDB may hold before it spills to a temporary folder.
        threads: Worker threads.

    Raises:
        JoinError: A column is missing, would appear twice, or has a type that cannot be compared.
    """
    _check_entities(entity_schema(entities), features, timestamp)
    with session(memory_limit, threads) as con:
        keys, count, first, last = load_entities(con, entities, timestamp, features)
        matched = []
        for rows in features:
            load_features(con, rows, keys, (first, last), prune=count <= _PRUNE_ROWS)
            matched.append(match(con, rows, keys, count))
    return Joined(entities, matched)


@contextlib.contextmanager
def session(memory_limit: str, threads: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in UTC that spills to a temporary folder of its own; both end with the block."""
    with tempfile.TemporaryDirectory(prefix="continuum-asof-") as folder:
        con = connect(memory_limit, threads)
        try:
            con.execute(f"set temp_directory = {literal(folder)}")
            yield con
        finally:
            con.close()


def _check_entities(schema: pa.Schema, features: Sequence[FeatureRows], timestamp: str) -> None:
    for name in (timestamp, *(key for rows in features for key in rows.keys.values())):
        if name not in schema.names:
            raise JoinError(f"entities have no column '{name}'; expected it among {schema.names}")
    kind = schema.field(timestamp).type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise JoinError(f"entity column '{timestamp}' is {kind}; expected a timestamp")
    taken = set(schema.names)
    for rows in features:
        for name in rows.columns:
            if name in taken:
                raise JoinError(
                    f"{rows.name}: output column '{name}' appears twice; expected different names"
                )
            taken.add(name)
