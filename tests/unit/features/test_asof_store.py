"""The point-in-time join against an oracle that looks at every row, and its edges one by one."""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.snapshots import scan_sql
from feature_repo.stores.joins import FeatureRows, JoinError, asof_join
from feature_repo.stores.pruning import selectable

START = dt.datetime(2017, 12, 1, tzinfo=dt.UTC)
UTC_US = pa.timestamp("us", "UTC")
SECOND = dt.timedelta(seconds=1)


def moments(seconds: list[float | None]) -> pa.Array:
    return pa.array([None if s is None else START + s * SECOND for s in seconds], UTC_US)


def entity_rows(rows: list[tuple[int | None, str | None, float | None]]) -> pa.Table:
    users, items, times = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "item": pa.array(items, pa.string()),
            "event_timestamp": moments(list(times)),
            "user": pa.array(users, pa.int64()),
            "line": pa.array(range(len(rows)), pa.int32()),
        }
    )


def feature_rows(rows: list[tuple[int | None, str | None, float | None, float | None, float]]) -> pa.Table:
    users, items, times, created, values = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return pa.table(
        {
            "user": pa.array(users, pa.int32()),
            "item": pa.array(items, pa.string()),
            "seen_at": moments(list(times)),
            "written_at": moments(list(created)),
            "value": pa.array(values, pa.float64()),
            "mark": pa.array([f"#{i}" for i in range(len(rows))], pa.string()),
        }
    )


def view(table: pa.Table, **changes: Any) -> FeatureRows:
    rows = FeatureRows(
        name="view",
        rows=table,
        keys={"user": "user"},
        timestamp="seen_at",
        columns={"value": "value", "view__mark": "mark"},
    )
    return dataclasses.replace(rows, **changes)


def marks(entities: pa.Table | pathlib.Path, rows: FeatureRows, **options: Any) -> list[str | None]:
    found: list[str | None] = asof_join(entities, [rows], **options).table()["view__mark"].to_pylist()
    return found


def oracle(entities: pa.Table, rows: FeatureRows) -> list[str | None]:
    """The mark of the row that each entity row must see, by looking at every row."""
    found: list[str | None] = []
    candidates = rows.rows.to_pylist()
    for entity in entities.to_pylist():
        moment = entity["event_timestamp"]
        best: tuple[Any, ...] | None = None
        mark = None
        for place, row in enumerate(candidates):
            if moment is None or row["seen_at"] is None or row["seen_at"] > moment:
                continue
            if any(row[theirs] is None or row[theirs] != entity[ours] for theirs, ours in rows.keys.items()):
                continue
            if rows.ttl and moment - row["seen_at"] > rows.ttl:
                continue
            written = row[rows.created] if rows.created else None
            if rows.created and rows.known_only and (written is None or written > moment):
                continue
            tie = (written is not None, written or START) if rows.created else (True, place)
            rank = (row["seen_at"], *tie)
            if best is None or rank > best:
                best, mark = rank, row["mark"]
        found.append(mark)
    return found


users = st.sampled_from([None, 1, 2, 3])
items = st.sampled_from([None, "x", "y"])
times = st.one_of(st.none(), st.integers(-3, 12).map(float))
entities = st.lists(st.tuples(users, items, times), max_size=12).map(entity_rows)
features = st.lists(
    st.tuples(users, items, times, times, st.floats(0, 9)),
    max_size=30,
    unique_by=lambda row: row[:4],
).map(feature_rows)
keys = st.sampled_from([{"user": "user"}, {"item": "item"}, {"user": "user", "item": "item"}, {}])
ttls = st.sampled_from([None, dt.timedelta(0), SECOND, 3 * SECOND, dt.timedelta.max])


@settings(max_examples=100, deadline=None)
@given(entities=entities, table=features, keys=keys, ttl=ttls, known_only=st.booleans())
def test_equals_looking_at_every_row(
    entities: pa.Table, table: pa.Table, keys: dict[str, str], ttl: dt.timedelta | None, known_only: bool
) -> None:
    rows = view(table, keys=keys, ttl=ttl, created="written_at", known_only=known_only)
    if len(keys) < 2:  # fewer keys than the rows are unique by: equal rows would be interchangeable
        table = table.filter(pa.array(_first_of(table, [*keys, "seen_at", "written_at"]), pa.bool_()))
        rows = dataclasses.replace(rows, rows=table)
    assert marks(entities, rows) == oracle(entities, rows)


@settings(max_examples=40, deadline=None)
@given(entities=entities, table=features, keys=keys, ttl=ttls)
def test_without_creation_times_the_last_row_in_source_order_counts(
    entities: pa.Table, table: pa.Table, keys: dict[str, str], ttl: dt.timedelta | None
) -> None:
    rows = view(table, keys=keys, ttl=ttl)
    assert marks(entities, rows) == oracle(entities, rows)


def _first_of(table: pa.Table, columns: list[str]) -> list[bool]:
    seen: set[tuple[Any, ...]] = set()
    first = []
    for row in table.select(columns).to_pylist():
        key = tuple(row.values())
        first.append(key not in seen)
        seen.add(key)
    return first


