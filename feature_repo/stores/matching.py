"""Which feature row belongs to which entity row, found by DuckDB.

Each table of feature rows is loaded once, its keys are numbered, rows that no moment can select are
dropped, and a narrow ASOF JOIN over key number and time gives pairs of row numbers. Feature values are
read for matched rows only; they are never sorted.

Belongs here: the SQL of the join. Does not belong here: checks of the caller's input and the result
(`feature_repo/stores/joins.py`, `feature_repo/stores/rows.py`).
"""

from __future__ import annotations

import datetime as dt
import pathlib
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.snapshots import literal, quoted
from feature_repo.stores.pruning import selectable
from feature_repo.stores.rows import TABLE_ROWS, FeatureRows, JoinError, Matched, entity_schema

_OUTNUMBERED = 2
"""So many times more feature rows than entity rows make it worth while to prune before the join."""

_IN_MEMORY = 5_000_000
"""Up to so many feature rows are pruned as arrays (about 100 bytes each); more are left to DuckDB alone."""

_HALF = 2**64
_FOR_EVER = 2**62


def load_entities(
    con: duckdb.DuckDBPyConnection,
    entities: pa.Table | pathlib.Path,
    timestamp: str,
    features: Sequence[FeatureRows],
) -> tuple[dict[str, str], int, int | None, int | None]:
    """Create the view `entity_rows` (row, us, e0..).

    Returns:
        Entity key to its column in the view; number of rows; first and last moment, microseconds.
    """
    names = list(dict.fromkeys(key for rows in features for key in rows.keys.values()))
    keys = {name: f"e{i}" for i, name in enumerate(names)}
    if isinstance(entities, pathlib.Path):
        source = f"read_parquet({literal(str(entities))}, hive_partitioning = false, file_row_number = true)"
    else:
        narrow = entities.select([*names, timestamp])
        con.register(
            "given_entities", narrow.append_column("file_row_number", pa.array(np.arange(narrow.num_rows)))
        )
        source = "given_entities"
    columns = "".join(f", {quoted(name)} as {short}" for name, short in keys.items())
    kind = entity_schema(entities).field(timestamp).type
    us = _floored(timestamp) if str(kind).startswith("timestamp[ns") else micros(timestamp)
    con.execute(
        f"create view entity_rows as select file_row_number as row, {us} as us{columns} from {source}"
    )
    count, first, last = con.execute("select count(*), min(us), max(us) from entity_rows").fetchall()[0]
    return keys, count, first, last


def load_features(
    con: duckdb.DuckDBPyConnection,
    rows: FeatureRows,
    keys: Mapping[str, str],
    span: tuple[int | None, int | None],
    *,
    prune: bool,
) -> None:
    """Create `feature_rows` (us, created, k0.., c0..) and, where there are keys, `feature_keys` (kid, k0..).

    Only rows that some entity row may see are loaded: those inside the span of moments less the ttl,
    and, with ``prune``, those of the entities' own keys.
    """
    if isinstance(rows.rows, str):
        source = f"({rows.rows})"
    else:
        con.register("given_features", rows.rows)
        source = "given_features"
    _check_source(con, rows, keys, source)
    columns = [f"{micros(rows.timestamp)} as us"]
    columns += [f"{micros(rows.created)} as created"] if rows.created else []
    columns += [f"{quoted(name)} as k{i}" for i, name in enumerate(rows.keys)]
    columns += [f"{quoted(name)} as c{i}" for i, name in enumerate(rows.columns.values())]
    own = ""
    if rows.keys and prune:
        pairs = (f"f.{quoted(theirs)} = e.{keys[ours]}" for theirs, ours in rows.keys.items())
        own = f" semi join entity_rows e on {' and '.join(pairs)}"
    con.execute(
        f"create temp table feature_rows as select {', '.join(columns)} from {source} f{own} "
        f"where {_seen(rows, span)}"
    )
    if rows.keys:
        names = ", ".join(f"k{i}" for i in range(len(rows.keys)))
        con.execute(
            f"create temp table feature_keys as select (row_number() over () - 1)::integer as kid, {names} "
            f"from (select distinct {names} from feature_rows)"
        )


def _seen(rows: FeatureRows, span: tuple[int | None, int | None]) -> str:
    first, last = span
    if first is None or last is None:
        return "false"
    moment = f"cast({quoted(rows.timestamp)} as timestamptz)"
    seen = f"{moment} <= make_timestamptz({last})"
    if rows.ttl:
        seen += f" and {moment} >= make_timestamptz({max(first - _ttl(rows.ttl), -_FOR_EVER)})"
    return seen


def match(con: duckdb.DuckDBPyConnection, rows: FeatureRows, keys: Mapping[str, str], count: int) -> Matched:
    """Join `entity_rows` with `feature_rows`, read what matched, and drop what `load_features` created."""
    _load_sides(con, rows, keys, count)
    con.execute(f"create temp table pairs as {_pairs(rows)}")
    columns = "".join(f", c{i} as {quoted(name)}" for i, name in enumerate(rows.columns))
    found = con.sql(
        f'select rowid as "rid"{columns} from feature_rows where rowid in (select rid from pairs)'
    ).to_arrow_table()
    place = np.full(_stored(con), -1, np.int32)
    place[found.column(0).to_numpy()] = np.arange(found.num_rows, dtype=np.int32)
    position = np.full(count, -1, np.int32)
    for pairs in con.sql("select row, rid from pairs").to_arrow_reader(TABLE_ROWS):
        position[pairs.column(0).to_numpy()] = place[pairs.column(1).to_numpy()]
    con.execute(
        "drop view moments; drop view candidates; drop table pairs; drop table feature_rows; "
        "drop table if exists feature_keys"
    )
    return Matched(found.remove_column(0).combine_chunks(), position)


def _load_sides(
    con: duckdb.DuckDBPyConnection, rows: FeatureRows, keys: Mapping[str, str], count: int
) -> None:
    """Name both sides of the join: `moments` (row, kid, us) and `candidates` (rid, kid, us, created)."""
    kid, of_entity, of_feature = "0", "", ""
    if rows.keys:
        kid = "k.kid"
        of_entity = " join feature_keys k on " + " and ".join(
            f"e.{keys[ours]} = k.k{i}" for i, ours in enumerate(rows.keys.values())
        )
        of_feature = " join feature_keys k on " + " and ".join(
            f"f.k{i} = k.k{i}" for i in range(len(rows.keys))
        )
    created = ", f.created" if rows.created else ""
    left = f"select e.row, {kid} as kid, e.us from entity_rows e{of_entity} where e.us is not null"
    right = f"select f.rowid as rid, {kid} as kid, f.us{created} from feature_rows f{of_feature}"
    stored = _stored(con)
    if rows.known_only or stored < _OUTNUMBERED * count or stored > _IN_MEMORY:
        con.execute(f"create temp view moments as {left}; create temp view candidates as {right}")
        return
    moments, candidates = con.sql(left).to_arrow_table(), con.sql(right).to_arrow_table()
    chosen = selectable(*_kids_and_times(moments), *_kids_and_times(candidates))
    con.register("moments", moments)
    con.register("candidates", candidates.filter(pa.array(chosen)))


def _kids_and_times(table: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return table["kid"].to_numpy().astype(np.int64), table["us"].to_numpy()


def _stored(con: duckdb.DuckDBPyConnection) -> int:
    return int(con.execute("select count(*) from feature_rows").fetchall()[0][0])


def _pairs(rows: FeatureRows) -> str:
    """The ASOF JOIN of `moments` and `candidates`: (row, rid).

    Candidates of one key are ordered by a 128-bit number: the microsecond from which on the row may be
    used in the upper half, the tie-break in the lower. With ``known_only`` that is the later of the
    row's time and its creation, and a row that is already outdated when it becomes known is left out;
    so the two inequalities become the one that an ASOF JOIN has.
    """
    tie = f"coalesce(created + {_HALF // 2}::hugeint, 0)" if rows.created else "rid"
    order, useful = _both("us", tie), ""
    if rows.created and rows.known_only:
        known = "greatest(us, created)"
        useful = (
            f" where created is not null qualify {order} = max({order}) over "
            f"(partition by kid order by {known} range between unbounded preceding and current row)"
        )
        order = _both(known, "0")
    left = f"select *, {_both('us', str(_HALF - 1))} as z from moments"
    right = f"select *, {order} as z from candidates{useful}"
    alive = f" where l.us - r.us <= {_ttl(rows.ttl)}" if rows.ttl else ""
    return f"select l.row, r.rid from ({left}) l asof join ({right}) r on l.kid = r.kid and l.z >= r.z{alive}"


def _both(upper: str, lower: str) -> str:
    return f"({upper} * {_HALF}::hugeint + {lower})"


def micros(column: str) -> str:
    """SQL: a time column as microseconds since 1970-01-01 UTC (without zone: UTC)."""
    return f"epoch_us(cast({quoted(column)} as timestamptz))"


def _floored(column: str) -> str:
    """SQL: a nanosecond column as whole microseconds; a cast would round up, past rows not yet valid."""
    nanos = f"epoch_ns({quoted(column)})"
    return f"({nanos} - (({nanos} % 1000) + 1000) % 1000) // 1000"


def _ttl(span: dt.timedelta) -> int:
    return min(span // dt.timedelta(microseconds=1), _FOR_EVER)


def _check_source(
    con: duckdb.DuckDBPyConnection, rows: FeatureRows, keys: Mapping[str, str], source: str
) -> None:
    given = con.sql(f"select * from {source} limit 0")
    kinds = {name: str(kind) for name, kind in zip(given.columns, given.types, strict=True)}
    for name in rows.needed:
        if name not in kinds:
            raise JoinError(
                f"{rows.name}: the source has no column '{name}'; expected it among {list(kinds)}"
            )
    entity = con.sql("select * from entity_rows limit 0")
    entity_kinds = {name: str(kind) for name, kind in zip(entity.columns, entity.types, strict=True)}
    for theirs, ours in rows.keys.items():
        mine, other = entity_kinds[keys[ours]], kinds[theirs]
        if _family(mine) != _family(other) and '"NULL"' not in (mine, other):
            raise JoinError(
                f"{rows.name}: entity column '{ours}' is {mine}, key '{theirs}' is {other}; expected one kind"
            )


def _family(kind: str) -> str:
    if kind == "VARCHAR" or kind.startswith("ENUM"):
        return "text"
    if kind.startswith("DECIMAL") or kind in _NUMBERS:
        return "number"
    return "time" if kind.startswith(("TIMESTAMP", "DATE")) else kind


_NUMBERS = {
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE",
    "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
}  # fmt: skip