ONE = [(1, "x", 0.0, 0.0, 1.0)]


def test_a_row_at_the_very_moment_is_seen_and_a_later_one_never() -> None:
    table = feature_rows([*ONE, (1, "x", 5.0, 0.0, 2.0)])
    asked = entity_rows([(1, "x", t) for t in (-0.000001, 0.0, 4.999999, 5.0, 5.000001)])
    assert marks(asked, view(table)) == [None, "#0", "#0", "#1", "#1"]


def test_the_ttl_bound_is_included() -> None:
    asked = entity_rows([(1, "x", t) for t in (2.999999, 3.0, 3.000001)])
    assert marks(asked, view(feature_rows(ONE), ttl=3 * SECOND)) == ["#0", "#0", None]


def test_moments_finer_than_a_microsecond_see_no_row_that_is_not_yet_valid(tmp_path: pathlib.Path) -> None:
    nanos = int(START.timestamp()) * 10**9 - 1
    asked = pa.table(
        {"user": [1, 1], "event_timestamp": pa.array([nanos, nanos + 1], pa.timestamp("ns", "UTC"))}
    )
    pq.write_table(asked, tmp_path / "asked.parquet")
    rows = view(feature_rows(ONE))
    assert marks(asked, rows) == marks(tmp_path / "asked.parquet", rows) == [None, "#0"]


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns")]
)
def test_times_without_zone_are_utc(kind: pa.DataType) -> None:
    table = feature_rows(ONE)
    naive = table.set_column(2, "seen_at", table["seen_at"].cast(pa.timestamp("us")).cast(kind))
    asked = entity_rows([(1, "x", -1.0), (1, "x", 0.0)])
    asked = asked.set_column(
        1, "event_timestamp", asked["event_timestamp"].cast(pa.timestamp("us")).cast(kind)
    )
    assert marks(asked, view(naive)) == [None, "#0"]


def test_other_zones_name_the_same_moment() -> None:
    asked = entity_rows([(1, "x", -1.0), (1, "x", 0.0)])
    zoned = asked["event_timestamp"].cast(pa.timestamp("us", "America/New_York"))
    assert marks(asked.set_column(1, "event_timestamp", zoned), view(feature_rows(ONE))) == [None, "#0"]


def test_rows_come_in_input_order_with_their_own_columns_untouched() -> None:
    asked = entity_rows([(2, "y", 9.0), (1, "x", 9.0), (2, "y", 9.0), (None, None, None)])
    joined = asof_join(asked, [view(feature_rows(ONE))]).table()
    assert joined.column_names == [*asked.column_names, "value", "view__mark"]
    assert joined.select(asked.column_names).equals(asked)
    assert joined["value"].to_pylist() == [None, 1.0, None, None]


def test_many_rows_and_ties_give_the_same_answer_whatever_the_threads_and_pieces() -> None:
    count = 30_000
    table = feature_rows([(n % 7, "x", float(n % 50), 0.0, 1.0) for n in range(count)])
    asked = entity_rows([(n % 7, "x", float(n % 60)) for n in range(5_000)])
    last = {(n % 7, n % 50): f"#{n}" for n in range(count)}
    wanted = [last[n % 7, min(n % 60, 49)] for n in range(5_000)]
    rows = view(table)
    assert marks(asked, rows, threads=2) == wanted
    assert marks(asked, rows, threads=1) == wanted
    pieces = list(asof_join(asked, [rows]).batches(999))
    assert [piece.num_rows for piece in pieces] == [999] * 5 + [5]
    assert pa.concat_tables(pieces)["view__mark"].to_pylist() == wanted


def test_entity_rows_from_a_parquet_file_are_streamed_in_file_order(tmp_path: pathlib.Path) -> None:
    asked = entity_rows([(n % 3, "x", float(n)) for n in range(1000)])
    pq.write_table(asked, tmp_path / "asked.parquet", row_group_size=70)
    rows = view(feature_rows([(1, "x", 100.0, 0.0, 1.0), (2, "x", 500.0, 0.0, 2.0)]))
    from_file = asof_join(tmp_path / "asked.parquet", [rows])
    assert from_file.table().equals(asof_join(asked, [rows]).table())
    assert sum(piece.num_rows for piece in from_file.batches(64)) == 1000


def test_no_entity_rows_still_give_the_columns(tmp_path: pathlib.Path) -> None:
    asked = entity_rows([])
    pq.write_table(asked, tmp_path / "asked.parquet")
    rows = view(feature_rows(ONE))
    for source in (asked, tmp_path / "asked.parquet"):
        joined = asof_join(source, [rows]).table()
        assert joined.num_rows == 0
        assert joined.schema.field("value").type == pa.float64()


def test_several_tables_with_different_keys() -> None:
    table = feature_rows([(1, "x", 0.0, 0.0, 1.0), (2, "y", 1.0, 0.0, 2.0)])
    by_item = view(table, name="by_item", keys={"item": "item"}, columns={"item_value": "value"})
    by_friend = view(table, name="by_friend", keys={"user": "line"}, columns={"friend_value": "value"})
    asked = entity_rows([(1, "y", 9.0), (2, "x", 9.0), (3, None, 9.0)])
    joined = asof_join(asked, [view(table), by_item, by_friend]).table()
    assert joined["value"].to_pylist() == [1.0, 2.0, None]
    assert joined["item_value"].to_pylist() == [2.0, 1.0, None]
    assert joined["friend_value"].to_pylist() == [None, 1.0, 2.0]


def test_a_delta_table_is_read_at_one_version(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "view"
    write_deltalake(str(path), feature_rows(ONE), partition_by=["item"])
    write_deltalake(str(path), feature_rows([(1, "x", 1.0, 0.0, 2.0)]), mode="append")
    asked = entity_rows([(1, "x", 9.0)])
    for version, value in ((0, 1.0), (1, 2.0)):
        joined = asof_join(asked, [view(scan_sql(path, version))]).table()
        assert joined["value"].to_pylist() == [value]


def test_values_of_any_type_are_carried() -> None:
    table = pa.table(
        {
            "user": pa.array(["a", "b"]).dictionary_encode(),
            "seen_at": moments([0.0, 0.0]),
            "list": pa.array([[1, 2], None]),
            "flag": [True, False],
            "day": pa.array([dt.date(2017, 1, 1), None]),
        }
    )
    rows = FeatureRows(
        "view", table, {"user": "user"}, "seen_at", {"list": "list", "flag": "flag", "day": "day"}
    )
    asked = pa.table({"user": ["b", "c", "a"], "event_timestamp": moments([1.0, 1.0, 1.0])})
    joined = asof_join(asked, [rows]).table().select(["list", "flag", "day"]).to_pylist()
    assert joined == [
        {"list": None, "flag": False, "day": None},
        {"list": None, "flag": None, "day": None},
        {"list": [1, 2], "flag": True, "day": dt.date(2017, 1, 1)},
    ]


@pytest.mark.parametrize(
    ("entities", "changes", "message"),
    [
        ({"drop": "user"}, {}, "entities have no column 'user'"),
        ({"drop": "event_timestamp"}, {}, "entities have no column 'event_timestamp'"),
        ({}, {"keys": {"person": "user"}}, "view: the source has no column 'person'"),
        ({}, {"timestamp": "when"}, "view: the source has no column 'when'"),
        ({}, {"columns": {"line": "value"}}, "view: output column 'line' appears twice"),
        ({}, {"keys": {"user": "item"}}, "entity column 'item' is VARCHAR, key 'user' is INTEGER"),
    ],
)
def test_what_cannot_be_joined_is_named(
    entities: dict[str, str], changes: dict[str, Any], message: str
) -> None:
    asked = entity_rows([(1, "x", 0.0)])
    asked = asked.drop_columns([entities["drop"]]) if entities else asked
    with pytest.raises(JoinError, match=message):
        asof_join(asked, [view(feature_rows(ONE), **changes)])


def test_moments_that_are_not_times_are_named() -> None:
    asked = pa.table({"user": [1], "event_timestamp": ["yesterday"]})
    with pytest.raises(JoinError, match="'event_timestamp' is string; expected a timestamp"):
        asof_join(asked, [view(feature_rows(ONE))])


def test_a_path_that_is_no_parquet_file_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JoinError, match=r"nothing\.parquet: expected the path of one Parquet file"):
        asof_join(tmp_path / "nothing.parquet", [view(feature_rows(ONE))])


def test_a_key_column_of_nulls_matches_nothing() -> None:
    asked = pa.table({"user": pa.nulls(2), "event_timestamp": moments([1.0, 2.0])})
    assert marks(asked, view(feature_rows(ONE))) == [None, None]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), keys=st.integers(1, 40), rows=st.integers(0, 2000), asked=st.integers(0, 60),
    span=st.sampled_from([0, 1, 50, 10**7, 10**15]), start=st.sampled_from([-(10**15), 0, 10**15]),
)  # fmt: skip
def test_pruning_keeps_every_row_that_is_selected(
    seed: int, keys: int, rows: int, asked: int, span: int, start: int
) -> None:
    rng = np.random.default_rng(seed)
    moment_keys, row_keys = rng.integers(0, keys, asked), rng.integers(0, keys, rows)
    moments, times = start + rng.integers(0, span + 1, asked), start + rng.integers(0, span + 1, rows)
    kept = selectable(moment_keys, moments, row_keys, times)
    for key, moment in zip(moment_keys, moments, strict=True):
        seen = (row_keys == key) & (times <= moment)
        if seen.any():
            assert kept[seen & (times == times[seen].max())].all()


def test_pruning_leaves_few_rows_where_moments_are_few() -> None:
    rng = np.random.default_rng(7)
    row_keys, times = rng.integers(0, 50, 100_000), rng.integers(0, 10**13, 100_000)
    moment_keys, moments = rng.integers(0, 50, 500), rng.integers(0, 10**13, 500)
    assert selectable(moment_keys, moments, row_keys, times).sum() < 2_000
